"""What each token was worth: returns and advantages.

Masked tokens, in the middle too, are skipped as if deleted: the token after a
gap follows the token before it, one step of discount later.
"""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.ops.masking import zero_outside
from tfrlhf.types import Tensor


def gae(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    discount: float = 1.0,
    decay: float = 0.95,
    bootstrap_values: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimates and the targets of the value model.

    δ_t = r_t + γ·V_next - V_t,  A_t = δ_t + γλ·A_next,  R_t = A_t + V_t, where
    next is the next unmasked position. Schulman et al., 2015
    (https://arxiv.org/abs/1506.02438).

    Args:
        rewards: float32 [B, S].
        values: float32 [B, S], of the state before the token is chosen.
        mask: int32 [B, S], 1 on the response.
        discount: γ, in [0, 1].
        decay: λ, in [0, 1].
        bootstrap_values: float32 [B], the value after the last token; None
            for 0.

    Returns:
        advantages and returns, float32 [B, S], 0 outside the mask.

    Raises:
        ValueError: if a dtype, rank or range is wrong, or the shapes differ.

    Example:
        >>> advantages, returns = gae(
        ...     [[0.0, 1.0]], [[0.5, 0.5]], [[1, 1]], decay=0.5
        ... )
        >>> advantages.numpy().tolist(), returns.numpy().tolist()
        ([[0.25, 0.5]], [[0.75, 1.0]])
    """
    rewards = checks.float_tensor("rewards", rewards, rank=2)
    values = checks.float_tensor("values", values, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(rewards=rewards, values=values, mask=mask)
    checks.within("discount", discount, 0.0, 1.0)
    checks.within("decay", decay, 0.0, 1.0)
    rewards = zero_outside(rewards, mask)
    values = zero_outside(values, mask)
    if bootstrap_values is None:
        after = tf.zeros_like(values[:, :1])
    else:
        after = checks.float_tensor(
            "bootstrap_values", bootstrap_values, rank=1
        )[:, None]
        checks.same_batch(values=values, bootstrap_values=after)

    # The value at this position or, where it is masked, at the next one that
    # is not; one column more than `values`.
    skipped = 1.0 - tf.cast(mask, tf.float32)
    value_here = _linear_recurrence(
        tf.concat([values, after], axis=1),
        tf.concat([skipped, tf.zeros_like(after)], axis=1),
    )
    deltas = rewards + discount * value_here[:, 1:] - values
    advantages = _discounted_sum(deltas, mask, discount * decay)
    return advantages, zero_outside(advantages + values, mask)


def discounted_returns(
    rewards: Tensor, mask: Tensor, discount: float = 1.0
) -> Tensor:
    """Sum of the rewards from each token on: G_t = r_t + γ·G_next.

    Args:
        rewards: float32 [B, S].
        mask: int32 [B, S], 1 on the response.
        discount: γ, in [0, 1].

    Returns:
        float32 [B, S], 0 outside the mask.

    Raises:
        ValueError: if a dtype, rank or range is wrong, or the shapes differ.

    Example:
        >>> returns = discounted_returns([[1.0, 9.0, 1.0]], [[1, 0, 1]], 0.5)
        >>> returns.numpy().tolist()
        [[1.5, 0.0, 1.0]]
    """
    rewards = checks.float_tensor("rewards", rewards, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(rewards=rewards, mask=mask)
    checks.within("discount", discount, 0.0, 1.0)
    return _discounted_sum(rewards, mask, discount)


def _discounted_sum(x: Tensor, mask: Tensor, discount: float) -> Tensor:
    factors = tf.where(tf.equal(mask, 1), tf.cast(discount, tf.float32), 1.0)
    sums = _linear_recurrence(zero_outside(x, mask), factors)
    return zero_outside(sums, mask)


def _linear_recurrence(offsets: Tensor, factors: Tensor) -> Tensor:
    """Solves y_t = offsets_t + factors_t · y_{t+1} with y_S = 0.

    Doubles the span that every position has summed up: log2(S) passes over
    [B, S] instead of S over [B]. Plain adds and products, because a GPU rounds
    a matrix product to TF32.
    """
    length = tf.shape(offsets)[1]
    positions = tf.range(length)

    def double(
        span: Tensor, sums: Tensor, products: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        inside = positions + span < length
        ahead = tf.where(inside, tf.roll(sums, -span, axis=1), 0.0)
        further = tf.where(inside, tf.roll(products, -span, axis=1), 0.0)
        return 2 * span, sums + products * ahead, products * further

    # XLA needs the bound for the gradient; an int32 length has 31 bits.
    _, solution, _ = tf.while_loop(
        lambda span, sums, products: span < length,
        double,
        (1, offsets, factors),
        maximum_iterations=31,
    )
    return solution
