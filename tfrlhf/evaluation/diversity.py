"""What a score does not see: repetition, and one answer for every prompt."""

from collections.abc import Sequence
from itertools import combinations

from tfrlhf.rewards import words


def distinct_n(texts: Sequence[str], n: int = 2) -> float:
    """Measures repetition inside texts.

    Distinct n-grams over n-grams of each text, averaged over the texts that
    have any (after https://arxiv.org/abs/1510.03055, there over a corpus).

    Args:
        texts: strings.
        n: words of an n-gram; a CJK character is a word.

    Returns:
        From near 0 (one thing over and over) to 1 (no repetition).

    Example:
        >>> distinct_n(["a b a b", "a b c"])
        0.8333333333333333
    """
    ratios = [
        len(set(grams)) / len(grams)
        for grams in (_ngrams(text, n) for text in texts)
        if grams
    ]
    return sum(ratios) / len(ratios) if ratios else 0.0


def self_similarity(texts: Sequence[str], n: int = 2) -> float:
    """Measures how alike texts are to each other.

    The mean Jaccard index of the n-gram sets over all pairs of texts.

    Args:
        texts: strings, a few hundred at the most.
        n: words of an n-gram; a CJK character is a word.

    Returns:
        From 0 (nothing shared) to 1 (all the same).

    Example:
        >>> self_similarity(["a b c", "a b d"])
        0.3333333333333333
    """
    sets = [frozenset(_ngrams(text, n)) for text in texts]
    indices = [
        len(one & other) / max(len(one | other), 1)
        for one, other in combinations(sets, 2)
    ]
    return sum(indices) / len(indices) if indices else 0.0


def _ngrams(text: str, n: int) -> list[tuple[str, ...]]:
    found = words(text)
    return [tuple(found[i : i + n]) for i in range(len(found) - n + 1)]
