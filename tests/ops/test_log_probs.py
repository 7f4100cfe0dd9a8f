import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import ops

LOGITS = normal(3, 2, 3, 5) * 3.0
TOKEN_IDS = np.array([[0, 4, 2], [1, 1, 3]], np.int32)


def cool_log_probs(logits, token_ids):
    return ops.token_log_probs(logits, token_ids, temperature=0.7)


@pytest.mark.parametrize(
    ("function", "temperature"),
    [(ops.token_log_probs, 1.0), (cool_log_probs, 0.7)],
)
def test_token_log_probs_agree(evaluate, function, temperature):
    reference = functools.partial(
        references.token_log_probs, temperature=temperature
    )
    assert_agrees(evaluate, function, reference, LOGITS, TOKEN_IDS)


def cool_entropy(logits):
    return ops.entropy(logits, temperature=0.7)


@pytest.mark.parametrize(
    ("function", "temperature"), [(ops.entropy, 1.0), (cool_entropy, 0.7)]
)
def test_entropy_agrees(evaluate, function, temperature):
    reference = functools.partial(references.entropy, temperature=temperature)
    assert_agrees(evaluate, function, reference, LOGITS)


@pytest.mark.parametrize("shape", [(), (4,), (2, 2, 2)])
def test_any_number_of_leading_axes(shape):
    logits = normal(4, *shape, 5)
    token_ids = np.full(shape, 3, np.int32)
    np.testing.assert_allclose(
        ops.token_log_probs(logits, token_ids),
        references.token_log_probs(logits, token_ids),
        rtol=1e-5,
    )


def test_probabilities_sum_to_one_at_every_temperature():
    logits = np.repeat(LOGITS[:1, :1], 5, axis=1)
    token_ids = np.arange(5, dtype=np.int32)[None]
    log_probs = ops.token_log_probs(logits, token_ids, 0.3)
    np.testing.assert_allclose(np.sum(np.exp(log_probs)), 1.0, rtol=1e-5)


def test_huge_logits_stay_exact(evaluate):
    result = evaluate(
        ops.token_log_probs,
        np.array([[20000.0, 19999.0]], np.float32),
        np.array([1], np.int32),
    )
    np.testing.assert_allclose(result.values[0], [-1.313262], rtol=1e-5)


def test_excluded_token_costs_nothing(evaluate):
    with_excluded = LOGITS.copy()
    with_excluded[..., 3] = -np.inf
    ids = np.array([[0, 4, 2], [1, 1, 2]], np.int32)
    for function, arrays in [
        (ops.token_log_probs, (ids,)),
        (ops.entropy, ()),
    ]:
        result = evaluate(function, with_excluded, *arrays)
        left = np.delete(LOGITS, 3, axis=-1)
        left_ids = [np.where(a > 3, a - 1, a) for a in arrays]
        expected = evaluate(function, left, *left_ids)
        np.testing.assert_allclose(
            result.values[0], expected.values[0], rtol=1e-5, atol=1e-6
        )
        np.testing.assert_allclose(
            np.delete(result.gradients[0], 3, axis=-1),
            expected.gradients[0],
            rtol=1e-5,
            atol=1e-6,
        )
        assert not np.any(result.gradients[0][..., 3])


def test_half_precision_logits_are_computed_in_float32():
    logits = tf.cast(LOGITS, tf.bfloat16)
    for result in (
        ops.token_log_probs(logits, TOKEN_IDS),
        ops.entropy(logits),
    ):
        assert result.dtype == tf.float32


def test_temperature_may_be_a_tensor():
    warm = ops.token_log_probs(LOGITS, TOKEN_IDS, tf.constant(2.0))
    expected = references.token_log_probs(LOGITS, TOKEN_IDS, 2.0)
    np.testing.assert_allclose(warm, expected, rtol=1e-5)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="`logits` must be floating.*int32"):
        ops.entropy([[1, 2]])
    with pytest.raises(ValueError, match="vocabulary axis"):
        ops.entropy(1.0)
    with pytest.raises(ValueError, match="`token_ids` must be int32"):
        ops.token_log_probs([[1.0, 2.0]], [1.0])
    with pytest.raises(ValueError, match="`token_ids` must have the shape"):
        ops.token_log_probs([[1.0, 2.0]], [[1]])
    with pytest.raises(ValueError, match="`temperature` must be positive"):
        ops.entropy([[1.0, 2.0]], temperature=0.0)
