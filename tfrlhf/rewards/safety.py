"""What a response must not say: by a list of words, or by a classifier."""

import math
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from tfrlhf.rewards.words import words


class BlockedWords:
    """Scores what says a blocked word.

    Words are compared whole and in lower case, as `rewards.words` splits them:
    "ass" is not in "class", and punctuation between the words of a phrase
    does not hide it. Chinese is not split into words, so a Chinese entry is
    found wherever its characters follow one another.

    Args:
        blocked: words and phrases, English, Chinese or any other.
        flagged: the score of a response that has one; others score 0.

    Raises:
        ValueError: no entry, or one without a word.

    Example:
        >>> reward = BlockedWords(["stupid", "笨蛋"])
        >>> reward([""] * 3, ["How stupid!", "你是笨蛋", "stupidity"])
        [-1.0, -1.0, 0.0]
    """

    def __init__(self, blocked: Iterable[str], flagged: float = -1.0) -> None:
        if isinstance(blocked, str):
            raise ValueError(
                "`blocked` must be a list of words. Received one string: put "
                "it in a list."
            )
        entries = {text: tuple(words(text)) for text in blocked}
        for text, entry in entries.items():
            if not entry:
                raise ValueError(
                    f"Every entry of `blocked` needs a word. Received: {text!r}"
                )
        if not entries:
            raise ValueError("`blocked` is empty: give at least one word.")
        self.entries = frozenset(entries.values())
        self.lengths = sorted({len(entry) for entry in self.entries})
        self.flagged = flagged

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns `flagged` or 0 for each response."""
        return [self.flagged if self._says(r) else 0.0 for r in responses]

    def _says(self, response: str) -> bool:
        found = words(response)
        return any(
            tuple(found[start : start + length]) in self.entries
            for length in self.lengths
            for start in range(len(found) - length + 1)
        )


class ClassifierFilter:
    """Scores what a classifier finds unsafe.

    Args:
        classifier: any reward whose score is higher the less safe a response
            is, such as `Classifier` or `RewardModel.as_function()`.
        threshold: a response that scores at least this is flagged.
        flagged: the score of such a response; others score 0.

    Raises:
        ValueError: the threshold is not a finite number.

    Example:
        >>> def shouting(prompts, responses, **columns):
        ...     return [float(r.isupper()) for r in responses]
        >>> reward = ClassifierFilter(shouting)
        >>> reward(["", ""], ["NO", "No"])
        [-1.0, 0.0]
    """

    def __init__(
        self,
        classifier: Callable[..., Sequence[float]],
        threshold: float = 0.5,
        flagged: float = -1.0,
    ) -> None:
        if not math.isfinite(threshold):
            raise ValueError(
                f"`threshold` must be finite. Received: threshold={threshold}"
            )
        self.classifier = classifier
        self.threshold = threshold
        self.flagged = flagged

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns `flagged` or 0 for each response."""
        found = [
            float(x) for x in self.classifier(prompts, responses, **columns)
        ]
        if len(found) != len(responses) or not all(map(math.isfinite, found)):
            raise ValueError(
                "The classifier must return one finite number for each of "
                f"{len(responses)} responses. Received: {found}"
            )
        return [self.flagged if x >= self.threshold else 0.0 for x in found]
