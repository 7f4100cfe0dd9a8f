"""Advantages of responses within their group: several to one prompt."""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def group_relative(
    scores: Tensor, group_size: int, scale: bool = True
) -> Tensor:
    """Advantages relative to the mean of the group, as GRPO takes them.

    A = (s - mean) / (σ + 1e-4), with the biased deviation σ over the group.
    Shao et al., 2024 (https://arxiv.org/abs/2402.03300); without the division
    Dr. GRPO, Liu et al., 2025 (https://arxiv.org/abs/2503.20783).

    Args:
        scores: float32 [B]; the rows of a group follow each other.
        group_size: rows of a group, at least 2; divides B.
        scale: whether to divide by the deviation.

    Returns:
        float32 [B].

    Raises:
        ValueError: a group of one, or rows that make no whole groups.

    Example:
        >>> group_relative([1.0, 3.0, 5.0, 5.0], 2, scale=False).numpy()
        array([-1.,  1.,  0.,  0.], dtype=float32)
    """
    groups = _groups(scores, group_size)
    centred = groups - tf.reduce_mean(groups, axis=1, keepdims=True)
    if scale:
        variance = tf.reduce_mean(tf.square(centred), axis=1, keepdims=True)
        centred = centred / (tf.sqrt(variance) + 1e-4)
    return tf.reshape(centred, [-1])


def leave_one_out(scores: Tensor, group_size: int) -> Tensor:
    """Advantages over the mean of the others in the group, as RLOO's.

    A_i = s_i - mean of s_j, j ≠ i: a baseline that does not depend on the
    response itself, so that the gradient stays unbiased. Kool et al., 2019;
    Ahmadian et al., 2024 (https://arxiv.org/abs/2402.14740).

    Args:
        scores: float32 [B]; the rows of a group follow each other.
        group_size: rows of a group, at least 2; divides B.

    Returns:
        float32 [B].

    Raises:
        ValueError: a group of one, or rows that make no whole groups.

    Example:
        >>> leave_one_out([1.0, 3.0, 5.0, 5.0], 2).numpy()
        array([-2.,  2.,  0.,  0.], dtype=float32)
    """
    groups = _groups(scores, group_size)
    others = tf.reduce_sum(groups, axis=1, keepdims=True) - groups
    return tf.reshape(groups - others / (group_size - 1.0), [-1])


def _groups(scores: Tensor, group_size: int) -> Tensor:
    scores = checks.float_tensor("scores", scores, rank=1)
    if group_size < 2:
        raise ValueError(
            "A response has nothing to compare with in a group of one: "
            f"`group_size` must be at least 2. Received: {group_size}"
        )
    rows = scores.shape[0]
    if rows is not None and rows % group_size:
        raise ValueError(
            f"{rows} rows make no whole groups of {group_size}: the number of "
            "rows must divide by `group_size`."
        )
    return tf.reshape(scores, [-1, group_size])
