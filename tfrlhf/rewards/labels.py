"""Labels that a policy writes: "topic: rates; sentiment: neutral"."""

import re
from collections.abc import Mapping
from typing import Any

from tfrlhf.rewards.arguments import texts_of

_LABEL = re.compile(r"(\w+): ([^;]+)")


def write_labels(labels: Mapping[str, str]) -> str:
    """Writes labels as a policy should.

    Args:
        labels: kind, of letters, to label, without a semicolon.

    Example:
        >>> write_labels({"topic": "rates", "sentiment": "neutral"})
        'topic: rates; sentiment: neutral'
    """
    return "; ".join(f"{kind}: {label}" for kind, label in labels.items())


def read_labels(text: str) -> dict[str, str]:
    """Reads labels out of what a policy wrote; the last of a kind counts.

    Args:
        text: any text; what is no label is passed over.

    Example:
        >>> read_labels(" topic: rates; sentiment: neutral")
        {'topic': 'rates', 'sentiment': 'neutral'}
    """
    return {kind: label.strip() for kind, label in _LABEL.findall(text)}


class LabelMatch:
    """Scores 1 where the label of a kind is right in the response, else 0.

    Args:
        kind: of the label, and the column with the right one, or a list of
            right ones.

    Example:
        >>> reward = LabelMatch("sentiment")
        >>> reward([""], ["topic: rates; sentiment: good"], sentiment=["good"])
        [1.0]
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, 0 or 1."""
        golds = texts_of("LabelMatch", self.kind, columns, len(responses))
        return [
            float(read_labels(response).get(self.kind) in right)
            for response, right in zip(responses, golds, strict=True)
        ]
