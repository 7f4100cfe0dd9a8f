"""Simple rules on pairs."""

import pytest

from tfrlhf.evaluation import bag_of_words_accuracy
from tfrlhf.evaluation import longer_accuracy
from tfrlhf.evaluation import reward_accuracy


def pair(chosen, rejected):
    return {"prompt": "How was it?", "chosen": chosen, "rejected": rejected}


def test_longer_accuracy():
    pairs = [pair("longer", "long"), pair("a", "as"), pair("as", "is")]
    assert longer_accuracy([*pairs, pair("很好", "好")]).value == 0.625


class Longer:
    """A reward model that knows one thing."""

    def score(self, prompts, responses):
        assert len(prompts) == len(responses)
        return [float(len(r)) for r in responses]


def test_reward_accuracy():
    pairs = [pair("longer", "long"), pair("a", "as"), pair("as", "is")]
    found = reward_accuracy(Longer(), [*pairs, pair("long", "is")])
    assert found.value == 0.625
    assert found.stderr == pytest.approx((0.6875 / 3 / 4) ** 0.5)


@pytest.mark.parametrize(
    ("good", "bad", "neutral"),
    [("lovely", "awful", "the soup was"), ("真好", "真差", "今天的汤")],
)
def test_bag_of_words_learns_which_words_decide(good, bad, neutral):
    train = [
        pair(f"{neutral} {good} {i % 2}", f"{bad} {neutral} {i % 3}")
        for i in range(12)
    ]
    right = [pair(good, bad), pair(f"{neutral} {good}", f"{neutral} {bad}")]
    wrong = [pair(other["rejected"], other["chosen"]) for other in right]
    assert bag_of_words_accuracy(train, right).value == 1.0
    assert bag_of_words_accuracy(train, wrong).value == 0.0
    assert bag_of_words_accuracy(train, right + wrong).value == 0.5


def test_words_that_decide_nothing_are_half_right():
    train = [pair("lovely soup", "awful soup")] * 4
    test = [pair("green tea", "tea"), pair("soup", "soup soup")]
    # Unseen words weigh nothing; the soup was on both sides.
    assert bag_of_words_accuracy(train, test).value == pytest.approx(0.5)


def test_words_seen_in_two_responses_are_left_out():
    train = [pair("lovely", "awful")] * 2
    test = [pair("lovely", "awful")] * 2
    assert bag_of_words_accuracy(train, test).value == 0.5
    assert bag_of_words_accuracy([*train, train[0]], test).value == 1.0
