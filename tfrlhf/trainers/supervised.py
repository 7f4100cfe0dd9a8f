"""Supervised fine-tuning: imitate the responses of people."""

from typing import Any

import tensorflow as tf

from tfrlhf import data
from tfrlhf import losses
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

    def as_dataset(
        self, x: Any, batch_size: int, shuffle: bool, seed: int
    ) -> tf.data.Dataset:
        """Takes example records, `Examples` or a Dataset of them."""
        if isinstance(x, tf.data.Dataset):
            return x
        if not isinstance(x, Examples):
            x = data.examples(
                x,
                self.policy.need_tokenizer(),
                self.policy.context_length,
                self.learn_prompts,
            )
        return data.batches(x, batch_size, shuffle=shuffle, seed=seed)

    def batch_weights(self, batch: Examples) -> Tensor:
        """Returns 1 for every token to learn; the first has no context."""
        weights = tf.cast(batch.loss_mask[:, 1:], tf.float32)
        return tf.pad(weights, [[0, 0], [1, 0]])

    def batch_losses(self, batch: Examples, training: bool) -> BatchLosses:
        """Computes the cross-entropy of every response token in nats."""
        weights = self.batch_weights(batch)
        outputs = self.policy.token_statistics(
            batch.token_ids, batch.padding_mask, training=training
        )
        terms = self.objective(weights, outputs.log_probs)
        right = tf.cast(outputs.most_likely, tf.float32) * weights
        metrics = {"accuracy": (tf.reduce_sum(right), tf.reduce_sum(weights))}
        return BatchLosses(terms, weights, metrics)
