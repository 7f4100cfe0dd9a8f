import functools

import numpy as np
import pytest

from tests import references
from tests.modes import MASK
from tests.modes import assert_agrees
from tfrlhf import ops

STOPS = (2, 7)
TOKEN_IDS = np.random.default_rng(18).integers(0, 9, [40, 8]).astype(np.int32)
RESPONSES = np.random.default_rng(19).integers(0, 2, [40, 8]).astype(np.int32)


def test_last_token_index_agrees(evaluate):
    assert_agrees(
        evaluate, ops.last_token_index, references.last_token_index, MASK
    )


def test_last_token_index_golden():
    assert ops.last_token_index(MASK).numpy().tolist() == [4, 5, 0, 5]
    candidates = ops.last_token_index(MASK.reshape(2, 2, -1))
    assert candidates.numpy().tolist() == [[4, 5], [0, 5]]


truncate = functools.partial(ops.truncate_at_stop, stop_token_ids=STOPS)


def test_truncate_at_stop_agrees(evaluate):
    reference = functools.partial(
        references.truncate_at_stop, stop_token_ids=STOPS
    )
    assert_agrees(evaluate, truncate, reference, TOKEN_IDS, RESPONSES)


@pytest.mark.parametrize(
    ("token_ids", "mask", "kept", "finished"),
    [
        ([5, 5, 2, 5], [0, 1, 1, 1], [0, 1, 1, 0], 1),  # the stop is kept
        ([5, 2, 5, 5], [0, 0, 1, 1], [0, 0, 1, 1], 0),  # the prompt's stop
        ([5, 7, 2, 2], [0, 1, 1, 1], [0, 1, 0, 0], 1),  # the first of many
        ([5, 5, 5, 2], [0, 1, 1, 1], [0, 1, 1, 1], 1),  # at the very end
        ([2, 2, 2, 2], [0, 0, 0, 0], [0, 0, 0, 0], 0),  # nothing there
    ],
)
def test_truncate_at_stop_golden(token_ids, mask, kept, finished):
    received_mask, received_finished = truncate([token_ids], [mask])
    assert received_mask.numpy().tolist() == [kept]
    assert received_finished.numpy().tolist() == [finished]


def test_no_stop_tokens_truncate_nothing():
    mask, finished = ops.truncate_at_stop(TOKEN_IDS, RESPONSES, [])
    np.testing.assert_array_equal(mask, RESPONSES)
    assert not np.any(finished)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="`mask` must be int32"):
        ops.last_token_index([[0.0, 1.0]])
    with pytest.raises(ValueError, match="`token_ids` must be int32"):
        ops.truncate_at_stop([[1.0]], [[1]], [2])
    with pytest.raises(ValueError, match="`mask` must be int32"):
        ops.truncate_at_stop([[1]], [[1.0]], [2])
    with pytest.raises(ValueError, match="`mask` must have 2 axes"):
        ops.truncate_at_stop([[1]], [1], [2])
    with pytest.raises(ValueError, match="`mask` must have the shape"):
        ops.truncate_at_stop([[1]], [[1, 1]], [2])
    with pytest.raises(ValueError, match="`stop_token_ids` must have 1 axes"):
        ops.truncate_at_stop([[1]], [[1]], 2)
