"""What is done to scores before they become rewards."""

import dataclasses

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Completions
from tfrlhf.types import Tensor


@dataclasses.dataclass(frozen=True)
class ClipScores:
    """Limits scores to [-limit, limit].

    Attributes:
        limit: positive.

    Example:
        >>> ppo.compile(sampler=sampler, score_rules=[ClipScores(10.0)])
    """

    limit: float

    def __post_init__(self) -> None:
        checks.positive("limit", self.limit)

    def __call__(self, scores: Tensor, completions: Completions) -> Tensor:
        """Returns the limited scores, float32 [B]."""
        return tf.clip_by_value(scores, -self.limit, self.limit)


@dataclasses.dataclass(frozen=True)
class MissingEndPenalty:
    """Takes points off responses that were cut by length.

    Subtracted, so that no score is ever raised by it: a factor would raise
    negative ones.

    Attributes:
        penalty: positive.

    Example:
        >>> ppo.compile(sampler=sampler, score_rules=[MissingEndPenalty(1.0)])
    """

    penalty: float

    def __post_init__(self) -> None:
        checks.positive("penalty", self.penalty)

    def __call__(self, scores: Tensor, completions: Completions) -> Tensor:
        """Returns the scores less the penalty, float32 [B]."""
        return scores - self.penalty * tf.cast(
            completions.finished == 0, tf.float32
        )


@dataclasses.dataclass(frozen=True)
class LengthPenalty:
    """Takes points off responses that come near the longest allowed.

    Nothing up to `free` tokens, then rising in a straight line to `penalty`
    at `limit` tokens and above, as DAPO's soft overlong punishment
    (https://arxiv.org/abs/2503.14476).

    Attributes:
        free: tokens that cost nothing.
        limit: tokens from which the whole penalty is due; above `free`.
        penalty: positive.

    Example:
        >>> rule = LengthPenalty(free=48, limit=64, penalty=1.0)
    """

    free: int
    limit: int
    penalty: float = 1.0

    def __post_init__(self) -> None:
        checks.positive("penalty", self.penalty)
        if not 0 <= self.free < self.limit:
            raise ValueError(
                "`free` must be at least 0 and below `limit`. Received: "
                f"free={self.free}, limit={self.limit}"
            )

    def __call__(self, scores: Tensor, completions: Completions) -> Tensor:
        """Returns the scores less the penalty, float32 [B]."""
        length = tf.reduce_sum(completions.response_mask, axis=-1)
        over = tf.cast(length - self.free, tf.float32)
        share = tf.clip_by_value(over / (self.limit - self.free), 0.0, 1.0)
        return scores - self.penalty * share
