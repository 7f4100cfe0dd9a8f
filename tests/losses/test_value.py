import functools

import numpy as np
import pytest

from tests import references
from tests.modes import HIDDEN
from tests.modes import MASK
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import losses

VALUES, OLD_VALUES, RETURNS = (
    normal(seed, *MASK.shape) for seed in (40, 41, 42)
)

unclipped = functools.partial(losses.clipped_value_loss, clip=None)


@pytest.mark.parametrize(
    ("function", "clip"),
    [(losses.clipped_value_loss, 0.2), (unclipped, None)],
)
def test_agrees_with_reference(evaluate, function, clip):
    reference = functools.partial(references.clipped_value_loss, clip=clip)
    assert_agrees(
        evaluate,
        function,
        reference,
        VALUES,
        OLD_VALUES,
        RETURNS,
        MASK,
        hidden=[HIDDEN, HIDDEN, HIDDEN, None],
    )


def test_golden(evaluate):
    loss = evaluate(
        losses.clipped_value_loss,
        np.array([[0.9, 0.35, 0.1, 0.25]], np.float32),
        np.array([[0.5, 0.4, 0.3, 0.2]], np.float32),
        np.array([[0.8301, 0.958, 0.94, 1.0]], np.float32),
        np.ones([1, 4], np.int32),
    ).values[0]
    np.testing.assert_allclose(np.mean(loss), 0.206836, rtol=0, atol=1e-6)


def test_wrong_input_is_refused():
    row, mask = [[0.5, 1.0]], [[1, 1]]
    for arguments, message in [
        (([[0, 1]], row, row, mask), "`values` must be float32"),
        ((row, [[0, 1]], row, mask), "`old_values` must be float32"),
        ((row, row, [[0, 1]], mask), "`returns` must be float32"),
        ((row, row, row, row), "`mask` must be int32"),
        ((row[0], row, row, mask), "`values` must have 2 axes"),
        ((row, row, [[0.5]], mask), "`returns` must have the shape"),
        ((row, row, row, mask, 0.0), "`clip` must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            losses.clipped_value_loss(*arguments)
