"""Examples that people wrote, imitated beside policy optimisation (PTX)."""

from typing import Any
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfrlhf import losses
from tfrlhf.trainers import replicas
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Tensor


class MixedExperience(NamedTuple):
    """A minibatch of experience with as many examples.

    Attributes:
        experience: `Experience` of B rows.
        examples: `Examples` of B rows.
        weight: float32 [B], what the cross-entropy of a token of the row
            weighs in the step; the same wherever the rows are cut.
    """

    experience: Experience
    examples: Examples
    weight: Tensor


class ExampleBatches:
    """Examples in an endless order that repeats.

    Every pass over them is a permutation of its own, so that all are seen as
    often; where a batch begins follows from the number of the step alone.

    Args:
        examples: `Examples` of N rows.
        weight: of their mean cross-entropy a token.

    Raises:
        ValueError: no token of them is to be learnt.

    Example:
        >>> batches = ExampleBatches(examples, weight=0.5)
        >>> batches.rows(seed=0, step=2, count=8).shape
        (8,)
    """

    def __init__(self, examples: Examples, weight: float) -> None:
        self.examples = Examples(*(np.asarray(x) for x in examples))
        self.weight = weight
        if not self.examples.loss_mask[:, 1:].any():
            raise ValueError(
                "`examples` have no token to learn: their loss mask is 0 "
                "everywhere."
            )

    def rows(self, seed: int, step: int, count: int) -> np.ndarray:
        """Returns the row numbers of a batch, int64 [count]."""
        total = len(self.examples.token_ids)
        places = np.arange(step * count, (step + 1) * count)
        passes = {
            number: np.random.default_rng((seed, number, total)).permutation(
                total
            )
            for number in np.unique(places // total).tolist()
        }
        return np.array(
            [passes[place // total][place % total] for place in places.tolist()]
        )

    def mixed(
        self, batch: Experience, seed: int, step: int, count: int
    ) -> MixedExperience:
        """Puts examples beside a minibatch.

        Args:
            batch: `Experience` of at least `count` rows.
            seed: int of the run.
            step: how many steps were made before.
            count: how many examples; the same on any number of replicas.

        Returns:
            The minibatch with `count` examples, filled up to its rows by some
            that count nowhere.
        """
        chosen = self.rows(seed, step, count)
        examples = Examples(*(tf.constant(x[chosen]) for x in self.examples))
        size = int(batch.token_ids.shape[0])
        examples = replicas.padded(examples, size)
        real = tf.range(size)[:, None] < count
        examples = examples._replace(
            loss_mask=tf.where(real, examples.loss_mask, 0)
        )
        tokens = tf.reduce_sum(learnt(examples))
        share = self.weight / tf.maximum(tf.cast(tokens, tf.float32), 1.0)
        return MixedExperience(batch, examples, tf.fill([size], share))


def learnt(examples: Examples) -> Tensor:
    """Returns int32 [B, S], 1 on every token to learn that has a context."""
    return tf.pad(examples.loss_mask[:, 1:], [[0, 0], [1, 0]])


def cross_entropy(
    policy: Any, examples: Examples, where: Tensor | None = None
) -> Tensor:
    """Computes the cross-entropy of every token to learn, dropout off.

    Args:
        policy: a `Policy`, at temperature 1 whatever the sampler's is.
        examples: `Examples` of B rows.
        where: see `Policy.token_statistics`.

    Returns:
        float32 [B, S], in nats, 0 elsewhere.
    """
    log_probs = policy.log_probs(
        examples.token_ids, examples.padding_mask, where=where
    )
    return losses.token_cross_entropy(log_probs, learnt(examples))
