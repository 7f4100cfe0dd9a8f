import functools
import math

import numpy as np
import pytest

from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import ops

SCORES = normal(60, 12)
# A group whose scores are all the same teaches nothing.
SCORES[3:6] = 1.5


def by_group(of_group, scores, size):
    found = []
    for start in range(0, len(scores), size):
        found += of_group(scores[start : start + size].tolist())
    return np.array(found)


def relative(scores, scale):
    def of_group(group):
        mean = sum(group) / len(group)
        variance = sum((s - mean) ** 2 for s in group) / len(group)
        divisor = math.sqrt(variance) + 1e-4 if scale else 1.0
        return [(s - mean) / divisor for s in group]

    return by_group(of_group, scores, 3)


def others(scores):
    def of_group(group):
        return [
            s - sum(group[:i] + group[i + 1 :]) / (len(group) - 1)
            for i, s in enumerate(group)
        ]

    return by_group(of_group, scores, 4)


@pytest.mark.parametrize("scale", [True, False])
def test_group_relative(evaluate, scale):
    function = functools.partial(ops.group_relative, group_size=3, scale=scale)
    reference = functools.partial(relative, scale=scale)
    scores = SCORES.copy()
    if scale:
        # No gradient goes through the root of 0.
        scores[3:6] = [1.0, 2.0, 4.0]
    assert_agrees(evaluate, function, reference, scores)


def test_equal_scores_are_no_advantage():
    received = ops.group_relative(SCORES, 3).numpy()
    np.testing.assert_array_equal(received[3:6], 0.0)
    assert np.isfinite(received).all()


def test_leave_one_out(evaluate):
    function = functools.partial(ops.leave_one_out, group_size=4)
    assert_agrees(evaluate, function, others, SCORES)


@pytest.mark.parametrize("function", [ops.group_relative, ops.leave_one_out])
def test_what_is_no_group(function):
    with pytest.raises(ValueError, match="at least 2. Received: 1"):
        function(SCORES, 1)
    with pytest.raises(ValueError, match="12 rows make no whole groups of 5"):
        function(SCORES, 5)
