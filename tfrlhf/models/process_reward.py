"""The process reward model: a number for every step of a response."""

import pathlib
from collections.abc import Sequence
from typing import Any
from typing import Self

import keras
import numpy as np
import tensorflow as tf

from tfrlhf import data
from tfrlhf import losses
from tfrlhf import ops
from tfrlhf.models import heads
from tfrlhf.models import start_check
from tfrlhf.models.policy import UNLIMITED
from tfrlhf.models.preset_files import read_settings
from tfrlhf.models.preset_files import write_settings
from tfrlhf.models.reward import RewardModel
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.models.trainable import BatchLosses
from tfrlhf.types import StepRatings
from tfrlhf.types import Tensor


class ProcessRewardModel(RewardModel):
    r"""A reward model whose head is read wherever a step ends.

    A step ends at the separator's token, the last one at EOS; its reward is
    the head on the hidden state there, which sees the step and all before it.
    The sigmoid of a reward is the chance that the step is right
    (https://arxiv.org/abs/2305.20050). As a `RewardModel`, its score is the
    reward of the last step.

    Args:
        backbone: a causal KerasHub `Backbone`.
        tokenizer: `Tokenizer`, in which the separator is one token.
        context_length: see `RewardModel`.
        head_stddev: see `RewardModel`.
        separator: what stands between two steps.

    Example:
        >>> process = ProcessRewardModel.from_policy(policy)
        >>> process.compile("adam")
        >>> process.fit([{"prompt": "2+2+1=", "steps": ["4+1", "6"],
        ...               "labels": [1, 0]}])
        >>> process.score_steps(["2+2+1="], ["4+1\n5"])
        [[2.1, 1.7]]
    """

    metric_names = ("loss", "accuracy")

    def __init__(
        self,
        backbone: keras.Model,
        tokenizer: Tokenizer | None = None,
        context_length: int = UNLIMITED,
        head_stddev: float | None = None,
        separator: str = "\n",
    ) -> None:
        super().__init__(backbone, tokenizer, context_length, head_stddev)
        self.separator = separator

    @classmethod
    def from_preset(cls, directory: str | pathlib.Path) -> Self:
        """Loads what `save_to_preset` wrote, of a `RewardModel` as well."""
        model = super().from_preset(directory)
        settings = read_settings(pathlib.Path(directory))
        model.separator = settings.get("separator", model.separator)
        return model

    def save_to_preset(self, directory: str | pathlib.Path) -> None:
        """Writes a directory that `from_preset` reloads."""
        super().save_to_preset(directory)
        directory = pathlib.Path(directory)
        settings = read_settings(directory) | {"separator": self.separator}
        write_settings(directory, settings)

    def step_ends(self, token_ids: Tensor, response_mask: Tensor) -> Tensor:
        """Tells where steps end: at separators, and at EOS.

        A last step that was cut by length has no end.

        Args:
            token_ids: int32 [B, S].
            response_mask: int32 [B, S].

        Returns:
            int32 [B, S].
        """
        tokenizer = self.need_tokenizer()
        separator = data.separator_id(tokenizer, self.separator)
        is_end = (token_ids == separator) | (token_ids == tokenizer.eos_id)
        return tf.where(is_end, response_mask, 0)

    def step_rewards(
        self, token_ids: Tensor, padding_mask: Tensor, response_mask: Tensor
    ) -> Tensor:
        """Rewards tokens: where a step ends its reward, elsewhere 0.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S], right-padded.
            response_mask: int32 [B, S].

        Returns:
            float32 [B, S], aligned; to be added to `rollout_rewards`.
        """
        ends = self.step_ends(token_ids, response_mask)
        return ops.zero_outside(
            self.token_scores(token_ids, padding_mask), ends
        )

    def token_scores(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Reads the head after every token; float32 [B, S]."""
        hidden = heads.hidden_states(
            self.backbone, token_ids, padding_mask, training, self.adapter
        )
        return self.head(hidden)[:, :, 0] * self.gain + self.bias

    def score_steps(
        self,
        prompts: Sequence[str],
        responses: Sequence[str],
        batch_size: int = 64,
    ) -> list[list[float]]:
        """Scores the steps of texts.

        Args:
            prompts: B strings.
            responses: B strings; as in training, EOS is added.
            batch_size: how many to run at a time.

        Returns:
            The rewards of each response's steps.
        """
        sequences = data.sequences(
            prompts, responses, self.need_tokenizer(), self.context_length
        )
        found = []
        for ids, mask, response in data.batches(sequences, batch_size):
            ends = np.asarray(self.step_ends(ids, response)) > 0
            rewards = np.asarray(self.step_rewards(ids, mask, response))
            found += [
                row[end].tolist()
                for row, end in zip(rewards, ends, strict=True)
            ]
        return found

    def default_loss(self) -> Any:
        """Returns the cross-entropy of ratings in [0, 1]."""
        return losses.ScoreCrossEntropy()

    def as_carrier(self, x: Any) -> Any:
        """Takes records of rated steps, or `StepRatings`."""
        if isinstance(x, StepRatings):
            return x
        return data.step_ratings(
            x, self.need_tokenizer(), self.context_length, self.separator
        )

    def counted_part(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Keeps the first steps of the first rows."""
        kept = start_check.first_half(batch.step_mask)
        rows = start_check.first_rows(kept)
        padding = batch.padding_mask == 0
        return batch._replace(step_mask=tf.cast(kept, tf.int32)), {
            "other rows": ~rows,
            "later tokens": rows & ~start_check.up_to_last(kept) & ~padding,
            "the padding": padding,
        }

    def batch_weights(self, batch: Any) -> Tensor:
        """Returns the weight of every step, float32 [B, S]."""
        steps = tf.cast(batch.step_mask, tf.float32)
        return steps * batch.weight[:, None]

    def batch_losses(self, batch: Any, training: bool) -> BatchLosses:
        """Compares the rewards at the steps' ends with their ratings."""
        weights = self.batch_weights(batch)
        scores = self.token_scores(
            batch.token_ids, batch.padding_mask, training
        )
        scores = ops.zero_outside(scores, batch.step_mask)
        terms = self.objective(
            tf.reshape(batch.rating, [-1]), tf.reshape(scores, [-1])
        )
        right = tf.equal(scores > 0.0, batch.rating > 0.5)
        metrics = {
            "accuracy": (
                tf.reduce_sum(tf.cast(right, tf.float32) * weights),
                tf.reduce_sum(weights),
            )
        }
        terms = tf.reshape(terms, tf.shape(weights))
        return BatchLosses(terms, weights, metrics)
