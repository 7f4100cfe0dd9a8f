"""Labels: accuracy, F1 and naive Bayes by hand."""

import math

import pytest

from tfrlhf.evaluation import label_quality
from tfrlhf.evaluation import naive_bayes


def test_accuracy_and_f1():
    truth = ["a", "a", "a", "b", "b", "c"]
    found = ["a", "a", "b", "b", None, "a"]
    quality = label_quality(truth, found)
    assert quality.accuracy.value == pytest.approx(0.5)
    assert quality.accuracy.stderr == pytest.approx((0.3 / 6) ** 0.5)
    # a: precision 2/3, recall 2/3; b: 1/2, 1/2; c: never found.
    expected = {"a": 2 / 3, "b": 1 / 2, "c": 0.0}
    assert quality.f1 == pytest.approx(expected)
    assert quality.macro_f1 == pytest.approx((2 / 3 + 1 / 2) / 3)


def test_naive_bayes():
    texts = ["good good day", "bad day", "bad bad night"]
    label = naive_bayes(texts, ["+", "-", "-"])
    # 4 words known; "+" has 3 of them, "-" has 5.
    plus = math.log(1 / 3) + math.log(3 / 7) + math.log(2 / 7)
    minus = math.log(2 / 3) + math.log(1 / 9) + math.log(2 / 9)
    assert plus > minus
    assert label(["Good day", "day", "bad", "unknown"]) == ["+", "-", "-", "-"]


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="a label for each text"):
        label_quality(["a", "b"], ["a"])
    with pytest.raises(ValueError, match="1 texts and 0 labels"):
        naive_bayes(["a"], [])
