"""Short answers to questions against the right ones."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable
from typing import Any

from tfrlhf.rewards.arguments import texts_of
from tfrlhf.rewards.words import CJK

_CJK = re.compile(CJK)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


class ExactMatch:
    """Scores 1 where the response is a right answer, else 0.

    After SQuAD's normalisation (Rajpurkar et al., 2016): lower case, without
    ASCII punctuation, the articles a, an, the, and surplus space. A text with
    CJK characters loses all punctuation and is compared by characters.

    Args:
        column: each value a right answer, or a list of them.

    Example:
        >>> reward = ExactMatch()
        >>> reward(["Where?"], ["the Eiffel Tower."], answers=["Eiffel tower"])
        [1.0]
    """

    def __init__(self, column: str = "answers") -> None:
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, 0 or 1."""
        golds = texts_of("ExactMatch", self.column, columns, len(responses))
        return _best(_equal, responses, golds)


class F1:
    """Scores a response by the words it shares with the best right answer.

    2·P·R / (P + R), where P and R are the shares of the response's and the
    answer's words that are common, counted with repetition (SQuAD). Words are
    those of `ExactMatch`; a CJK character is one. Where either has no word,
    1 if both have none (SQuAD 2.0).

    Args:
        column: each value a right answer, or a list of them.

    Example:
        >>> reward = F1()
        >>> reward(["Where?"], ["in Paris"], answers=[["Paris", "Lutetia"]])
        [0.6666666666666666]
    """

    def __init__(self, column: str = "answers") -> None:
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, from 0 to 1."""
        golds = texts_of("F1", self.column, columns, len(responses))
        return _best(_f1, responses, golds)


def answer_words(text: str) -> list[str]:
    """Splits an answer into what is compared.

    Args:
        text: any text.

    Returns:
        Its normalised words; single characters where they are CJK.

    Example:
        >>> answer_words("The 《红楼梦》, 1791")
        ['红', '楼', '梦', '1791']
    """
    text = text.lower()
    cjk = _CJK.search(text) is not None
    text = "".join(c for c in text if not _is_punctuation(c, cjk))
    text = _ARTICLES.sub(" ", text)
    return _CJK.sub(lambda found: f" {found.group()} ", text).split()


def _is_punctuation(character: str, everywhere: bool) -> bool:
    return character in string.punctuation or (
        everywhere and unicodedata.category(character).startswith("P")
    )


def _best(
    score: Callable[[list[str], list[str]], float],
    responses: list[str],
    golds: list[list[str]],
) -> list[float]:
    return [
        max(score(answer_words(response), answer_words(g)) for g in several)
        for response, several in zip(responses, golds, strict=True)
    ]


def _equal(found: list[str], gold: list[str]) -> float:
    return float(found == gold)


def _f1(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return _equal(found, gold)
    common = sum((Counter(found) & Counter(gold)).values())
    return 2 * common / (len(found) + len(gold))
