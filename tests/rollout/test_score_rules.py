import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tfrlhf.types import Completions

# Responses of 2, 4, 5 and 0 tokens; the first and the last stopped.
MASK = tf.constant(
    [[0, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 0], [0, 1, 1, 1, 1, 1], [0] * 6]
)
COMPLETIONS = Completions(
    MASK, MASK, MASK, tf.constant([1, 0, 0, 1]), tf.zeros(MASK.shape)
)
SCORES = tf.constant([1.0, -3.0, 0.5, -1.0])


def test_a_missing_end_costs_the_penalty():
    received = tfrlhf.MissingEndPenalty(2.0)(SCORES, COMPLETIONS)
    np.testing.assert_allclose(received, [1.0, -5.0, -1.5, -1.0])


def test_length_costs_from_free_to_limit():
    rule = tfrlhf.LengthPenalty(free=2, limit=6, penalty=4.0)
    received = rule(SCORES, COMPLETIONS)
    np.testing.assert_allclose(received, [1.0, -5.0, -2.5, -1.0])


# OpenRLHF multiplied, which raises a negative score.
@pytest.mark.parametrize(
    "rule",
    [
        tfrlhf.MissingEndPenalty(0.5),
        tfrlhf.LengthPenalty(free=0, limit=4, penalty=0.5),
    ],
)
def test_no_score_is_raised(rule):
    assert (rule(SCORES, COMPLETIONS).numpy() <= SCORES.numpy()).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfrlhf.MissingEndPenalty(-1.0), "`penalty`"),
        (lambda: tfrlhf.LengthPenalty(4, 4), "`free` must be .* below"),
        (lambda: tfrlhf.GroupRelative(1), "`group_size` must be at least 2"),
        (lambda: tfrlhf.LeaveOneOut(1), "`group_size` must be at least 2"),
        (lambda: tfrlhf.AdvantageWeighted(0.0), "`temperature`"),
    ],
)
def test_settings_that_cannot_be(make, message):
    with pytest.raises(ValueError, match=message):
        make()
