"""The clipped policy loss, and the whole loss of PPO.

Losses come per token, unreduced: sums and counts over micro-batches and
replicas are the trainer's.
"""

from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.losses.value import clipped_value_loss
from tfrlhf.ops.kl import KINDS
from tfrlhf.ops.kl import kl_estimate
from tfrlhf.ops.masking import zero_outside
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput
from tfrlhf.types import Tensor

LEVELS = ("token", "sequence")
MEANS = ("tokens", "responses", "limit")


def clipped_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float | tuple[float, float] = 0.2,
    dual_clip: float | None = None,
    level: str = "token",
) -> Tensor:
    """Clipped surrogate loss of each token.

    max(-A·ratio, -A·clip(ratio, 1 - low, 1 + high)) with ratio =
    exp(log_probs - old_log_probs). Schulman et al., 2017
    (https://arxiv.org/abs/1707.06347). Where A is negative a dual clip keeps
    it at -A·dual_clip at the most: Ye et al., 2020
    (https://arxiv.org/abs/1912.09729). A ratio of sequences is the geometric
    mean of its tokens': GSPO, Zheng et al., 2025
    (https://arxiv.org/abs/2507.18071).

    Args:
        log_probs: float32 [B, S], of the policy that learns.
        old_log_probs: float32 [B, S], at rollout time.
        advantages: float32 [B, S].
        mask: int32 [B, S], 1 on the response.
        clip: the largest change of the ratio, or (low, high) for the largest
            decrease and increase.
        dual_clip: the largest ratio that a negative advantage is multiplied
            with, above 1; None for no limit.
        level: "token", or "sequence" for one ratio a row.

    Returns:
        float32 [B, S], 0 outside the mask.

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or an
            argument is out of range.

    Example:
        >>> loss = clipped_policy_loss([[0.0]], [[0.0]], [[2.0]], [[1]])
        >>> loss.numpy().tolist()
        [[-2.0]]
    """
    low, high = _bounds(clip)
    _check_dual_clip(dual_clip)
    log_probs = checks.float_tensor("log_probs", log_probs, rank=2)
    old_log_probs = checks.float_tensor("old_log_probs", old_log_probs, rank=2)
    advantages = checks.float_tensor("advantages", advantages, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(
        log_probs=log_probs,
        old_log_probs=old_log_probs,
        advantages=advantages,
        mask=mask,
    )
    advantages = zero_outside(advantages, mask)
    ratio = policy_ratio(log_probs, old_log_probs, mask, level)
    clipped = tf.clip_by_value(ratio, 1.0 - low, 1.0 + high)
    loss = tf.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is not None:
        limit = -advantages * dual_clip
        loss = tf.where(advantages < 0.0, tf.minimum(loss, limit), loss)
    return loss


def policy_ratio(
    log_probs: Tensor, old_log_probs: Tensor, mask: Tensor, level: str = "token"
) -> Tensor:
    """Probability of what was sampled, over that at rollout time.

    exp(log_probs - old_log_probs) of each token, or of each row the geometric
    mean over its tokens, which has the same scale for any length.

    Args:
        log_probs: float32 [B, S], of the policy that learns.
        old_log_probs: float32 [B, S], at rollout time.
        mask: int32 [B, S], 1 on the response.
        level: "token" or "sequence".

    Returns:
        float32 [B, S], 1 outside the mask (of a row, the row's).

    Raises:
        ValueError: the level is unknown.

    Example:
        >>> old, mask = [[0.0, 0.0]], [[1, 1]]
        >>> policy_ratio([[0.0, 0.4]], old, mask, "sequence").numpy()
        array([[1.2214028, 1.2214028]], dtype=float32)
    """
    checks.one_of("level", level, LEVELS)
    log_probs = checks.float_tensor("log_probs", log_probs, rank=2)
    old_log_probs = checks.float_tensor("old_log_probs", old_log_probs, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    change = zero_outside(log_probs, mask) - zero_outside(old_log_probs, mask)
    if level == "sequence":
        count = tf.reduce_sum(mask, axis=-1, keepdims=True)
        total = tf.reduce_sum(change, axis=-1, keepdims=True)
        mean = total / tf.maximum(tf.cast(count, tf.float32), 1.0)
        change = tf.broadcast_to(mean, tf.shape(change))
    return tf.exp(change)


@keras.saving.register_keras_serializable(package="tfrlhf")
class PPOLoss(keras.losses.Loss):
    """Loss of PPO per token: policy + value - entropy + KL, each weighted.

    Maps (Experience, PolicyOutput) to float32 [B, S], 0 outside the response.
    How the trainer takes the mean of it is part of the loss, too: the mean
    over all tokens (PPO, DAPO: https://arxiv.org/abs/2503.14476), over
    responses of their means (GRPO), or the sum over the longest response
    allowed times the number of responses (Dr. GRPO).

    Args:
        clip: see `clipped_policy_loss`.
        dual_clip: see `clipped_policy_loss`.
        level: see `clipped_policy_loss`.
        mean_over: "tokens", "responses" or "limit".
        kl_weight: factor of the KL to the reference in the loss, apart from
            that in the rewards; 0 leaves it out.
        kl_kind: see `ops.kl_estimate`.
        value_clip: see `clipped_value_loss`; None for no clipping.
        value_weight: factor of the value loss; 0 leaves it out.
        entropy_weight: factor of the entropy bonus; 0 leaves it out.
        name: name of the loss.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> PPOLoss(clip=(0.2, 0.28)).get_config()["clip"]
        (0.2, 0.28)
    """

    def __init__(
        self,
        clip: float | tuple[float, float] = 0.2,
        value_clip: float | None = 0.2,
        value_weight: float = 0.1,
        entropy_weight: float = 0.0,
        dual_clip: float | None = None,
        level: str = "token",
        mean_over: str = "tokens",
        kl_weight: float = 0.0,
        kl_kind: str = "k3",
        name: str = "ppo_loss",
    ) -> None:
        super().__init__(name=name, reduction="none")
        _bounds(clip)
        if value_clip is not None:
            checks.positive("value_clip", value_clip)
        checks.within("value_weight", value_weight, 0.0)
        checks.within("entropy_weight", entropy_weight, 0.0)
        _check_dual_clip(dual_clip)
        checks.one_of("level", level, LEVELS)
        checks.one_of("mean_over", mean_over, MEANS)
        checks.within("kl_weight", kl_weight, 0.0)
        checks.one_of("kl_kind", kl_kind, KINDS)
        self.clip = clip
        self.dual_clip = dual_clip
        self.level = level
        self.mean_over = mean_over
        self.kl_weight = kl_weight
        self.kl_kind = kl_kind
        self.value_clip = value_clip
        self.value_weight = value_weight
        self.entropy_weight = entropy_weight

    def __call__(self, experience: Experience, output: PolicyOutput) -> Tensor:
        """Calls `call`, without Keras' cast of ids and masks to float."""
        return self.call(experience, output)

    def call(self, experience: Experience, output: PolicyOutput) -> Tensor:
        """Computes the loss of each token.

        Args:
            experience: what the rollout recorded, [B, S] each.
            output: what the learner computes for it, [B, S] each.

        Returns:
            float32 [B, S], 0 outside the response.
        """
        mask = experience.response_mask
        loss = clipped_policy_loss(
            output.log_probs,
            experience.old_log_probs,
            experience.advantages,
            mask,
            self.clip,
            self.dual_clip,
            self.level,
        )
        if self.value_weight:
            loss += self.value_weight * clipped_value_loss(
                output.values,
                experience.old_values,
                experience.returns,
                mask,
                self.value_clip,
            )
        if self.entropy_weight:
            entropy = checks.float_tensor("entropy", output.entropy, rank=2)
            loss -= self.entropy_weight * zero_outside(entropy, mask)
        if self.kl_weight:
            loss += self.kl_weight * self.kl(experience, output)
        return loss

    def kl(self, experience: Experience, output: PolicyOutput) -> Tensor:
        """Estimates the KL to the reference, float32 [B, S], in nats."""
        mask = experience.response_mask
        return kl_estimate(
            zero_outside(output.log_probs, mask),
            zero_outside(experience.ref_log_probs, mask),
            self.kl_kind,
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {
            "clip": self.clip,
            "value_clip": self.value_clip,
            "value_weight": self.value_weight,
            "entropy_weight": self.entropy_weight,
            "dual_clip": self.dual_clip,
            "level": self.level,
            "mean_over": self.mean_over,
            "kl_weight": self.kl_weight,
            "kl_kind": self.kl_kind,
            "name": self.name,
        }


def _check_dual_clip(dual_clip: float | None) -> None:
    if dual_clip is not None and not dual_clip > 1.0:
        raise ValueError(
            "`dual_clip` must be above 1, where it limits a ratio. Received: "
            f"dual_clip={dual_clip}"
        )


def _bounds(clip: float | tuple[float, float]) -> tuple[float, float]:
    low, high = clip if isinstance(clip, (tuple, list)) else (clip, clip)
    checks.positive("clip", low)
    checks.positive("clip", high)
    return low, high
