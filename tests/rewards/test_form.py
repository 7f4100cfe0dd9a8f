"""Length, repetition and pattern with scores worked out by hand."""

import re

import pytest

from tfrlhf.rewards import Format
from tfrlhf.rewards import Length
from tfrlhf.rewards import Repetition


@pytest.mark.parametrize(
    ("shortest", "longest", "text", "expected"),
    [
        (2, 4, "one", -1 / 4),
        (2, 4, "one two", 0.0),
        (2, 4, "a b c d", 0.0),
        (2, 4, "a b c d e f", -2 / 4),
        (3, 3, "", -1.0),
        (3, 3, "今天天气很好！", -1.0),
        (0, 5, "", 0.0),
    ],
)
def test_length(shortest, longest, text, expected):
    assert Length(longest, shortest)(["x"], [text]) == [expected]


def test_length_has_no_shortest_unless_told():
    assert Length(5)([""], [""]) == [0.0]


@pytest.mark.parametrize(
    ("n", "text", "expected"),
    [
        (1, "a a a a", -3 / 4),
        (2, "a b a b a b", -3 / 5),
        (3, "a b c a b c", -1 / 4),
        (3, "a b c d e f", 0.0),
        (2, "很好很好", -1 / 3),
        (3, "a a", 0.0),
        (1, "", 0.0),
    ],
)
def test_repetition(n, text, expected):
    assert Repetition(n)([""], [text]) == [pytest.approx(expected)]


def test_repetition_is_of_triples_unless_told():
    assert Repetition()([""], ["a a a a"]) == [-0.5]


def test_format():
    texts = ["<a>1</a>", "so <a>1</a>", "1"]
    assert Format("<a>.*</a>")([""] * 3, texts) == [1.0, 0.0, 0.0]
    assert Format("<a>.*</a>", full=False)([""] * 3, texts) == [1.0, 1.0, 0.0]
    over_lines = re.compile("<A>.*</A>", re.DOTALL | re.IGNORECASE)
    assert Format(over_lines)([""], ["<a>\n</a>"]) == [1.0]
    assert Format("<a>.*</a>")([""], ["<a>\n</a>"]) == [0.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Length(0), "`longest` must be at least 1"),
        (lambda: Length(3, 4), "`shortest` must be between 0 and `longest`"),
        (lambda: Length(3, -1), "shortest=-1, longest=3"),
        (lambda: Repetition(0), "`n` must be at least 1. Received: n=0"),
        (lambda: Format("("), "`pattern` must be a regular expression"),
    ],
)
def test_settings_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
