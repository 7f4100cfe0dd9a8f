"""How well labels of texts fit, and the rule that a labeller must beat."""

import math
from collections import Counter
from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

from tfrlhf.evaluation.win_rate import Estimate
from tfrlhf.evaluation.win_rate import accuracy
from tfrlhf.rewards import words


class LabelQuality(NamedTuple):
    """How well found labels fit the true ones.

    Attributes:
        accuracy: `Estimate` of the share that is right.
        macro_f1: the mean of `f1`, in which rare labels count as much.
        f1: of each true label.
    """

    accuracy: Estimate
    macro_f1: float
    f1: dict[str, float]


def label_quality(
    truth: Sequence[str], found: Sequence[str | None]
) -> LabelQuality:
    """Measures accuracy, and F1 = 2·right / (true + found) of each label.

    Args:
        truth: the true label of each of at least two texts.
        found: the label that was found for it, None for none.

    Returns:
        `LabelQuality`.

    Raises:
        ValueError: lengths differ, or fewer than two texts.

    Example:
        >>> quality = label_quality(["a", "a", "b", "b"], ["a", "a", "a", None])
        >>> quality.accuracy.value, quality.f1
        (0.5, {'a': 0.8, 'b': 0.0})
    """
    if len(truth) != len(found):
        raise ValueError(
            "`truth` and `found` must have a label for each text. Received: "
            f"{len(truth)} and {len(found)} labels"
        )
    right = [a == b for a, b in zip(truth, found, strict=True)]
    hits = Counter(a for a, hit in zip(truth, right, strict=True) if hit)
    true, claimed = Counter(truth), Counter(found)
    f1 = {x: 2 * hits[x] / (true[x] + claimed[x]) for x in sorted(true)}
    return LabelQuality(
        accuracy([float(hit) for hit in right]), sum(f1.values()) / len(f1), f1
    )


def naive_bayes(
    texts: Sequence[str], labels: Sequence[str]
) -> Callable[[Sequence[str]], list[str]]:
    """Fits multinomial naive Bayes to the words of texts.

    log p(label) + Σ over words of log((count in label + 1) / (words of label +
    vocabulary)); a word that no text had is passed over.

    Args:
        texts: at least one.
        labels: one of each.

    Returns:
        A function from texts to labels.

    Raises:
        ValueError: lengths differ, or no text.

    Example:
        >>> label = naive_bayes(["profit rose", "profit fell"], ["up", "down"])
        >>> label(["sales rose"])
        ['up']
    """
    if len(texts) != len(labels) or not texts:
        raise ValueError(
            "`naive_bayes` needs a label for each of at least 1 text. "
            f"Received: {len(texts)} texts and {len(labels)} labels"
        )
    often = Counter(labels)
    counts: dict[str, Counter[str]] = {label: Counter() for label in often}
    for text, label in zip(texts, labels, strict=True):
        counts[label].update(words(text))
    known = set().union(*counts.values())
    total = {label: sum(counts[label].values()) for label in counts}

    def score(label: str, seen: list[str]) -> float:
        return math.log(often[label]) + sum(
            math.log((counts[label][word] + 1) / (total[label] + len(known)))
            for word in seen
        )

    def best(text: str) -> str:
        seen = [word for word in words(text) if word in known]
        return max(sorted(counts), key=lambda label: score(label, seen))

    return lambda new: [best(text) for text in new]
