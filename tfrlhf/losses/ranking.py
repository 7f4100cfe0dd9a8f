"""Losses that teach a reward model the order in which humans put responses.

The functions take scores and return one loss per row. The classes take ranks
[B, K] as `y_true` (0 is best, -1 absent, equal ranks are ties) and scores
[B, K] as `y_pred`; an absent candidate's score may be anything.
"""

from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def pairwise_ranking_loss(
    chosen_scores: Tensor,
    rejected_scores: Tensor,
    margin: float | Tensor = 0.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Bradley-Terry loss of each pair.

    (1 - e)·softplus(-(d - m)) + e·softplus(d - m), d = chosen - rejected.
    Christiano et al., 2017 (https://arxiv.org/abs/1706.03741); the margin is
    that of Llama 2 (https://arxiv.org/abs/2307.09288).

    Args:
        chosen_scores: float32 [B].
        rejected_scores: float32 [B].
        margin: m, a number or float32 [B].
        label_smoothing: e, the share of labels taken to be wrong, in [0, 1].

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or e is out
            of range.

    Example:
        >>> loss = pairwise_ranking_loss([1.0], [0.0])
        >>> round(float(loss[0]), 4)
        0.3133
    """
    chosen = checks.float_tensor("chosen_scores", chosen_scores, rank=1)
    rejected = checks.float_tensor("rejected_scores", rejected_scores, rank=1)
    checks.same_shape(chosen_scores=chosen, rejected_scores=rejected)
    checks.within("label_smoothing", label_smoothing, 0.0, 1.0)
    margin = tf.convert_to_tensor(margin, tf.float32)
    if margin.shape.rank != 0:
        checks.same_shape(chosen_scores=chosen, margin=margin)
    difference = chosen - rejected - margin
    loss = (1.0 - label_smoothing) * tf.math.softplus(-difference)
    return loss + label_smoothing * tf.math.softplus(difference)


def listwise_ranking_loss(scores: Tensor, ranks: Tensor) -> Tensor:
    """Plackett-Luce loss of each row, ties left out.

    Σ over present i of logsumexp({s_i} ∪ {s_j : rank_j > rank_i}) - s_i. Tied
    candidates are not compared with each other.

    Args:
        scores: float32 [B, K].
        ranks: int32 [B, K], 0 = best, -1 = absent.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, or the shapes differ.

    Example:
        >>> loss = listwise_ranking_loss([[1.0, 0.0, 5.0]], [[0, 1, -1]])
        >>> round(float(loss[0]), 4)
        0.3133
    """
    scores, ranks = _checked(scores, ranks)
    scores = tf.where(ranks >= 0, scores, 0.0)
    itself = tf.eye(tf.shape(ranks)[1], dtype=tf.bool)
    # An absent candidate is compared with itself only, which adds 0.
    compared = itself | _better(ranks)
    rivals = tf.where(compared, scores[:, None, :], -float("inf"))
    losses = tf.reduce_logsumexp(rivals, axis=2) - scores
    return tf.reduce_sum(losses, axis=1)


def best_of_n_loss(scores: Tensor, best: Tensor) -> Tensor:
    """Cross-entropy of each row's best candidate: -log_softmax(scores)[best].

    Ziegler et al., 2019 (https://arxiv.org/abs/1909.08593). A score of -inf
    takes a candidate out.

    Args:
        scores: float32 [B, K].
        best: int32 [B], in [0, K).

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, or the numbers of rows differ.

    Example:
        >>> loss = best_of_n_loss([[1.0, 0.0]], [0])
        >>> round(float(loss[0]), 4)
        0.3133
    """
    scores = checks.float_tensor("scores", scores, rank=2)
    best = checks.int_tensor("best", best, rank=1)
    checks.same_batch(scores=scores, best=best)
    return tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=best, logits=scores
    )


@keras.saving.register_keras_serializable(package="tfrlhf")
class PairwiseRanking(keras.losses.Loss):
    """Mean of `pairwise_ranking_loss` over a row's pairs of unequal rank.

    Args:
        margin: see `pairwise_ranking_loss`.
        label_smoothing: see `pairwise_ranking_loss`.
        name: name of the loss.

    Raises:
        ValueError: if the label smoothing is out of range.

    Example:
        >>> loss = PairwiseRanking()([[0, 1, -1]], [[1.0, 0.0, 5.0]])
        >>> round(float(loss[0]), 4)
        0.3133
    """

    def __init__(
        self,
        margin: float = 0.0,
        label_smoothing: float = 0.0,
        name: str = "pairwise_ranking",
    ) -> None:
        super().__init__(name=name, reduction="none")
        checks.within("label_smoothing", label_smoothing, 0.0, 1.0)
        self.margin = margin
        self.label_smoothing = label_smoothing

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each row.

        Args:
            y_true: ranks [B, K], int32 or what Keras' cast made of it.
            y_pred: scores, float32 [B, K].

        Returns:
            float32 [B], 0 for a row without such a pair.
        """
        scores, ranks = _checked(y_pred, tf.cast(y_true, tf.int32))
        scores = tf.where(ranks >= 0, scores, 0.0)
        pairs = _better(ranks)
        losses = pairwise_ranking_loss(
            _flat(tf.broadcast_to(scores[:, :, None], tf.shape(pairs))),
            _flat(tf.broadcast_to(scores[:, None, :], tf.shape(pairs))),
            self.margin,
            self.label_smoothing,
        )
        losses = tf.where(pairs, tf.reshape(losses, tf.shape(pairs)), 0.0)
        count = tf.reduce_sum(tf.cast(pairs, tf.float32), axis=[1, 2])
        return tf.reduce_sum(losses, axis=[1, 2]) / tf.maximum(count, 1.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {
            "margin": self.margin,
            "label_smoothing": self.label_smoothing,
            "name": self.name,
        }


@keras.saving.register_keras_serializable(package="tfrlhf")
class ListwiseRanking(keras.losses.Loss):
    """`listwise_ranking_loss` of each row.

    Args:
        name: name of the loss.

    Example:
        >>> loss = ListwiseRanking()([[0, 1]], [[1.0, 0.0]])
        >>> round(float(loss[0]), 4)
        0.3133
    """

    def __init__(self, name: str = "listwise_ranking") -> None:
        super().__init__(name=name, reduction="none")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each row.

        Args:
            y_true: ranks [B, K], int32 or what Keras' cast made of it.
            y_pred: scores, float32 [B, K].

        Returns:
            float32 [B], 0 for a row without two unequal ranks.
        """
        return listwise_ranking_loss(y_pred, tf.cast(y_true, tf.int32))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="tfrlhf")
class BestOfN(keras.losses.Loss):
    """`best_of_n_loss` of each row over its present candidates.

    Args:
        name: name of the loss.

    Example:
        >>> loss = BestOfN()([[0, 1, -1]], [[1.0, 0.0, 5.0]])
        >>> round(float(loss[0]), 4)
        0.3133
    """

    def __init__(self, name: str = "best_of_n") -> None:
        super().__init__(name=name, reduction="none")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each row.

        Args:
            y_true: ranks [B, K], int32 or what Keras' cast made of it. Where
                several share the best rank, the first of them is the best.
            y_pred: scores, float32 [B, K].

        Returns:
            float32 [B], 0 for a row without a candidate.
        """
        scores, ranks = _checked(y_pred, tf.cast(y_true, tf.int32))
        present = ranks >= 0
        any_present = tf.reduce_any(present, axis=1)
        # A row of -inf alone would be NaN.
        absent = tf.where(any_present, -float("inf"), 0.0)
        scores = tf.where(present, scores, absent[:, None])
        ranks = tf.where(present, ranks, ranks.dtype.max)
        best = tf.argmin(ranks, axis=1, output_type=tf.int32)
        return tf.where(any_present, best_of_n_loss(scores, best), 0.0)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {"name": self.name}


def _checked(scores: Tensor, ranks: Tensor) -> tuple[Tensor, Tensor]:
    scores = checks.float_tensor("scores", scores, rank=2)
    ranks = checks.int_tensor("ranks", ranks, rank=2)
    checks.same_shape(scores=scores, ranks=ranks)
    return scores, ranks


def _better(ranks: Tensor) -> Tensor:
    """Whether i is present and better than a present j: bool [B, K, K]."""
    first, second = ranks[:, :, None], ranks[:, None, :]
    return (first >= 0) & (first < second)


def _flat(x: Tensor) -> Tensor:
    return tf.reshape(x, [-1])
