"""Flat products: the numbers of the plain ones, for values and gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.products import flat_product
from tfrlhf.models.products import flat_products


def dense():
    return keras.layers.Dense(5)


def heads():
    return keras.layers.EinsumDense("abc,cde->abde", (None, 2, 4))


def joined_heads():
    return keras.layers.EinsumDense("abcd,cde->abe", (None, 6))


@pytest.mark.parametrize(
    "make,shape",
    [
        (dense, (7, 3)),
        (dense, (4, 7, 3)),
        (heads, (4, 7, 3)),
        (joined_heads, (4, 7, 2, 3)),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_layers_learn_what_they_did(make, shape, compiled):
    keras.utils.set_random_seed(1)
    layer = make()
    inputs = tf.random.normal(shape)
    upstream = tf.random.normal(layer(inputs).shape)

    def gradients(inputs):
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            outputs = layer(inputs)
            loss = tf.reduce_sum(outputs * upstream)
        kernel = layer.kernel.value
        return outputs, *tape.gradient(loss, [inputs, kernel])

    def flat(inputs):
        with flat_products():
            return gradients(inputs)

    plain = gradients(inputs)
    ours = (tf.function(flat) if compiled else flat)(inputs)
    for received, expected in zip(ours, plain, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_gradients_equal_loops():
    rng = np.random.default_rng(2)
    x, kernel, upstream = (
        rng.normal(size=shape).astype(np.float32)
        for shape in ((2, 3, 4), (4, 5), (2, 3, 5))
    )
    to_x, to_kernel = np.zeros_like(x), np.zeros_like(kernel)
    for a in range(2):
        for b in range(3):
            for k in range(4):
                for n in range(5):
                    to_x[a, b, k] += upstream[a, b, n] * kernel[k, n]
                    to_kernel[k, n] += upstream[a, b, n] * x[a, b, k]
    x, kernel = tf.constant(x), tf.constant(kernel)
    with tf.GradientTape() as tape:
        tape.watch([x, kernel])
        loss = tf.reduce_sum(flat_product(x, kernel) * upstream)
    found = tape.gradient(loss, [x, kernel])
    np.testing.assert_allclose(found[0], to_x, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], to_kernel, rtol=1e-5, atol=1e-5)


def test_lengths_may_be_unknown():
    kernel = tf.random.normal([3, 5])

    @tf.function(input_signature=[tf.TensorSpec([None, None, 3])])
    def product(x):
        return flat_product(x, kernel)

    x = tf.random.normal([2, 4, 3])
    np.testing.assert_allclose(product(x), x @ kernel, rtol=1e-5, atol=1e-5)
    assert product(x[:0]).shape == (0, 4, 5)


@pytest.mark.parametrize(
    "a,b,options",
    [
        ((2, 3), (4, 3), {"transpose_b": True}),
        ((2, 3, 4), (2, 4, 5), {}),
        ((3, 2), (3, 4), {"transpose_a": True}),
    ],
)
def test_other_products_stay(a, b, options):
    a, b = tf.random.normal(a), tf.random.normal(b)
    plain = tf.matmul(a, b, **options)
    with flat_products():
        np.testing.assert_array_equal(tf.matmul(a, b, **options), plain)


def test_other_sums_over_axes_stay():
    a, b = tf.random.normal([2, 3, 4]), tf.random.normal([3, 4])
    for axes in ([[1, 2], [0, 1]], [[1], [0]], 0):
        plain = tf.tensordot(a, b, axes=axes)
        with flat_products():
            found = tf.tensordot(a, b, axes=axes)
        np.testing.assert_array_equal(found, plain)


def test_tensorflow_is_left_as_it_was():
    before = tf.matmul, tf.tensordot
    with pytest.raises(ZeroDivisionError), flat_products():
        assert tf.matmul is not before[0]
        _ = 1 / 0
    assert (tf.matmul, tf.tensordot) == before
