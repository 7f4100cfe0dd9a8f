"""Repetition inside texts and between them, counted by hand."""

import pytest

from tfrlhf.evaluation import distinct_n
from tfrlhf.evaluation import self_similarity


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b a b"], 2, 2 / 3),
        (["a b a b", "a b c"], 2, (2 / 3 + 1) / 2),
        (["A b, a B."], 2, 2 / 3),
        (["a a a a a"], 1, 1 / 5),
        (["a b a b a"], 3, 2 / 3),
        (["好好好好"], 2, 1 / 3),
        (["很好吃，很好看。"], 2, 4 / 5),
        (["今天 good 今天 good"], 2, 3 / 5),
        # A text without an n-gram is in no mean.
        (["a b a b", "a", ""], 2, 2 / 3),
        (["a", "", "。"], 2, 0.0),
        ([], 2, 0.0),
    ],
)
def test_distinct_n(texts, n, expected):
    assert distinct_n(texts, n) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("texts", "n", "expected"),
    [
        (["a b c", "a b d"], 2, 1 / 3),
        (["a b c", "A b, c!"], 2, 1.0),
        (["a b", "c d"], 2, 0.0),
        # Pairs 1/3, 1 and 1/3.
        (["a b c", "a b d", "a b c"], 2, 5 / 9),
        # How often it is said does not count.
        (["a b a b", "a b"], 2, 1 / 2),
        (["今天好", "今天冷"], 2, 1 / 3),
        (["谢谢您", "谢谢您。"], 2, 1.0),
        (["a b", "b c"], 1, 1 / 3),
        (["", ""], 2, 0.0),
        (["a b c"], 2, 0.0),
        ([], 2, 0.0),
    ],
)
def test_self_similarity(texts, n, expected):
    assert self_similarity(texts, n) == pytest.approx(expected)
