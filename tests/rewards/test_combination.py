"""Weighted sums of rewards and their parts."""

import pytest

from tests import small
from tfrlhf.rewards import BLEU
from tfrlhf.rewards import F1
from tfrlhf.rewards import ExactMatch
from tfrlhf.rewards import HTTPReward
from tfrlhf.rewards import Length
from tfrlhf.rewards import Repetition
from tfrlhf.rewards import combine


def lengths(prompts, responses, **columns):
    return [len(response) for response in responses]


def given(prompts, responses, given):
    return given


def test_the_sum_is_weighted_and_the_parts_are_not():
    reward = combine({"long": (lengths, 0.5), "given": (given, -2.0)})
    scores = reward(["x"] * 2, ["abcd", "a"], given=[1.0, 0.25])
    assert scores == [0.0, 0.0]
    assert reward.parts == {"long": [4.0, 1.0], "given": [1.0, 0.25]}
    assert reward(["x"], [""], given=[3.0]) == [-6.0]
    assert reward.parts == {"long": [0.0], "given": [3.0]}


def test_parts_without_names_are_called_after_themselves():
    reward = combine(
        {
            lengths: 1.0,
            BLEU(): 1,
            ExactMatch(): 2.0,
            F1(): 1.0,
            Length(9): 1.0,
            Repetition(): 1.0,
            HTTPReward("http://localhost"): 1.0,
        }
    )
    assert list(reward.weights) == [
        "lengths",
        "bleu",
        "exact_match",
        "f1",
        "length",
        "repetition",
        "http_reward",
    ]


@pytest.mark.parametrize("named", [True, False])
def test_a_reward_model_is_a_part(named):
    model = small.reward_model(sharpness=4.0)
    prompts, responses = ["The park"] * 2, [" is large.", " is fine."]
    reward = combine({"reward_model": (model, 2.0)} if named else {model: 2.0})
    expected = model.score(prompts, responses)
    assert reward(prompts, responses) == pytest.approx(list(2.0 * expected))
    assert reward.parts["reward_model"] == pytest.approx(list(expected))


def test_a_sum_may_be_a_part():
    inner = combine({"long": (lengths, 2.0)})
    assert combine({"all": (inner, 3.0)})([""], ["ab"]) == [12.0]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "`combine` needs at least one"),
        ({"x": 1.0}, "The part 'x' of `combine` must be a pair"),
        ({"x": (3, 1.0)}, "must be a reward: a callable"),
        ({Length(3): 1.0, Length(4): 1.0}, "Two parts .* called 'length'"),
        ({"x": (lengths, float("inf"))}, "The weight of 'x' must be finite"),
        ({lambda prompts, responses: [0.0]: 1.0}, "<lambda>, which is no name"),
    ],
)
def test_parts_are_checked(parts, message):
    with pytest.raises(ValueError, match=message):
        combine(parts)


@pytest.mark.parametrize("wrong", [[1.0], [1.0, float("nan")]])
def test_the_scores_of_a_part_are_checked(wrong):
    reward = combine({"long": (lengths, 1.0), "given": (given, 1.0)})
    reward(["x"], ["y"], given=[1.0])
    with pytest.raises(ValueError, match="The part 'given' must return one"):
        reward(["x"] * 2, ["y"] * 2, given=wrong)
    assert reward.parts == {}
