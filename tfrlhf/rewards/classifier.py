"""The probability that a classifier gives to a label."""

from collections.abc import Callable
from typing import Any

import numpy as np


class Classifier:
    """Scores a response by the probability of a label.

    Args:
        model: a Keras model that takes strings [B] (KerasHub's
            `TextClassifier` with its preprocessor, or one that starts with a
            `TextVectorization`), or a function from a list of B strings.
            Gives probabilities [B, L], or [B] or [B, 1] for one label.
        label: which of the L; 0 where there is one.
        from_logits: whether the model gives logits: a softmax over L labels
            follows, or a sigmoid of one.
        batch_size: texts at a time.

    Raises:
        ValueError: at the call, where the output is not as said above.

    Example:
        >>> reward = Classifier(lambda texts: [[0.25, 0.75]] * len(texts), 1)
        >>> reward(["Say hi."], ["Hi!"])
        [0.75]
    """

    def __init__(
        self,
        model: Callable[[list[str]], Any],
        label: int,
        from_logits: bool = False,
        batch_size: int = 64,
    ) -> None:
        # Slow to import, and there already where there is a Keras model.
        import keras

        self.model = model
        self.is_keras = isinstance(model, keras.Model)
        self.label = label
        self.from_logits = from_logits
        self.batch_size = batch_size

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one probability a response, from 0 to 1."""
        found: list[float] = []
        for start in range(0, len(responses), self.batch_size):
            texts = responses[start : start + self.batch_size]
            found += self._probabilities(texts).tolist()
        return found

    def _probabilities(self, texts: list[str]) -> np.ndarray:
        output = np.asarray(self._output(texts), np.float64)
        if output.ndim == 1:
            output = output[:, None]
        if output.ndim != 2 or len(output) != len(texts):
            raise ValueError(
                "The model of Classifier must give one row of probabilities "
                f"for each of {len(texts)} texts. Received: shape "
                f"{output.shape}"
            )
        if not 0 <= self.label < output.shape[1]:
            raise ValueError(
                f"`label` must be one of the model's {output.shape[1]} labels, "
                f"counted from 0. Received: label={self.label}"
            )
        if self.from_logits:
            output = _normalized(output)
        if not (np.all(output >= 0.0) and np.all(output <= 1.0)):
            raise ValueError(
                "The model of Classifier must give probabilities from 0 to 1; "
                "if it gives logits, set `from_logits=True`. Received: from "
                f"{output.min()} to {output.max()}"
            )
        return output[:, self.label]

    def _output(self, texts: list[str]) -> Any:
        if self.is_keras:
            return self.model.predict(  # type: ignore[attr-defined]
                np.asarray(texts, object), verbose=0
            )
        return self.model(texts)


def _normalized(logits: np.ndarray) -> np.ndarray:
    """Softmax over the labels, or the sigmoid of one."""
    if logits.shape[1] == 1:
        return 0.5 * (1.0 + np.tanh(0.5 * logits))
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
