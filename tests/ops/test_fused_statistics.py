import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import ops

HIDDEN = normal(1, 7, 3)
KERNEL = normal(2, 5, 3)
TOKEN_IDS = np.array([0, 4, 2, 1, 1, 3, 4], np.int32)
# Logits to hold: all at once, all tokens but one, two tokens, less than one.
CHUNKS = [100, 28, 14, 1]


@functools.cache
def log_probs_in(chunk_elements):
    return lambda *x: (
        ops.fused_token_statistics(
            *x, temperature=0.7, chunk_elements=chunk_elements
        ).log_probs
    )


@functools.cache
def both_in(chunk_elements):
    return lambda *x: ops.fused_token_statistics(
        *x,
        temperature=0.7,
        entropy_has_gradient=True,
        chunk_elements=chunk_elements,
    )[:2]


def expected_log_probs(hidden, kernel, token_ids):
    return references.token_log_probs(hidden @ kernel.T, token_ids, 0.7)


def expected_both(hidden, kernel, token_ids):
    entropy = references.entropy(hidden @ kernel.T, 0.7)
    return [expected_log_probs(hidden, kernel, token_ids), entropy]


@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_log_probs_agree(evaluate, chunk_elements):
    function = log_probs_in(chunk_elements)
    given = HIDDEN, KERNEL, TOKEN_IDS
    assert_agrees(evaluate, function, expected_log_probs, *given)


@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_log_probs_with_an_entropy_that_learns_agree(evaluate, chunk_elements):
    function = both_in(chunk_elements)
    given = HIDDEN, KERNEL, TOKEN_IDS
    assert_agrees(evaluate, function, expected_both, *given)


@pytest.mark.parametrize("chunk_elements", CHUNKS)
def test_entropy_and_mode(chunk_elements):
    found = ops.fused_token_statistics(
        HIDDEN, KERNEL, TOKEN_IDS, 0.7, chunk_elements=chunk_elements
    )
    logits = HIDDEN @ KERNEL.T
    np.testing.assert_allclose(
        found.entropy,
        references.entropy(logits, 0.7),
        rtol=1e-5,
        atol=1e-5,
    )
    best = logits.argmax(axis=-1) == TOKEN_IDS
    assert best.any()
    np.testing.assert_array_equal(found.most_likely, best)


def test_no_rows():
    hidden = tf.zeros([0, 3])
    with tf.GradientTape() as tape:
        kernel = tf.constant(KERNEL)
        tape.watch([hidden, kernel])
        ids = tf.zeros([0], tf.int32)
        found = ops.fused_token_statistics(hidden, kernel, ids)
    to_hidden, to_kernel = tape.gradient(found.log_probs, [hidden, kernel])
    assert found.log_probs.shape == to_hidden.shape[:1] == (0,)
    np.testing.assert_array_equal(to_kernel, np.zeros_like(KERNEL))


def test_extreme_logits():
    hidden = np.array([[1e4, 0.0], [-1e4, 0.0]], np.float32)
    kernel = np.array([[1.0, 0.0], [-1.0, 0.0]], np.float32)
    found = ops.fused_token_statistics(
        hidden, kernel, np.array([0, 0], np.int32)
    )
    np.testing.assert_array_equal(found.log_probs, [0.0, -2e4])
    np.testing.assert_array_equal(found.entropy, [0.0, 0.0])


def test_a_temperature_of_0_is_refused():
    with pytest.raises(ValueError, match="`temperature`.*positive"):
        ops.fused_token_statistics(HIDDEN, KERNEL, TOKEN_IDS, 0.0)


@pytest.mark.parametrize("chunk_elements", CHUNKS)
@pytest.mark.parametrize("entropy_has_gradient", [False, True])
def test_in_place_is_the_same(chunk_elements, entropy_has_gradient):
    @tf.function
    def gradients(in_place):
        hidden, kernel = tf.constant(HIDDEN) * 1.0, tf.constant(KERNEL) * 1.0
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel])
            found = ops.fused_token_statistics(
                hidden,
                kernel,
                TOKEN_IDS,
                0.7,
                entropy_has_gradient,
                chunk_elements,
                in_place,
            )
            loss = tf.reduce_sum(found.log_probs + 0.1 * found.entropy)
        return found, tape.gradient(loss, [hidden, kernel])

    expected = gradients(False)
    for _ in range(2):
        # What is made in place must not be what comes again.
        tf.nest.map_structure(
            lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-6),
            gradients(True),
            expected,
        )


def test_bfloat16_is_summed_in_float32():
    hidden, kernel = (tf.cast(x, tf.bfloat16) for x in (HIDDEN, KERNEL))
    tapes, found = [], []
    for chunk_elements in (100, 14):
        with tf.GradientTape() as tape:
            tape.watch([hidden, kernel])
            log_probs = ops.fused_token_statistics(
                hidden, kernel, TOKEN_IDS, chunk_elements=chunk_elements
            ).log_probs
        tapes.append(tape.gradient(log_probs, [hidden, kernel]))
        found.append(log_probs)
    np.testing.assert_allclose(*found, atol=1e-5)
    for whole, parts in zip(*tapes, strict=True):
        assert parts.dtype == tf.bfloat16
        # One rounding of bfloat16.
        np.testing.assert_allclose(
            tf.cast(whole, tf.float32),
            tf.cast(parts, tf.float32),
            rtol=2**-7,
            atol=2**-8,
        )
