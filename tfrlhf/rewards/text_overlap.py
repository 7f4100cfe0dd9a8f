"""How much of a reference text a response shares."""

import functools
import re
from typing import Any

from tfrlhf.rewards.arguments import texts_of
from tfrlhf.rewards.words import CJK
from tfrlhf.rewards.words import words

_CJK = re.compile(CJK)
_OTHER_LETTER = re.compile(r"(?![a-zA-Z])[^\W\d_]")
KINDS = ("rouge1", "rouge2", "rougeL")


class BLEU:
    """Scores a response by sentence BLEU against its references.

    min(1, e^(1 − r/c)) · (Π_n p_n)^(1/N): p_n the share of the response's
    n-grams that are in a reference, N = min(4, tokens of the response), c its
    length, r that of the reference nearest in length. The k-th count of 0
    becomes 1/2^k, if any is not 0 (Papineni et al., 2002; Chen and Cherry,
    2014, method 3). By sacrebleu, with tokenizer "zh" (a Chinese character is
    a token) where a reference has CJK characters and "13a" elsewhere.

    Args:
        column: each value a text, or a list of alternative ones.

    Example:
        >>> reward = BLEU()
        >>> reward(["Translate."], ["a b c d"], reference=["a b c d"])
        [1.0]
    """

    def __init__(self, column: str = "reference") -> None:
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, from 0 to 1; 0 for an empty one."""
        references = texts_of("BLEU", self.column, columns, len(responses))
        return [
            _share(_bleu(_has_cjk(several)), response, several)
            for response, several in zip(responses, references, strict=True)
        ]


class CHRF:
    """Scores a response by sentence chrF against its references.

    5·P·R / (4·P + R): P and R are the shares of the response's and of the
    reference's character n-grams that are common, averaged over the n from 1
    to 6 that both are long enough for; spaces are left out (chrF2, Popović,
    2015; by sacrebleu). Of several references the best counts.

    Args:
        column: each value a text, or a list of alternative ones.

    Example:
        >>> reward = CHRF()
        >>> reward(["Translate."], ["abcdef"], reference=["abcdef"])
        [1.0]
    """

    def __init__(self, column: str = "reference") -> None:
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, from 0 to 1; 0 for an empty one."""
        references = texts_of("CHRF", self.column, columns, len(responses))
        return [
            _share(_chrf(), response, several)
            for response, several in zip(responses, references, strict=True)
        ]


class ROUGE:
    """Scores a response by ROUGE's F-measure against its references.

    2·P·R / (P + R), where P and R are the shares of response and reference
    that are common: words, pairs of words, or the longest common subsequence
    of words (Lin, 2004), by rouge-score with its stemmer. That package drops
    letters outside a–z; where a reference has some, words are those of
    `rewards.words` (a CJK character is a word). The best reference counts.

    Args:
        kind: "rouge1", "rouge2" or "rougeL".
        column: each value a text, or a list of alternative ones.

    Example:
        >>> reward = ROUGE("rouge1")
        >>> reward(["Sum up."], ["a cat"], reference=["a black cat sat"])
        [0.6666666666666666]
    """

    def __init__(self, kind: str = "rougeL", column: str = "reference") -> None:
        if kind not in KINDS:
            raise ValueError(
                f"`kind` must be one of {', '.join(map(repr, KINDS))}. "
                f"Received: {kind!r}"
            )
        self.kind = kind
        self.column = column

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, from 0 to 1; 0 for an empty one."""
        references = texts_of("ROUGE", self.column, columns, len(responses))
        scores = []
        for response, several in zip(responses, references, strict=True):
            foreign = any(_OTHER_LETTER.search(text) for text in several)
            scorer = _rouge(self.kind, foreign)
            found = scorer.score_multi(several, response)
            scores.append(float(found[self.kind].fmeasure))
        return scores


class _Words:
    """`rewards.words` as rouge-score asks for a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


def _share(metric: Any, response: str, references: list[str]) -> float:
    """Sacrebleu's percentage as a share, which rounding may lift over 1."""
    return min(1.0, metric.sentence_score(response, references).score / 100)


def _has_cjk(texts: list[str]) -> bool:
    return any(_CJK.search(text) for text in texts)


# The libraries are imported where they are needed: 0.1 to 0.4 s each.
@functools.cache
def _bleu(cjk: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU as SacreBLEU

    return SacreBLEU(tokenize="zh" if cjk else "13a", effective_order=True)


@functools.cache
def _chrf() -> Any:
    from sacrebleu.metrics.chrf import CHRF as SacreCHRF

    return SacreCHRF()


@functools.cache
def _rouge(kind: str, foreign: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    if foreign:
        return RougeScorer([kind], tokenizer=_Words())
    return RougeScorer([kind], use_stemmer=True)
