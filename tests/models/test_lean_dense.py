import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.lean_dense import dense_call


def layer_of(make, shape):
    keras.utils.set_random_seed(0)
    layer = make()
    layer.build(shape)
    for i, weight in enumerate(layer.weights):
        weight.assign(tf.random.stateless_normal(weight.shape, (i, 0)))
    return layer


def einsum(equation, shape, bias_axes):
    return lambda: keras.layers.EinsumDense(
        equation, output_shape=shape, bias_axes=bias_axes
    )


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        # Wide and narrow: their gradients are made in different ways.
        (lambda: keras.layers.Dense(6, activation="tanh"), (2, 3, 4)),
        (lambda: keras.layers.Dense(3, use_bias=False), (2, 3, 4)),
        (lambda: keras.layers.Dense(3), (5, 4)),
        (einsum("abc,cde->abde", (None, 2, 5), "de"), (2, 3, 4)),
        (einsum("abcd,cde->abe", (None, 3), "e"), (2, 3, 4, 2)),
        (einsum("abc,cde->abde", (None, 2, 5), None), (2, 3, 4)),
    ],
)
def test_values_and_gradients_are_those_of_the_layer(make, shape):
    layer = layer_of(make, shape)
    x = tf.random.stateless_normal(shape, (9, 0))
    lean = dense_call(layer)
    assert lean is not None
    found = []
    for call in (layer, lean):
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = call(x)
            loss = tf.reduce_sum(tf.sin(value))
        weights = [v.value for v in layer.trainable_weights]
        found.append([value, *tape.gradient(loss, [x, *weights])])
    for received, expected in zip(*reversed(found), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        # A bias of one axis of two, and kernels that are no matrix as they lie.
        (einsum("abc,cde->abde", (None, 2, 5), "e"), (2, 3, 4)),
        (einsum("abc,dce->abde", (None, 2, 5), "de"), (2, 3, 4)),
        (einsum("abc,cd->adb", (5, None), None), (2, 3, 4)),
        (lambda: keras.layers.LayerNormalization(), (2, 3, 4)),
    ],
)
def test_other_layers_are_left_alone(make, shape):
    assert dense_call(layer_of(make, shape)) is None


def test_a_layer_that_has_more_than_its_kernel_is_left_alone():
    layer = layer_of(lambda: keras.layers.Dense(6), (2, 4))
    layer.enable_lora(2)
    assert dense_call(layer) is None
    layer = layer_of(lambda: keras.layers.Dense(6), (2, 4))
    layer.quantize("int8")
    assert dense_call(layer) is None
