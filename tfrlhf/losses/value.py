"""The clipped loss of the value model, per token."""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.ops.masking import zero_outside
from tfrlhf.types import Tensor


def clipped_value_loss(
    values: Tensor,
    old_values: Tensor,
    returns: Tensor,
    mask: Tensor,
    clip: float | None = 0.2,
) -> Tensor:
    """Clipped squared error of each token's value.

    ½·max((v - R)², (clip(v, v_old - ε, v_old + ε) - R)²). Ziegler et al., 2019
    (https://arxiv.org/abs/1909.08593).

    Args:
        values: float32 [B, S], of the value model that learns.
        old_values: float32 [B, S], at rollout time.
        returns: float32 [B, S], the target.
        mask: int32 [B, S], 1 on the response.
        clip: ε, the largest change of the value; None for no clipping.

    Returns:
        float32 [B, S], 0 outside the mask.

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or the clip
            is not positive.

    Example:
        >>> loss = clipped_value_loss([[3.0]], [[3.0]], [[1.0]], [[1]])
        >>> loss.numpy().tolist()
        [[2.0]]
    """
    values = checks.float_tensor("values", values, rank=2)
    old_values = checks.float_tensor("old_values", old_values, rank=2)
    returns = checks.float_tensor("returns", returns, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(
        values=values, old_values=old_values, returns=returns, mask=mask
    )
    values = zero_outside(values, mask)
    old_values = zero_outside(old_values, mask)
    returns = zero_outside(returns, mask)
    error = tf.square(values - returns)
    if clip is not None:
        checks.positive("clip", clip)
        clipped = tf.clip_by_value(values, old_values - clip, old_values + clip)
        error = tf.maximum(error, tf.square(clipped - returns))
    return 0.5 * error
