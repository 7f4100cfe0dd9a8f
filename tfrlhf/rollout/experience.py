"""From a rollout to what the policy learns from, and its statistics."""

from collections.abc import Callable

import tensorflow as tf

from tfrlhf import ops
from tfrlhf.types import Experience
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor

Advantage = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor]]


def rollout_rewards(
    rollout: Rollout,
    kl_weight: Tensor,
    kind: str = "k1",
    clip: float | None = None,
) -> Tensor:
    """Turns the scores of a rollout into rewards per token.

    Step rewards lie where their steps end; what the score has beyond their
    sum, all of it without steps, lies on the last token.

    Args:
        rollout: `Rollout` of B rows, S long.
        kl_weight: float32 scalar, the weight of the KL penalty.
        kind: see `ops.kl_estimate`.
        clip: see `ops.token_rewards`.

    Returns:
        float32 [B, S], 0 outside the response.
    """
    mask = rollout.response_mask
    steps = ops.zero_outside(rollout.step_rewards, mask)
    return steps + ops.token_rewards(
        rollout.scores - tf.reduce_sum(steps, axis=-1),
        rollout.log_probs,
        rollout.ref_log_probs,
        mask,
        kl_weight,
        kind,
        clip,
    )


def make_experience(
    rollout: Rollout,
    rewards: Tensor,
    advantage: Advantage,
    has_values: bool = True,
) -> Experience:
    """Turns the rewards of a rollout into advantages.

    The whole batch of an iteration is seen at once, so that whitening does not
    depend on replicas or minibatches.

    Args:
        rollout: `Rollout` of B rows, S long.
        rewards: float32 [B, S], per token.
        advantage: an estimator such as `GAE`.
        has_values: whether the rollout's values come from a value model.

    Returns:
        `Experience`.
    """
    advantages, returns = advantage(
        rewards, rollout.values if has_values else None, rollout.response_mask
    )
    return Experience(
        token_ids=rollout.token_ids,
        padding_mask=rollout.padding_mask,
        response_mask=rollout.response_mask,
        old_log_probs=rollout.log_probs,
        old_values=rollout.values,
        advantages=advantages,
        returns=returns,
        ref_log_probs=rollout.ref_log_probs,
    )


def rollout_metrics(rollout: Rollout, kl_weight: Tensor) -> dict[str, Tensor]:
    """Computes the statistics of a rollout; see docs/metrics.md.

    Args:
        rollout: `Rollout` of B rows.
        kl_weight: float32 scalar.

    Returns:
        float32 scalars under the field's names. An empty response counts
        nowhere.
    """
    mask = rollout.response_mask
    counts = tf.reduce_sum(mask, axis=-1)
    present = tf.cast(counts > 0, tf.int32)
    kl = sequence_kl(rollout.log_probs, rollout.ref_log_probs, mask)
    mean_kl = ops.masked_mean(kl, present)
    scores = ops.masked_mean(rollout.scores, present)
    return {
        "objective/scores": scores,
        "objective/scores_deviation": tf.sqrt(
            ops.masked_variance(rollout.scores, present)
        ),
        "objective/kl": mean_kl,
        "objective/kl_weight": tf.cast(kl_weight, tf.float32),
        "objective/reward": scores - kl_weight * mean_kl,
        "length/mean": ops.masked_mean(tf.cast(counts, tf.float32), present),
        "length/finished": ops.masked_mean(
            tf.cast(rollout.finished, tf.float32), present
        ),
        "sampler/log_prob_gap": sampler_gap(rollout),
    }


def sampler_gap(rollout: Rollout) -> Tensor:
    """Compares the sampler's log-probabilities with the policy's.

    Args:
        rollout: `Rollout` of B rows.

    Returns:
        float32 scalar, the largest difference.
    """
    gap = tf.abs(rollout.sampler_log_probs - rollout.log_probs)
    return tf.reduce_max(tf.where(rollout.response_mask > 0, gap, 0.0))


def value_metrics(experience: Experience) -> dict[str, Tensor]:
    """Computes how well the values foretold the returns.

    Args:
        experience: `Experience`.

    Returns:
        float32 scalars; `value/explained_variance` is 1 − variance of the
        error / variance of the returns, 0 where the returns do not vary.
    """
    mask = experience.response_mask
    error = tf.where(mask > 0, experience.returns - experience.old_values, 0.0)
    variance = ops.masked_variance(experience.returns, mask)
    explained = 1.0 - tf.math.divide_no_nan(
        ops.masked_variance(error, mask), variance
    )
    return {
        "value/mean": ops.masked_mean(experience.old_values, mask),
        "value/explained_variance": tf.where(variance > 0.0, explained, 0.0),
        "returns/mean": ops.masked_mean(experience.returns, mask),
        "returns/deviation": tf.sqrt(variance),
    }


def sequence_kl(
    log_probs: Tensor, ref_log_probs: Tensor, mask: Tensor
) -> Tensor:
    """Sums the k1 estimate over a sequence.

    Args:
        log_probs: float32 [B, S].
        ref_log_probs: float32 [B, S].
        mask: int32 [B, S].

    Returns:
        float32 [B], in nats.
    """
    log_probs = tf.where(mask > 0, log_probs, 0.0)
    ref_log_probs = tf.where(mask > 0, ref_log_probs, 0.0)
    return tf.reduce_sum(
        ops.kl_estimate(log_probs, ref_log_probs, "k1"), axis=-1
    )
