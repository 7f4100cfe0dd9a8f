"""Adam in one operation: the steps of Keras' own."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.optimizers import fuse_adam

SHAPES = (3, 4), (5,)


def steps(optimizer, fused, count=4):
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
        optimizer.apply(gradients, variables)

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
