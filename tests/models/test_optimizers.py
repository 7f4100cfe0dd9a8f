"""Adam in one operation: the steps of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.optimizers import AT_A_TIME
from tfrlhf.models.optimizers import apply_scaled
from tfrlhf.models.optimizers import fuse_adam
from tfrlhf.models.optimizers import own_memory

SHAPES = (3, 4), (5,)


def steps(optimizer, fused, count=4, scale=None):
    """Makes steps; returns the variables and what the optimizer keeps."""
    rng = np.random.default_rng(3)
    variables = [
        keras.Variable(rng.normal(size=s).astype(np.float32)) for s in SHAPES
    ]
    optimizer.build(variables)

    if fused:
        fuse_adam(optimizer)

    @tf.function
    def step(gradients):
        if scale is None:
            optimizer.apply(gradients, variables)
        else:
            apply_scaled(optimizer, gradients, tf.constant(scale), variables)

    for _ in range(count):
        step(tuple(tf.constant(rng.normal(size=s), tf.float32) for s in SHAPES))
    return [np.asarray(v) for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01),
        lambda: keras.optimizers.Adam(0.01, beta_1=0.8, beta_2=0.9, epsilon=1),
        lambda: keras.optimizers.AdamW(0.01, weight_decay=0.3),
        lambda: keras.optimizers.Adam(
            keras.optimizers.schedules.CosineDecay(0.1, 3)
        ),
    ],
)
def test_steps_are_those_of_keras(make):
    plain, fused = steps(make(), False), steps(make(), True)
    for received, expected in zip(fused, plain, strict=True):
        # 1 - 0.999 in float32 is 1.3e-5 away from 0.001.
        np.testing.assert_allclose(received, expected, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.optimizers.Adam(0.01, amsgrad=True),
        lambda: keras.optimizers.SGD(0.01),
    ],
)
def test_others_are_left_alone(make):
    plain, fused = steps(make(), False), steps(make(), True)
    for received, expected in zip(fused, plain, strict=True):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("scale", [0.125, 0.0])
def test_scaled_gradients_are_scaled(scale, fused):
    # An epsilon that is not small beside them, or Adam would not see it.
    received = steps(keras.optimizers.Adam(0.1, epsilon=0.5), fused, 1, scale)
    rng = np.random.default_rng(3)
    before = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
    for shape, start, now in zip(SHAPES, before, received, strict=False):
        g = scale * rng.normal(size=shape)
        root = np.sqrt(1 - 0.999)
        expected = start - 0.1 * root * g / (root * np.abs(g) + 0.5)
        np.testing.assert_allclose(now, expected, rtol=1e-4, atol=1e-5)


def test_few_scaled_gradients_exist_at_a_time():
    size = 4 * 2048 * 1024
    shapes = [(2048, 1024), *[(64, 64)] * AT_A_TIME, (2048, 1024)]
    optimizer = keras.optimizers.Adam(0.1)
    variables = [keras.Variable(np.ones(x, np.float32)) for x in shapes]
    own_memory(variables)
    optimizer.build(variables)
    fuse_adam(optimizer)

    @tf.function
    def step(gradients):
        apply_scaled(
            optimizer, gradients, tf.reduce_sum(gradients[0]), variables
        )

    gradients = [tf.random.normal(x) for x in shapes]
    for _ in range(5):
        before = tf.config.experimental.get_memory_info("CPU:0")["current"]
        tf.config.experimental.reset_memory_stats("CPU:0")
        step(gradients)
        peak = tf.config.experimental.get_memory_info("CPU:0")["peak"]
        assert size <= peak - before < 1.5 * size


def test_own_memory_is_not_copied_when_written():
    first = keras.Variable(np.ones([512, 1024], np.float32))
    second = keras.Variable(first)
    own_memory([second])
    np.testing.assert_array_equal(second, first)
    before = tf.config.experimental.get_memory_info("CPU:0")["current"]
    second.value.assign_add(tf.ones([512, 1024]))
    after = tf.config.experimental.get_memory_info("CPU:0")["current"]
    assert after == before
    assert float(first[0, 0]) == 1.0
