"""The loss of imitation, per token."""

from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.ops.masking import zero_outside
from tfrlhf.types import Tensor


def token_cross_entropy(log_probs: Tensor, mask: Tensor) -> Tensor:
    """Cross-entropy of each token: -log_probs, 0 outside the mask.

    Args:
        log_probs: float32 [B, S], of the tokens to imitate.
        mask: int32 [B, S], 1 on the tokens to learn.

    Returns:
        float32 [B, S].

    Raises:
        ValueError: if a dtype or rank is wrong, or the shapes differ.

    Example:
        >>> token_cross_entropy([[-0.5, -2.0]], [[1, 1]]).numpy().tolist()
        [[0.5, 2.0]]
    """
    log_probs = checks.float_tensor("log_probs", log_probs, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(log_probs=log_probs, mask=mask)
    return zero_outside(-log_probs, mask)


@keras.saving.register_keras_serializable(package="tfrlhf")
class TokenCrossEntropy(keras.losses.Loss):
    """`token_cross_entropy` of each token.

    Args:
        name: name of the loss.

    Example:
        >>> TokenCrossEntropy()([[1, 1]], [[-0.5, -2.0]]).numpy().tolist()
        [[0.5, 2.0]]
    """

    def __init__(self, name: str = "token_cross_entropy") -> None:
        super().__init__(name=name, reduction="none")

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Computes the loss of each token.

        Args:
            y_true: mask [B, S], int32 or what Keras' cast made of it.
            y_pred: log-probabilities, float32 [B, S].

        Returns:
            float32 [B, S], 0 outside the mask.
        """
        return token_cross_entropy(y_pred, tf.cast(y_true, tf.int32))

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {"name": self.name}
