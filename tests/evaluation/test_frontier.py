"""Reward over KL along training runs."""

import numpy as np
import pytest

from tfrlhf.evaluation import Curve
from tfrlhf.evaluation import plot_frontier
from tfrlhf.evaluation import score_at_kl


def test_smooth_is_the_mean_of_every_window():
    numbers = np.random.default_rng(0).normal(size=(2, 9))
    curve = Curve(*numbers.tolist()).smooth(4)
    for smooth, raw in zip(curve, numbers, strict=True):
        expected = [sum(raw[i : i + 4]) / 4 for i in range(6)]
        np.testing.assert_allclose(smooth, expected, atol=1e-12)


def test_a_short_curve_is_one_window():
    assert Curve([1.0, 3.0], [0.0, 4.0]).smooth(5) == Curve([2.0], [2.0])


def test_the_first_time_a_kl_is_reached_counts():
    curve = Curve([0, 2, 1, 3], [0, 2, 9, 9])
    assert score_at_kl([curve], 1.5, width=1).value == 1.5


def test_a_curve_that_starts_beyond_is_read_at_its_start():
    assert score_at_kl([Curve([2, 3], [5, 6])], 1.0, width=1).value == 5


def test_no_number_where_one_run_does_not_come_that_far():
    assert score_at_kl([Curve([2], [1]), Curve([1], [1])], 1.5) is None


@pytest.mark.parametrize("curves", [[], [Curve([], [])]])
def test_nothing_to_read(curves):
    with pytest.raises(ValueError, match="at least one curve"):
        score_at_kl(curves, 1.0)


def test_error_is_that_of_the_mean_over_runs():
    ends = [1.0, 2.0, 6.0]
    found = score_at_kl([Curve([0, 1], [0, e]) for e in ends], 1.0, width=1)
    assert found.value == pytest.approx(3.0)
    assert found.stderr == pytest.approx(np.std(ends, ddof=1) / np.sqrt(3))


def test_plot_has_a_line_for_every_run(tmp_path):
    runs = {"PPO": [Curve([0, 1], [0, 1])] * 2, "DPO": [Curve([0, 1], [0, 2])]}
    path = tmp_path / "frontier.svg"
    plot_frontier(path, runs, {"best of n": Curve([0, 1], [0, 3])})
    drawn = path.read_text("utf-8")
    # The legend shows each colour once more.
    assert drawn.count("stroke: #1f77b4; stroke-width: 1.2") == 2 + 1
    assert drawn.count("stroke: #ff7f0e; stroke-width: 1.2") == 1 + 1
    with pytest.raises(ValueError):
        plot_frontier(tmp_path / "frontier.nonsense", runs)
