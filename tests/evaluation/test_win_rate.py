"""Shares with their standard error."""

import numpy as np
import pytest

from tfrlhf.evaluation import accuracy
from tfrlhf.evaluation import mean
from tfrlhf.evaluation import win_rate


def test_a_tie_counts_half():
    # Win, tie, loss, win.
    estimate = win_rate([1.0, 2.0, 0.0, 5.0], [0.0, 2.0, 1.0, 1.0])
    assert estimate.value == 0.625
    outcomes = np.array([1.0, 0.5, 0.0, 1.0])
    squares = np.sum((outcomes - 0.625) ** 2)
    assert estimate.stderr == pytest.approx(np.sqrt(squares / 3) / 2)


def test_the_size_of_a_difference_does_not_count():
    assert win_rate([1e6, 0.0], [0.0, 1e-6]).value == 0.5
    assert win_rate([3, 4], [1, 2]) == (1.0, 0.0)


def test_swapping_the_sides_gives_the_rest():
    scores = np.random.default_rng(0).integers(0, 3, [2, 50]).astype(float)
    one, other = win_rate(*scores), win_rate(*scores[::-1])
    assert one.value + other.value == pytest.approx(1.0)
    assert one.stderr == pytest.approx(other.stderr)


def test_the_error_is_that_of_repeated_samples():
    outcomes = np.random.default_rng(1).random([4000, 100]) < 0.7
    values = [accuracy(row).value for row in outcomes]
    errors = [accuracy(row).stderr for row in outcomes]
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)


def test_accuracy():
    estimate = accuracy([1, 1, 1, 0])
    assert estimate.value == 0.75
    assert estimate.stderr == pytest.approx(0.25)
    assert str(estimate) == "0.750 ± 0.250"


@pytest.mark.parametrize(
    "sides", [([1.0], [0.0]), ([], []), ([1.0, 2.0], [1.0])]
)
def test_two_scores_for_each_of_two_prompts_are_needed(sides):
    received = f"{len(sides[0])} and {len(sides[1])} scores"
    with pytest.raises(ValueError, match=received):
        win_rate(*sides)


@pytest.mark.parametrize("right", [[], [1]])
def test_an_accuracy_needs_two_cases(right):
    with pytest.raises(ValueError, match=f"2 cases. Received: {len(right)}"):
        accuracy(right)


def test_a_mean_of_scores_of_any_sign():
    scores = np.random.default_rng(2).normal(-3.0, 2.0, [4000, 50])
    values = [mean(row).value for row in scores]
    errors = [mean(row).stderr for row in scores]
    assert np.mean(values) == pytest.approx(-3.0, abs=0.02)
    assert np.mean(errors) == pytest.approx(np.std(values), rel=0.05)
    with pytest.raises(ValueError, match="2 scores. Received: 1"):
        mean([1.0])


def test_scores_of_a_group_count_as_one():
    scores, groups = [1.0, 0.0, 0.5, 2.0], ["a", "b", "a", "a"]
    found = mean(scores, groups)
    assert found == mean([3.5 / 3, 0.0])
    with pytest.raises(ValueError, match="4 scores and 3 groups"):
        mean(scores, groups[:3])
    with pytest.raises(ValueError, match="at least 2"):
        mean(scores, "aaaa")
