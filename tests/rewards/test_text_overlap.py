"""BLEU, chrF and ROUGE with scores worked out by hand."""

import math

import pytest

from tfrlhf.rewards import BLEU
from tfrlhf.rewards import CHRF
from tfrlhf.rewards import ROUGE


def score(reward, response, reference):
    (value,) = reward(["Translate."], [response], reference=[reference])
    assert isinstance(value, float)
    return value


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("a b c d", "a b c d", 1.0),
        # 3 words of 4: all n-grams there, one word too short.
        ("the cat sat", "the cat sat down", math.exp(1 - 4 / 3)),
        # 3/4, 1/3, then 0 of 2 and 0 of 1 smoothed to 1/2 of 2 and 1/4 of 1.
        (
            "a b c d",
            "a b x d",
            (3 / 4 * 1 / 3 * 1 / 4 * 1 / 4) ** (1 / 4),
        ),
        # A word counts as often as one reference has it.
        ("a a", "a b", (1 / 2 * 1 / 2) ** (1 / 2)),
        ("a a", ["a b", "a a"], 1.0),
        # The brevity is that of the reference nearest in length.
        ("a b", ["a b c d e f", "x y z"], math.exp(1 - 3 / 2)),
        # Characters: 5/5, 3/4, 2/3, 1/2, and 5 of 6.
        (
            "今天天气好",
            "今天天气很好",
            (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 4) * math.exp(1 - 6 / 5),
        ),
        ("x y", "a b", 0.0),
        ("", "a b", 0.0),
        ("", "很好", 0.0),
    ],
)
def test_bleu(response, reference, expected):
    assert score(BLEU(), response, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("response", "reference", "expected"),
    [
        ("abcdefg", "abcdefg", 1.0),
        # P = 1; R = (2/3 + 1/2) / 2 over letters and pairs.
        ("ab", "abc", 5 * (7 / 12) / (4 + 7 / 12)),
        # Spaces do not count.
        ("a b", "abc", 5 * (7 / 12) / (4 + 7 / 12)),
        # Characters 3/3 and 3/4, pairs 1/2 and 1/3, triples 0 and 0.
        (
            "天很好",
            "天气很好",
            5 * (3 / 2 / 3) * (13 / 12 / 3) / (4 * 3 / 2 / 3 + 13 / 12 / 3),
        ),
        ("ab", ["xyz", "ab"], 1.0),
        ("x", "a", 0.0),
        ("", "a", 0.0),
    ],
)
def test_chrf(response, reference, expected):
    assert score(CHRF(), response, reference) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("kind", "response", "reference", "expected"),
    [
        # All of the response, half of the reference.
        ("rouge1", "a cat", "a black cat sat", 2 / 3),
        # Two of three pairs each.
        (
            "rouge2",
            "police killed the gunman",
            "the gunman police killed",
            2 / 3,
        ),
        # The longest common subsequence is two words of four.
        ("rougeL", "police killed the gunman", "the gunman police killed", 0.5),
        ("rouge1", "police killed the gunman", "the gunman police killed", 1.0),
        # The stemmer.
        ("rougeL", "cats running", "The cat runs", 4 / 5),
        # The best reference.
        ("rougeL", "a b", ["x", "a b", "a"], 1.0),
        # Three of three and of four characters.
        ("rougeL", "今天好", "今天很好", 6 / 7),
        ("rouge2", "今天好", "今天很好", 2 / 5),
        ("rouge1", "добрый день", "день", 2 / 3),
        ("rougeL", "café", "cafe noir", 0.0),
        ("rougeL", "", "a", 0.0),
        ("rougeL", "", "很好", 0.0),
    ],
)
def test_rouge(kind, response, reference, expected):
    assert score(ROUGE(kind), response, reference) == pytest.approx(expected)


def test_rouge_is_of_the_longest_common_subsequence_unless_told():
    assert score(ROUGE(), "b a", "a b") == 0.5


def test_the_kind_is_checked():
    with pytest.raises(ValueError, match="`kind` must be one of 'rouge1'"):
        ROUGE("rougeS")


@pytest.mark.parametrize("reward", [BLEU, CHRF, ROUGE])
class TestColumns:
    def test_a_named_column_is_read(self, reward):
        scores = reward(column="gold")(
            ["", ""], ["a b", "a b"], gold=["a b", "x"], reference=["x", "a b"]
        )
        assert scores == pytest.approx([1.0, 0.0])

    def test_scores_do_not_depend_on_the_batch(self, reward):
        responses = ["a b", "很好", "x"]
        reference = ["a b c", "真很好", "y"]
        together = reward()([""] * 3, responses, reference=reference)
        assert together == [
            score(reward(), *pair)
            for pair in zip(responses, reference, strict=True)
        ]

    def test_a_missing_column_is_named_with_those_there(self, reward):
        message = (
            f"{reward.__name__} reads the column 'reference'.*"
            "Columns: 'answer', 'source'"
        )
        with pytest.raises(ValueError, match=message):
            reward()(["a"], ["b"], source=["x"], answer=["c"])

    @pytest.mark.parametrize("value", [3, None, [], ["a", 1]])
    def test_what_is_no_text_is_refused(self, reward, value):
        with pytest.raises(ValueError, match="'reference'.* in row 1: "):
            reward()(["a"] * 2, ["b"] * 2, reference=["c", value])

    def test_unequal_counts_are_refused(self, reward):
        with pytest.raises(ValueError, match="1 values and 2 responses"):
            reward()(["a"] * 2, ["b"] * 2, reference=["c"])
