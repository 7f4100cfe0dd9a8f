"""Calibration against hand counts and against pairs drawn from the model."""

import numpy as np
import pytest

from tfrlhf.evaluation import calibration
from tfrlhf.evaluation import wilson_interval


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def drawn(scale, count=20_000, seed=0):
    """Pairs that follow Bradley-Terry, and scores `scale` times too far."""
    draw = np.random.default_rng(seed)
    difference = draw.normal(size=count) * 1.5
    first_wins = draw.random(count) < sigmoid(difference)
    signed = np.where(first_wins, difference, -difference) * scale
    return signed, np.zeros(count)


def test_by_hand():
    # Confidence 0.88, 0.73 (a tie has 0.5), 0.73 and wrong, 0.95.
    differences = [2.0, 1.0, 0.0, -1.0, 3.0]
    found = calibration(np.add(differences, 0.25), [0.25] * 5, bins=2)
    sure = sigmoid(np.abs(differences))
    low, high = [1, 2, 3], [0, 4]
    assert [b.pairs for b in found.bins] == [3, 2]
    assert found.bins[0].confidence == pytest.approx(sure[low].mean())
    assert found.bins[0].accuracy == pytest.approx(0.5)
    assert found.bins[1].accuracy == 1.0
    gaps = 3 * abs(sure[low].mean() - 0.5) + 2 * abs(sure[high].mean() - 1)
    assert found.error == pytest.approx(gaps / 5)
    assert found.accuracy == pytest.approx(0.7)
    assert found.overconfidence == pytest.approx(sure.mean() - 0.7)
    expected = np.mean([(1 - sigmoid(d)) ** 2 for d in differences])
    assert found.brier == pytest.approx(expected)
    assert found.interval == wilson_interval([1, 1, 0.5, 0, 1])


def test_a_true_model_is_calibrated_and_others_are_not():
    right, timid, bold = (calibration(*drawn(s)) for s in (1.0, 0.3, 4.0))
    # Chance alone: the documented size.
    assert right.error < 2 * (10 / 20_000) ** 0.5 / 3
    assert abs(right.overconfidence) < 0.01
    assert timid.error > 0.1 and timid.overconfidence < -0.1
    assert bold.error > 0.1 and bold.overconfidence > 0.1
    assert right.accuracy == timid.accuracy == bold.accuracy
    assert right.brier < min(timid.brier, bold.brier, 0.25)


def test_the_error_of_a_true_model_on_few_pairs():
    errors = [calibration(*drawn(1.0, 200, s)).error for s in range(200)]
    assert np.mean(errors) == pytest.approx((10 / 200) ** 0.5 / 3, rel=0.25)


def test_extreme_scores_do_not_overflow():
    found = calibration([1e4, -1e4], [0.0, 0.0])
    assert found.brier == 0.5 and found.error == 0.5
    assert [b.pairs for b in found.bins] == [2]
    assert calibration([0.0, 0.0], [0.0, 0.0]).brier == 0.25


def test_the_interval_covers_the_share():
    for share, n in ((0.97, 30), (0.6, 100)):
        draws = np.random.default_rng(1).random([4000, n]) < share
        intervals = [wilson_interval(row) for row in draws]
        covered = np.mean([i.low <= share <= i.high for i in intervals])
        assert 0.92 < covered < 0.98


def test_the_interval_golden():
    # R: prop.test(81, 263, correct = FALSE).
    found = wilson_interval([1] * 81 + [0] * 182)
    assert found == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert str(found) == "[0.255, 0.366]"
    wider = wilson_interval([1] * 81 + [0] * 182, confidence=0.99)
    assert wider.low < found.low and wider.high > found.high
    assert wilson_interval([1.0]).high == 1.0
    assert wilson_interval([0.0]).low == 0.0


def test_wrong_arguments_are_refused():
    for call, message in [
        (lambda: calibration([], []), "at least 1 pair"),
        (lambda: calibration([1.0], [1.0, 2.0]), "at least 1 pair"),
        (lambda: calibration([1.0], [0.0], bins=0), "bins=0"),
        (lambda: wilson_interval([]), "at least 1 case"),
        (lambda: wilson_interval([1], 1.0), "confidence=1.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            call()
