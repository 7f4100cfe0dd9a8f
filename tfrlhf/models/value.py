"""The value model: what the rest of a response is expected to bring."""

from typing import Self

import keras
import numpy as np
import tensorflow as tf

from tfrlhf.models import backbones
from tfrlhf.models import heads
from tfrlhf.models.policy import Policy
from tfrlhf.models.reward import RewardModel
from tfrlhf.models.reward import need_backbone
from tfrlhf.types import Tensor


class ValueModel(keras.Model):
    """A backbone with a scalar head at every token.

    Args:
        backbone: a KerasHub `Backbone`.
        shares_trunk: whether the backbone is the policy's own, so that one
            pass serves both.

    Example:
        >>> value = ValueModel.from_policy(policy)
        >>> value(token_ids, padding_mask)  # [B, S], column 0 is 0
    """

    def __init__(
        self, backbone: keras.Model, shares_trunk: bool = False
    ) -> None:
        super().__init__(name="value")
        self.backbone = backbone
        self.head = heads.scalar_head(heads.hidden_size(backbone), 0.0, "value")
        self.shares_trunk = shares_trunk
        self.built = True

    @classmethod
    def from_policy(cls, policy: Policy, share_trunk: bool = False) -> Self:
        """Starts at value 0 on a policy's weights.

        Args:
            policy: a `Policy` over a KerasHub model.
            share_trunk: takes the policy's backbone itself, not a copy.

        Returns:
            The value model.
        """
        backbone = need_backbone(policy)
        if not share_trunk:
            backbone = backbones.clone_backbone(backbone)
        return cls(backbone, share_trunk)

    @classmethod
    def from_reward(cls, reward: RewardModel) -> Self:
        """Starts from a copy of a reward model, its normalisation included.

        Args:
            reward: a `RewardModel`.

        Returns:
            The value model; at the last token it equals the score.
        """
        model = cls(backbones.clone_backbone(reward.backbone))
        kernel, bias = (np.asarray(w) for w in reward.head.weights)
        gain = heads.as_float(reward.gain)
        model.head.kernel.assign(kernel * gain)
        model.head.bias.assign(bias * gain + heads.as_float(reward.bias))
        return model

    def call(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Values the state before every token.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            training: whether dropout is on.

        Returns:
            float32 [B, S], aligned: index t is the head on the hidden state at
            t-1, column 0 is 0.
        """
        return self.from_hidden(
            heads.hidden_states(
                self.backbone, token_ids, padding_mask, training
            )
        )

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """Applies the head to hidden states [B, S, H]; float32 [B, S]."""
        values = self.head(hidden[:, :-1])[:, :, 0]
        return tf.pad(values, [[0, 0], [1, 0]])
