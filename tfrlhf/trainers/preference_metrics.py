"""What is logged of direct preference optimisation: sums and counts."""

import tensorflow as tf

from tfrlhf.losses.preference_objectives import unequal_pairs
from tfrlhf.models.reward import ranking_metrics
from tfrlhf.types import Tensor

PAIRS = (
    "loss",
    "accuracy",
    "rewards/chosen",
    "rewards/rejected",
    "rewards/margin",
    "log_probs/chosen",
    "log_probs/rejected",
)
RATINGS = (
    "loss",
    "accuracy",
    "rewards/chosen",
    "rewards/rejected",
    "kl",
    "log_probs/chosen",
    "log_probs/rejected",
)


def pair_metrics(
    rewards: Tensor, log_probs: Tensor, ranks: Tensor, weight: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Measures pairs of unequal rank, each with the weight of its record.

    Args:
        rewards: float32 [B, K], the implicit rewards.
        log_probs: float32 [B, K], of whole responses.
        ranks: int32 [B, K], 0 = best, -1 = absent.
        weight: float32 [B].

    Returns:
        Sum and count of every name in `PAIRS` but the loss.
    """
    ranking = ranking_metrics(rewards, ranks, weight)
    pairs = tf.cast(unequal_pairs(ranks), tf.float32) * weight[:, None, None]
    better, worse = tf.reduce_sum(pairs, axis=2), tf.reduce_sum(pairs, axis=1)
    count = tf.reduce_sum(pairs)
    return {
        "accuracy": ranking["accuracy"],
        "rewards/chosen": (tf.reduce_sum(rewards * better), count),
        "rewards/rejected": (tf.reduce_sum(rewards * worse), count),
        "rewards/margin": ranking["margin"],
        "log_probs/chosen": (tf.reduce_sum(log_probs * better), count),
        "log_probs/rejected": (tf.reduce_sum(log_probs * worse), count),
    }


def rating_metrics(
    rewards: Tensor,
    log_probs: Tensor,
    threshold: Tensor,
    rating: Tensor,
    weight: Tensor,
) -> dict[str, tuple[Tensor, Tensor]]:
    """Measures single responses.

    Args:
        rewards: float32 [B], the implicit rewards.
        log_probs: float32 [B], of whole responses.
        threshold: float32 [B], above which a reward calls a response good.
        rating: float32 [B], 1 good, 0 bad.
        weight: float32 [B].

    Returns:
        Sum and count of every name in `RATINGS` but the loss and the KL.
    """
    good, bad = weight * rating, weight * (1.0 - rating)
    goods, bads = tf.reduce_sum(good), tf.reduce_sum(bad)
    sign = tf.sign(rewards - threshold)
    right = 0.5 * (good * (1.0 + sign) + bad * (1.0 - sign))
    return {
        "accuracy": (tf.reduce_sum(right), goods + bads),
        "rewards/chosen": (tf.reduce_sum(rewards * good), goods),
        "rewards/rejected": (tf.reduce_sum(rewards * bad), bads),
        "log_probs/chosen": (tf.reduce_sum(log_probs * good), goods),
        "log_probs/rejected": (tf.reduce_sum(log_probs * bad), bads),
    }
