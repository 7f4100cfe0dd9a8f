"""Advantage estimators: rewards and values to what a token was worth."""

import dataclasses

import tensorflow as tf

from tfrlhf import checks
from tfrlhf import ops
from tfrlhf.types import Tensor

MOMENTS = ("rollout", "minibatch")


@dataclasses.dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438).

    Attributes:
        discount: γ, what a reward one token later is worth.
        decay: λ, between the one-step estimate (0) and the return (1).
        whiten: whether the advantages get mean 0, deviation 1.
        whiten_rewards: whether the rewards get deviation 1 first, around the
            mean that they have (https://arxiv.org/abs/1909.08593).
        unbiased: whether whitening divides by the unbiased variance, over n-1
            tokens, as PyTorch's `var` does.
        when: "rollout" estimates once, over all rows of an iteration;
            "minibatch" anew for every minibatch, over its rows.

    Example:
        >>> advantages, returns = GAE(decay=0.95)(rewards, values, mask)
    """

    discount: float = 1.0
    decay: float = 0.95
    whiten: bool = True
    whiten_rewards: bool = False
    unbiased: bool = False
    when: str = "rollout"

    def __post_init__(self) -> None:
        checks.within("discount", self.discount, 0.0, 1.0)
        checks.within("decay", self.decay, 0.0, 1.0)
        checks.one_of("when", self.when, MOMENTS)

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a rollout, or of a minibatch of it.

        Args:
            rewards: float32 [B, S], per token.
            values: float32 [B, S], before each token.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.

        Raises:
            ValueError: there are no values.
        """
        if values is None:
            raise ValueError(
                "GAE needs a value model: give `PPO(value=...)` one."
            )
        if self.whiten_rewards:
            rewards = self._whitened(rewards, mask, shift_mean=False)
        advantages, returns = ops.gae(
            rewards, values, mask, self.discount, self.decay
        )
        if self.whiten:
            advantages = self._whitened(advantages, mask, shift_mean=True)
        return advantages, returns

    def _whitened(self, x: Tensor, mask: Tensor, shift_mean: bool) -> Tensor:
        mean = ops.masked_mean(x, mask)
        variance = ops.masked_variance(x, mask)
        if self.unbiased:
            count = tf.cast(tf.reduce_sum(mask), tf.float32)
            variance *= count / tf.maximum(count - 1.0, 1.0)
        return ops.whiten(x, mask, shift_mean, mean, variance)


@dataclasses.dataclass(frozen=True)
class WhitenedReturns:
    """Discounted returns with mean 0 and deviation 1 over the rollout.

    The advantages of REINFORCE++: no value model and no groups. Hu, 2025
    (https://arxiv.org/abs/2501.03262).

    Attributes:
        discount: γ, what a reward one token later is worth.

    Example:
        >>> advantages, returns = WhitenedReturns()(rewards, None, mask)
    """

    discount: float = 1.0

    def __post_init__(self) -> None:
        checks.within("discount", self.discount, 0.0, 1.0)

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a rollout.

        Args:
            rewards: float32 [B, S], per token.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.
        """
        returns = ops.discounted_returns(rewards, mask, self.discount)
        return ops.whiten(returns, mask), returns


class MovingBaseline(tf.Module):
    """Discounted returns minus a moving average of the returns before.

    A_t = G_t - b, with b the average of the earlier rollouts' mean return,
    whose weights fall by `momentum` a rollout; 0 at the first. The baseline
    knows nothing of the rollout it is taken from, so that the gradient stays
    unbiased. Williams, 1992 (https://doi.org/10.1007/BF00992696).

    Args:
        momentum: in [0, 1); 0 takes the rollout before alone.
        discount: γ, what a reward one token later is worth.

    Attributes:
        average: float32, the moving average, not yet corrected for its start.
        rollouts: int64, how many went into it.

    Example:
        >>> estimator = MovingBaseline(momentum=0.9)
        >>> advantages, returns = estimator(rewards, None, mask)
    """

    def __init__(self, momentum: float = 0.9, discount: float = 1.0) -> None:
        super().__init__(name="moving_baseline")
        checks.within("momentum", momentum, 0.0, 1.0 - 1e-6)
        checks.within("discount", discount, 0.0, 1.0)
        self.momentum = momentum
        self.discount = discount
        self.average = tf.Variable(0.0, trainable=False, name="average")
        self.rollouts = tf.Variable(
            0, trainable=False, dtype=tf.int64, name="rollouts"
        )

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a rollout and learns from it.

        Args:
            rewards: float32 [B, S], per token.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.
        """
        returns = ops.discounted_returns(rewards, mask, self.discount)
        baseline = self.baseline()
        advantages = ops.zero_outside(returns - baseline, mask)
        self.average.assign(
            self.momentum * self.average
            + (1.0 - self.momentum) * ops.masked_mean(returns, mask)
        )
        self.rollouts.assign_add(1)
        return advantages, returns

    def baseline(self) -> Tensor:
        """Returns the float32 baseline of the next rollout."""
        # As Adam's first moment: without it the average would start near 0.
        known = 1.0 - self.momentum ** tf.cast(self.rollouts, tf.float32)
        return tf.math.divide_no_nan(self.average.read_value(), known)
