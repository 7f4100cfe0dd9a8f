"""Words of English and Chinese text."""

import pytest

from tfrlhf.rewards import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It's hot, 很好!", ["it's", "hot", "很", "好"]),
        ("DON’T stop", ["don't", "stop"]),
        ("the dogs' 'own' bowl", ["the", "dogs", "own", "bowl"]),
        ("well-known_name", ["well", "known", "name"]),
        ("3.5 stars, 10/10", ["3", "5", "stars", "10", "10"]),
        ("汤very好4次", ["汤", "very", "好", "4", "次"]),
        ("café naïve", ["café", "naïve"]),
        ("今天，天气。", ["今", "天", "天", "气"]),
        ("one\n\ttwo", ["one", "two"]),
        ("...!? 。😁", []),
        ("", []),
    ],
)
def test_words(text, expected):
    assert words(text) == expected
