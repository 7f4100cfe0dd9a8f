"""The value model: what the rest of a response is expected to bring."""

from collections.abc import Sequence
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from tfrlhf.models import adapters
from tfrlhf.models import heads
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.policy import Policy
from tfrlhf.models.reward import RewardModel
from tfrlhf.models.reward import need_backbone
from tfrlhf.models.trunk import WithTrunk
from tfrlhf.types import Tensor


class ValueModel(WithTrunk, keras.Model):
    """A backbone with a scalar head at every token.

    Args:
        backbone: a KerasHub `Backbone`.
        shares_trunk: whether backbone and adapter are the policy's own, so
            that one pass serves both.
        adapter: an `Adapter` of the backbone, or None.

    Example:
        >>> value = ValueModel.from_policy(policy)
        >>> value(token_ids, padding_mask)  # [B, S], column 0 is 0
    """

    def __init__(
        self,
        backbone: keras.Model,
        shares_trunk: bool = False,
        adapter: Adapter | None = None,
    ) -> None:
        super().__init__(name="value")
        self.backbone = backbone
        self.head = heads.scalar_head(heads.hidden_size(backbone), 0.0, "value")
        self.shares_trunk = shares_trunk
        self.adapter = adapter
        self.built = True

    @classmethod
    def from_policy(cls, policy: Policy, share_trunk: bool = False) -> Self:
        """Starts at value 0 on a policy's weights.

        Args:
            policy: a `Policy` over a KerasHub model.
            share_trunk: takes the policy's backbone and adapter themselves,
                not copies.

        Returns:
            The value model.
        """
        backbone = need_backbone(policy)
        if share_trunk:
            return cls(backbone, True, policy.adapter)
        return cls(adapters.own_backbone(backbone, policy.adapter))

    @classmethod
    def from_reward(
        cls, reward: RewardModel, share_trunk: bool = False
    ) -> Self:
        """Starts from a copy of a reward model, its normalisation included.

        Args:
            reward: a `RewardModel`.
            share_trunk: takes the reward model's frozen backbone itself, with
                a copy of its adapter.

        Returns:
            The value model; at the last token it equals the score.
        """
        if share_trunk:
            adapter = adapters.need(reward).copy(reward.backbone)
            model = cls(reward.backbone, adapter=adapter)
        else:
            model = cls(adapters.own_backbone(reward.backbone, reward.adapter))
        kernel, bias = (np.asarray(w) for w in reward.head.weights)
        gain = heads.as_float(reward.gain)
        model.head.kernel.assign(kernel * gain)
        model.head.bias.assign(bias * gain + heads.as_float(reward.bias))
        return model

    def enable_lora(
        self,
        rank: int,
        alpha: float | None = None,
        targets: Sequence[str] = adapters.TARGETS,
    ) -> None:
        """Freezes the backbone and trains a low-rank adapter in its place.

        A value model that shared the policy's trunk has a pass of its own from
        then on, with its own adapter.

        Args:
            rank: see `Policy.enable_lora`.
            alpha: see `Policy.enable_lora`.
            targets: see `Policy.enable_lora`.

        Raises:
            ValueError: see `Policy.enable_lora`.
        """
        if self.shares_trunk and self.adapter is not None:
            adapters.detach(self)
        super().enable_lora(rank, alpha, targets)
        self.shares_trunk = False

    @property
    def trunk(self) -> keras.Model:
        """The backbone."""
        return self.backbone

    def call(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        training: bool = False,
        where: Tensor | None = None,
    ) -> Tensor:
        """Values the state before every token.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            training: whether dropout is on.
            where: int32 [B, S], 1 on the tokens before which the value is
                asked for; the others have no meaning. None for all.

        Returns:
            float32 [B, S], aligned: index t is the head on the hidden state at
            t-1, column 0 is 0.
        """
        return self.from_hidden(
            heads.hidden_states(
                *(self.backbone, token_ids, padding_mask, training),
                *(self.adapter, heads.places_before(where)),
            )
        )

    def from_hidden(self, hidden: Tensor) -> Tensor:
        """Applies the head to hidden states [B, S, H]; float32 [B, S]."""
        # Cut where there is little to cut: the gradient of a cut is a copy.
        values = self.head(hidden)[:, :-1, 0]
        return tf.pad(values, [[0, 0], [1, 0]])
