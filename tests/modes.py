"""Runs one function eagerly, as a graph and compiled by XLA.

`evaluate` gives values and gradients of one call. A graph is traced without a
single known dimension, so that nothing may lean on static shapes.
"""

import functools
from typing import NamedTuple

import numpy as np
import pytest
import tensorflow as tf

TOLERANCE = 1e-5

# A plain response, one with gaps, an empty one, one that fills its row.
MASK = np.array(
    [
        [0, 1, 1, 1, 1, 0],
        [0, 1, 0, 0, 1, 1],
        [0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1],
    ],
    np.int32,
)
HIDDEN = MASK == 0


class Evaluation(NamedTuple):
    values: list
    gradients: list


def normal(seed, *shape):
    """Random float32 numbers."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.fixture(params=["eager", "graph", "jit"])
def evaluate(request):
    """Function of (function, *arrays) that returns an Evaluation."""
    return functools.partial(_evaluate, request.param)


def assert_agrees(evaluate, function, reference, *arrays, hidden=()):
    """Compares with the reference, then once more with NaN where hidden.

    Args:
        evaluate: the fixture.
        function: what is tested, of as many tensors as there are arrays.
        reference: the same for arrays.
        arrays: float32 or int32.
        hidden: for each array a bool array, True where it must not be read,
            or None.
    """
    clean = evaluate(function, *arrays)
    expected = _as_list(reference(*arrays))
    for value, wanted in zip(clean.values, expected, strict=True):
        np.testing.assert_allclose(value, wanted, TOLERANCE, TOLERANCE)
    slopes = _numeric_gradients(reference, arrays)
    for slope, wanted in zip(clean.gradients, slopes, strict=True):
        np.testing.assert_allclose(slope, wanted, TOLERANCE, TOLERANCE)
    if hidden:
        poisoned = evaluate(function, *_poisoned(arrays, hidden))
        for received, wanted in zip(
            poisoned.values + poisoned.gradients,
            clean.values + clean.gradients,
            strict=True,
        ):
            np.testing.assert_array_equal(received, wanted)


def _evaluate(mode, function, *arrays):
    tensors = [tf.constant(array) for array in arrays]
    signature = tuple((len(t.shape), t.dtype) for t in tensors)
    call = _prepared(mode, function, signature)
    values, gradients = call(*tensors)
    return Evaluation(
        [value.numpy() for value in values],
        [gradient.numpy() for gradient in gradients],
    )


@functools.lru_cache(maxsize=32)
def _prepared(mode, function, signature):
    def values_and_gradients(*tensors):
        floats = [t for t in tensors if t.dtype.is_floating]
        with tf.GradientTape() as tape:
            tape.watch(floats)
            values = _as_list(function(*tensors))
            total = tf.add_n(
                [
                    tf.reduce_sum(value * _weights(tf, tf.shape(value)))
                    for value in values
                    if value.dtype.is_floating
                ]
                or [tf.zeros([])]
            )
        return values, tape.gradient(
            total, floats, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    if mode == "eager":
        return values_and_gradients
    return tf.function(
        values_and_gradients,
        input_signature=[
            tf.TensorSpec([None] * rank, dtype) for rank, dtype in signature
        ],
        jit_compile=mode == "jit",
    )


def _weights(namespace, shape):
    """Unequal weights, so that no two gradients can be mistaken."""
    if namespace is tf:
        count = tf.cast(tf.reduce_prod(shape), tf.float32)
        return tf.reshape(tf.cos(tf.range(count)), shape)
    return np.cos(np.arange(np.prod(shape))).reshape(shape)


def _numeric_gradients(reference, arrays, step=1e-5):
    """Central differences, for the float arrays only."""
    arrays = [np.array(a, np.float64) if _is_float(a) else a for a in arrays]

    def total():
        values = _as_list(reference(*arrays))
        return sum(np.sum(v * _weights(np, np.shape(v))) for v in values)

    gradients = []
    for array in arrays:
        if not _is_float(array):
            continue
        gradient = np.zeros(array.shape)
        for index in np.ndindex(*array.shape):
            middle = array[index]
            array[index] = middle + step
            above = total()
            array[index] = middle - step
            gradient[index] = (above - total()) / (2 * step)
            array[index] = middle
        gradients.append(gradient)
    return gradients


def _poisoned(arrays, hidden):
    out = []
    for array, nowhere in zip(arrays, hidden, strict=True):
        if nowhere is not None:
            array = np.where(nowhere, np.float32("nan"), array)
        out.append(array)
    return out


def _is_float(array):
    return np.issubdtype(array.dtype, np.floating)


def _as_list(values):
    return list(values) if isinstance(values, (tuple, list)) else [values]
