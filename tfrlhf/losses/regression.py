"""The loss that teaches a reward model the numbers that humans gave."""

from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def score_regression_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Squared error of each score: (score - rating)².

    Args:
        scores: float32 [B].
        ratings: float32 [B].

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, or the shapes differ.

    Example:
        >>> score_regression_loss([3.0], [1.0]).numpy().tolist()
        [4.0]
    """
    scores = checks.float_tensor("scores", scores, rank=1)
    ratings = checks.float_tensor("ratings", ratings, rank=1)
    checks.same_shape(scores=scores, ratings=ratings)
    return tf.square(scores - ratings)


def score_cross_entropy_loss(scores: Tensor, ratings: Tensor) -> Tensor:
    """Cross-entropy of each rating as a probability: softplus(s) - rating·s.

    The sigmoid of a score is then the expected rating: the chance that a
    response, or a step of it, is right (https://arxiv.org/abs/2110.14168,
    https://arxiv.org/abs/2305.20050).

    Args:
        scores: float32 [B].
        ratings: float32 [B], in [0, 1], which is not checked.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, or the shapes differ.

    Example:
        >>> loss = score_cross_entropy_loss([0.0, 0.0], [1.0, 0.5])
        >>> [round(float(x), 4) for x in loss]
        [0.6931, 0.6931]
    """
    scores = checks.float_tensor("scores", scores, rank=1)
    ratings = checks.float_tensor("ratings", ratings, rank=1)
    checks.same_shape(scores=scores, ratings=ratings)
    return tf.math.softplus(scores) - ratings * scores


@keras.saving.register_keras_serializable(package="tfrlhf")
class ScoreRegression(keras.losses.Loss):
    """`score_regression_loss` of each row.

    Args:
        name: name of the loss.

    Example:
        >>> ScoreRegression()([1.0], [3.0]).numpy().tolist()
        [4.0]
    """

    def __init__(self, name: str = "score_regression") -> None:
        super().__init__(name=name, reduction="none")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each row.

        Args:
            y_true: ratings, float32 [B].
            y_pred: scores, float32 [B].

        Returns:
            float32 [B].
        """
        return score_regression_loss(y_pred, y_true)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {"name": self.name}


@keras.saving.register_keras_serializable(package="tfrlhf")
class ScoreCrossEntropy(keras.losses.Loss):
    """`score_cross_entropy_loss` of each row, for ratings in [0, 1].

    Args:
        name: name of the loss.

    Example:
        >>> loss = ScoreCrossEntropy()([1.0], [2.0])
        >>> round(float(loss[0]), 4)
        0.1269
    """

    def __init__(self, name: str = "score_cross_entropy") -> None:
        super().__init__(name=name, reduction="none")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each row.

        Args:
            y_true: ratings, float32 [B].
            y_pred: scores, float32 [B].

        Returns:
            float32 [B].
        """
        return score_cross_entropy_loss(y_pred, y_true)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {"name": self.name}
