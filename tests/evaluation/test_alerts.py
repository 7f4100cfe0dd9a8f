"""Alerts on a stream, by hand."""

import numpy as np
import pytest

from tfrlhf.evaluation import GrowthAlert
from tfrlhf.evaluation import draw_streams


def test_the_alert_is_a_two_proportion_test():
    draw = np.random.default_rng(0)
    flags = (draw.random([3, 400]) < 0.3).astype(int)
    new, old = 60, 180
    alert = GrowthAlert(new, old)
    found = alert.z_scores(flags)
    assert found.shape == flags.shape
    assert not found[:, : new + old - 1].any()
    for row in range(3):
        for time in (new + old - 1, 333, 399):
            late = flags[row, time + 1 - new : time + 1]
            early = flags[row, time + 1 - new - old : time + 1 - new]
            pooled = (late.sum() + early.sum()) / (new + old)
            error = (pooled * (1 - pooled) * (1 / new + 1 / old)) ** 0.5
            expected = (late.mean() - early.mean()) / error
            assert found[row, time] == pytest.approx(expected)
    flags[1, 300:] = 1
    alerts = alert.first(flags)
    assert alerts[0] == alerts[2] == 400
    assert 300 < alerts[1] < 330


def test_streams_that_are_too_short_or_all_alike_show_no_growth():
    alert = GrowthAlert(2, 2, 0.5)
    assert not alert.z_scores(np.eye(3)).any()
    assert not alert.z_scores(np.ones([2, 9])).any()
    assert alert.first(np.eye(3)).tolist() == [3, 3, 3]


def test_alerts_are_false_early_or_late():
    alert = GrowthAlert(1, 2, 1.5)
    # z is 1.7 where a 1 follows two zeros.
    quiet = [[0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    grown = [[0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0, 0, 0, 1, 0], [0] * 5]
    found = alert.quality(quiet, grown, start=3)
    assert found["false_alarms"].value == 0.5
    assert found["early"].value == 0.25
    assert found["detected"].value == 0.5
    assert found["delay"] == 1.5
    assert alert.quality(quiet, quiet, start=3)["delay"] is None


def test_streams_have_the_share_that_is_asked_for():
    outcomes = np.array([0, 1, 0, 0, 1])
    share = np.repeat([0.2, 0.8], 50)
    drawn = draw_streams(outcomes, share, 400, np.random.default_rng(0))
    assert drawn.shape == (400, 100)
    found = outcomes[drawn].mean(axis=0)
    assert found[:50].mean() == pytest.approx(0.2, abs=0.01)
    assert found[50:].mean() == pytest.approx(0.8, abs=0.01)
    assert set(drawn.ravel()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize(
    ("shape", "window", "before"), [([9], 2, 2), ([1, 9], 0, 2), ([1, 9], 2, 0)]
)
def test_what_is_no_stream_is_refused(shape, window, before):
    with pytest.raises(ValueError, match="flags .streams, time."):
        GrowthAlert(window, before).z_scores(np.zeros(shape))
    with pytest.raises(ValueError, match="0 ones and 9 zeros"):
        draw_streams(np.zeros(9), [0.5], 1, np.random.default_rng(0))
