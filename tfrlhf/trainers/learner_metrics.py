"""What a minibatch of PPO tells about the update, per token."""

import tensorflow as tf

from tfrlhf import losses
from tfrlhf import ops
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput
from tfrlhf.types import Tensor


def policy_metrics(
    loss: losses.PPOLoss, batch: Experience, output: PolicyOutput
) -> dict[str, Tensor]:
    """Computes what a minibatch tells of the policy; see docs/metrics.md.

    Args:
        loss: the `PPOLoss`, for its clip range.
        batch: `Experience` of B rows.
        output: `PolicyOutput` of the policy that learns.

    Returns:
        Name to float32 [B, S], to be averaged over response tokens.
    """
    mask = batch.response_mask
    low, high = (
        loss.clip if isinstance(loss.clip, tuple) else (loss.clip, loss.clip)
    )
    change = ops.zero_outside(output.log_probs, mask) - ops.zero_outside(
        batch.old_log_probs, mask
    )
    ratio = losses.policy_ratio(
        output.log_probs, batch.old_log_probs, mask, loss.level
    )
    advantages = ops.zero_outside(batch.advantages, mask)
    clipped = tf.clip_by_value(ratio, 1.0 - low, 1.0 + high)
    policy_clipped = -advantages * clipped > -advantages * ratio
    metrics = {
        "loss/policy": losses.clipped_policy_loss(
            output.log_probs,
            batch.old_log_probs,
            batch.advantages,
            mask,
            loss.clip,
            loss.dual_clip,
            loss.level,
        ),
        "policy/clipfrac": tf.cast(policy_clipped, tf.float32),
        "policy/approx_kl": 0.5 * tf.square(change),
        "policy/entropy": ops.zero_outside(output.entropy, mask),
    }
    if loss.kl_weight > 0.0:
        metrics["loss/kl"] = loss.kl(batch, output)
    return metrics


def value_metrics(
    loss: losses.PPOLoss, batch: Experience, values: Tensor
) -> dict[str, Tensor]:
    """Computes what a minibatch tells of the values; see docs/metrics.md.

    Args:
        loss: the `PPOLoss`, for its clip range.
        batch: `Experience` of B rows.
        values: float32 [B, S], of the value model that learns.

    Returns:
        Name to float32 [B, S], to be averaged over response tokens.
    """
    mask = batch.response_mask
    value_loss = losses.clipped_value_loss(
        values, batch.old_values, batch.returns, mask, loss.value_clip
    )
    error = ops.zero_outside(values - batch.returns, mask)
    value_clipped = value_loss > 0.5 * tf.square(error)
    return {
        "loss/value": value_loss,
        "value/clipfrac": tf.cast(value_clipped, tf.float32),
    }
