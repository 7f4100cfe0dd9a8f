"""Supervised fine-tuning: imitate the responses of people."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfrlhf import data
from tfrlhf import losses
from tfrlhf.models import start_check
from tfrlhf.models.packed_rows import rows_are_packed
from tfrlhf.models.packing import within_segments
from tfrlhf.models.policy import Policy
from tfrlhf.models.trainable import BatchLosses
from tfrlhf.models.trainable import TrainableModel
from tfrlhf.types import Examples
from tfrlhf.types import Tensor


class SFT(TrainableModel):
    """Trains a policy to continue prompts as the examples do.

    Args:
        policy: the `Policy` to train, in place.
        learn_prompts: whether the prompts of records are learnt too, as for a
            model that starts from nothing.

    Example:
        >>> sft = SFT(policy)
        >>> sft.compile(keras.optimizers.Adam(1e-4))
        >>> sft.fit([{"prompt": "Hi.", "response": " Hello!"}], epochs=3)
    """

    metric_names = ("loss", "accuracy")

    def __init__(self, policy: Policy, learn_prompts: bool = False) -> None:
        super().__init__(name="sft")
        self.learn_prompts = learn_prompts
        self.policy = policy
        self.built = True

    def default_loss(self) -> losses.TokenCrossEntropy:
        """Returns the mean negative log-probability of a response token."""
        return losses.TokenCrossEntropy()

    def as_carrier(self, x: Any) -> Examples | data.PackedExamples:
        """Takes example records, `Examples` or `PackedExamples`."""
        if isinstance(x, (Examples, data.PackedExamples)):
            return x
        return data.examples(
            x,
            self.policy.need_tokenizer(),
            self.policy.context_length,
            self.learn_prompts,
        )

    def check_start(self, dataset: tf.data.Dataset) -> None:
        """See `TrainableModel`; the tokenizer must fit the model too."""
        start_check.check_vocabulary(self.policy.trunk, self.policy.tokenizer)
        super().check_start(dataset)

    def counted_part(self, batch: Examples) -> tuple[Examples, dict[str, Any]]:
        """Keeps the first tokens to learn of the first rows."""
        kept = start_check.first_half(batch.loss_mask)
        rows = start_check.first_rows(kept)
        padding = batch.padding_mask == 0
        return batch._replace(loss_mask=tf.cast(kept, tf.int32)), {
            "other rows": ~rows,
            "later tokens": rows & ~start_check.up_to_last(kept) & ~padding,
            "the padding": padding,
        }

    def batch_weights(self, batch: Examples) -> Tensor:
        """Returns 1 for every token to learn; the first has no context."""
        weights = tf.cast(batch.loss_mask[:, 1:], tf.float32)
        return tf.pad(weights, [[0, 0], [1, 0]])

    def batch_losses(self, batch: Examples, training: bool) -> BatchLosses:
        """Computes the cross-entropy of every response token in nats."""
        weights = self.batch_weights(batch)
        with self._attention(batch):
            outputs = self.policy.token_statistics(
                batch.token_ids,
                batch.padding_mask,
                training=training,
                where=self.positions(batch.loss_mask),
            )
        terms = self.objective(weights, outputs.log_probs)
        right = tf.cast(outputs.most_likely, tf.float32) * weights
        metrics = {"accuracy": (tf.reduce_sum(right), tf.reduce_sum(weights))}
        return BatchLosses(terms, weights, metrics)

    @contextlib.contextmanager
    def _attention(self, batch: Examples) -> Iterator[None]:
        """Is the block in which examples of one row do not mix."""
        if isinstance(batch, data.PackedExamples):
            segments = within_segments(self.policy.trunk, batch.segments)
            with segments, rows_are_packed(False):
                yield
        else:
            yield
