"""Advantages of whole responses: what all their tokens share.

The rewards of a response are summed first, the KL penalty among them; every
one of its tokens then has the same advantage. There are no values.
"""

import dataclasses

import tensorflow as tf

from tfrlhf import checks
from tfrlhf import ops
from tfrlhf.types import Tensor


@dataclasses.dataclass(frozen=True)
class GroupRelative:
    """Scores relative to the other responses to the same prompt, as GRPO.

    See `ops.group_relative`.

    Attributes:
        group_size: responses to a prompt, at least 2.
        scale: whether to divide by the deviation of the group; Dr. GRPO does
            not.

    Example:
        >>> grpo.compile(advantage=GroupRelative(8), sampler=sampler)
    """

    group_size: int = 8
    scale: bool = True

    def __post_init__(self) -> None:
        _check_group_size(self.group_size)

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a rollout of whole groups.

        Args:
            rewards: float32 [B, S], per token; rows of a group follow each
                other.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.
        """
        returns = _sums(rewards, mask)
        advantages = ops.group_relative(returns, self.group_size, self.scale)
        return _on_tokens(advantages, mask), _on_tokens(returns, mask)


@dataclasses.dataclass(frozen=True)
class LeaveOneOut:
    """Scores less the mean of the others in the group, as RLOO.

    See `ops.leave_one_out`.

    Attributes:
        group_size: responses to a prompt, at least 2.

    Example:
        >>> rloo.compile(advantage=LeaveOneOut(4), sampler=sampler)
    """

    group_size: int = 4

    def __post_init__(self) -> None:
        _check_group_size(self.group_size)

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a rollout of whole groups.

        Args:
            rewards: float32 [B, S], per token; rows of a group follow each
                other.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.
        """
        returns = _sums(rewards, mask)
        advantages = ops.leave_one_out(returns, self.group_size)
        return _on_tokens(advantages, mask), _on_tokens(returns, mask)


@dataclasses.dataclass(frozen=True)
class RewardWeighted:
    """The rewards themselves, for reward-weighted regression.

    The loss is then -R·log π of every token: an expectation-maximisation step
    if no R is negative. Peters and Schaal, 2007
    (https://doi.org/10.1145/1273496.1273590).

    Attributes:
        minimum: what is added up to, so that no weight is negative: returns
            below it weigh 0.

    Example:
        >>> RewardWeighted()(rewards, None, mask)
    """

    minimum: float = 0.0

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighs the responses of a rollout.

        Args:
            rewards: float32 [B, S], per token.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            weights and returns, float32 [B, S], 0 outside the mask.
        """
        returns = _sums(rewards, mask)
        weights = tf.maximum(returns - self.minimum, 0.0)
        return _on_tokens(weights, mask), _on_tokens(returns, mask)


@dataclasses.dataclass(frozen=True)
class AdvantageWeighted:
    """exp((R - mean R) / temperature), for advantage-weighted regression.

    Peng et al., 2019 (https://arxiv.org/abs/1910.00177), with the mean return
    of the rollout as the value.

    Attributes:
        temperature: β of the paper, positive; the lower, the more the best
            responses count.
        limit: the largest weight.

    Example:
        >>> AdvantageWeighted(temperature=0.5)(rewards, None, mask)
    """

    temperature: float = 1.0
    limit: float = 20.0

    def __post_init__(self) -> None:
        checks.positive("temperature", self.temperature)
        checks.positive("limit", self.limit)

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Weighs the responses of a rollout.

        Args:
            rewards: float32 [B, S], per token.
            values: not used.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            weights and returns, float32 [B, S], 0 outside the mask.
        """
        returns = _sums(rewards, mask)
        present = tf.reduce_max(mask, axis=-1)
        mean = ops.masked_mean(returns, present)
        # The limit first: exp would be infinite for the best.
        log_weights = tf.minimum(
            (returns - mean) / self.temperature, tf.math.log(self.limit)
        )
        weights = tf.exp(log_weights)
        return _on_tokens(weights, mask), _on_tokens(returns, mask)


def _sums(rewards: Tensor, mask: Tensor) -> Tensor:
    return tf.reduce_sum(ops.zero_outside(rewards, mask), axis=-1)


def _on_tokens(x: Tensor, mask: Tensor) -> Tensor:
    return x[:, None] * tf.cast(mask, tf.float32)


def _check_group_size(group_size: int) -> None:
    if group_size < 2:
        raise ValueError(
            "`group_size` must be at least 2: a response has nothing to "
            f"compare with in a group of one. Received: {group_size}"
        )
