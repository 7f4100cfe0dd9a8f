"""Blocked words, and classifiers as filters."""

import pytest

from tests import small
from tfrlhf.rewards import BlockedWords
from tfrlhf.rewards import ClassifierFilter

BLOCKED = ["ass", "Shut  up", "笨蛋", "don't care"]


@pytest.mark.parametrize(
    ("response", "says"),
    [
        ("You ass!", True),
        ("ASS", True),
        ("A class of its own", False),
        ("shut, UP", True),
        ("Shut the door, look up", False),
        ("你真是笨蛋。", True),
        ("笨。蛋", True),
        ("笨的鸡蛋", False),
        ("I don’t care", True),
        ("", False),
    ],
)
def test_blocked_words(response, says):
    assert BlockedWords(BLOCKED)([""], [response]) == [-1.0 if says else 0.0]


def test_the_score_of_a_blocked_word():
    reward = BlockedWords(["bad"], flagged=-3.0)
    assert reward([""] * 2, ["bad bad", "good"]) == [-3.0, 0.0]


@pytest.mark.parametrize(
    ("blocked", "message"),
    [
        ([], "`blocked` is empty"),
        (["ok", "!?"], "needs a word. Received: '!\\?'"),
        ("bad", "`blocked` must be a list of words"),
    ],
)
def test_blocked_words_are_checked(blocked, message):
    with pytest.raises(ValueError, match=message):
        BlockedWords(blocked)


def risk(prompts, responses, risk):
    return risk


def test_classifier_filter():
    given = ["a", "b", "c"]
    columns = {"risk": [0.2, 0.5, 0.9]}
    assert ClassifierFilter(risk)(given, given, **columns) == [0, -1.0, -1.0]
    strict = ClassifierFilter(risk, threshold=0.1, flagged=-2.0)
    assert strict(given, given, **columns) == [-2.0] * 3


def test_a_reward_model_as_classifier():
    model = small.reward_model(sharpness=4.0)
    texts = [" is large.", " is fine today."]
    scores = model.score(["The park"] * 2, texts)
    between = float(scores.mean())
    reward = ClassifierFilter(model.as_function(), threshold=between)
    expected = [-1.0 if score >= between else 0.0 for score in scores]
    assert sorted(expected) == [-1.0, 0.0]
    assert reward(["The park"] * 2, texts) == expected


def test_classifier_filter_checks():
    with pytest.raises(ValueError, match="`threshold` must be finite"):
        ClassifierFilter(risk, threshold=float("nan"))
    for wrong in ([0.1], [0.1, float("nan")]):
        with pytest.raises(ValueError, match="one finite number for each of 2"):
            ClassifierFilter(risk)(["a", "b"], ["a", "b"], risk=wrong)
