"""The clipped policy loss, and the whole loss of PPO.

Losses come per token, unreduced: sums and counts over micro-batches and
replicas are the trainer's.
"""

from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.losses.value import clipped_value_loss
from tfrlhf.ops.masking import zero_outside
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput
from tfrlhf.types import Tensor


def clipped_policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    clip: float | tuple[float, float] = 0.2,
) -> Tensor:
    """Clipped surrogate loss of each token.

    max(-A·ratio, -A·clip(ratio, 1 - low, 1 + high)) with ratio =
    exp(log_probs - old_log_probs). Schulman et al., 2017
    (https://arxiv.org/abs/1707.06347).

    Args:
        log_probs: float32 [B, S], of the policy that learns.
        old_log_probs: float32 [B, S], at rollout time.
        advantages: float32 [B, S].
        mask: int32 [B, S], 1 on the response.
        clip: the largest change of the ratio, or (low, high) for the largest
            decrease and increase.

    Returns:
        float32 [B, S], 0 outside the mask.

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or the clip
            is negative.

    Example:
        >>> loss = clipped_policy_loss([[0.0]], [[0.0]], [[2.0]], [[1]])
        >>> loss.numpy().tolist()
        [[-2.0]]
    """
    low, high = _bounds(clip)
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
    ratio = tf.exp(
        zero_outside(log_probs, mask) - zero_outside(old_log_probs, mask)
    )
    clipped = tf.clip_by_value(ratio, 1.0 - low, 1.0 + high)
    return tf.maximum(-advantages * ratio, -advantages * clipped)


@keras.saving.register_keras_serializable(package="tfrlhf")
class PPOLoss(keras.losses.Loss):
    """Loss of PPO per token: policy + value_weight·value - entropy bonus.

    Maps (Experience, PolicyOutput) to float32 [B, S], 0 outside the response.

    Args:
        clip: see `clipped_policy_loss`.
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
        name: str = "ppo_loss",
    ) -> None:
        super().__init__(name=name, reduction="none")
        _bounds(clip)
        if value_clip is not None:
            checks.positive("value_clip", value_clip)
        checks.within("value_weight", value_weight, 0.0)
        checks.within("entropy_weight", entropy_weight, 0.0)
        self.clip = clip
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
        return loss

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {
            "clip": self.clip,
            "value_clip": self.value_clip,
            "value_weight": self.value_weight,
            "entropy_weight": self.entropy_weight,
            "name": self.name,
        }


def _bounds(clip: float | tuple[float, float]) -> tuple[float, float]:
    low, high = clip if isinstance(clip, (tuple, list)) else (clip, clip)
    checks.positive("clip", low)
    checks.positive("clip", high)
    return low, high
