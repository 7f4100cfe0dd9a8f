"""The known text that is most like a new one: references for a reward."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from tfrlhf.rewards.words import words


class Retriever:
    """Finds the text that is most like another one.

    By the cosine of TF-IDF vectors of words and of pairs of neighbours, with
    log((1 + N) / (1 + df)) + 1 as weight of a term, where N texts are known
    and df of them have the term. A CJK character is a word.

    Args:
        texts: at least one, such as the questions whose answers are known.

    Raises:
        ValueError: there is no text, or one without any word.

    Example:
        >>> nearest = Retriever(["How late is it?", "How much is the tea?"])
        >>> nearest("What does green tea cost?")
        1
    """

    def __init__(self, texts: Sequence[str]) -> None:
        found = [_terms(text) for text in texts]
        if not all(found) or not found:
            raise ValueError(
                "`Retriever` needs at least one text, and a word in each."
            )
        names = sorted({term for each in found for term in each})
        self._index = {term: i for i, term in enumerate(names)}
        counts = np.zeros((len(found), len(names)))
        for row, each in zip(counts, found, strict=True):
            for term in each:
                row[self._index[term]] += 1
        seen = (counts > 0).sum(axis=0)
        self._weight = np.log((1 + len(found)) / (1 + seen)) + 1
        self._rows = counts * self._weight
        self._rows /= np.linalg.norm(self._rows, axis=1, keepdims=True)

    def __call__(self, text: str) -> int:
        """Returns the index of the known text that is most like this one.

        The first one where several are, or none is.
        """
        query = np.zeros(len(self._index))
        for term in _terms(text):
            if term in self._index:
                query[self._index[term]] += self._weight[self._index[term]]
        return int((self._rows @ query).argmax())


def _terms(text: str) -> list[str]:
    found = words(text)
    return found + [f"{a} {b}" for a, b in pairwise(found)]
