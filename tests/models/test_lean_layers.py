import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.test_adapters import IDS
from tests.models.test_adapters import MASK
from tfrlhf.models.lean_layers import _rounded
from tfrlhf.models.lean_layers import gelu
from tfrlhf.models.lean_layers import layer_norm
from tfrlhf.models.lean_layers import lean_layers

# Where the gate is 0 or 1 to float32, around 0, and between.
X = np.concatenate([[-30.0, -12.0, -1e-8, 0.0, 1e-8, 15.0], np.arange(-5, 5.0)])
UPSTREAM = np.linspace(-1.0, 2.0, len(X))


def value_and_gradients(function, *given):
    given = [tf.constant(x, tf.float32) for x in given]
    with tf.GradientTape() as tape:
        tape.watch(given)
        value = function(*given)
    upstream = tf.reshape(
        tf.linspace(-1.0, 2.0, tf.size(value)), tf.shape(value)
    )
    return value, *tape.gradient(value, given, upstream)


# Rows that TensorFlow's operations take, and wide ones that XLA takes.
@pytest.mark.parametrize("more", [0, 2000])
def test_gelu_agrees_with_its_formula(more):
    value, to_x = value_and_gradients(
        lambda x: gelu(tf.pad(x, [[0, more]]))[: len(X)], X
    )
    c = np.sqrt(2.0 / np.pi)
    bent = np.tanh(c * (X + 0.044715 * X**3))
    slope = c * (1.0 + 3.0 * 0.044715 * X**2)
    expected = 0.5 * (1.0 + bent) + 0.5 * X * (1.0 - bent**2) * slope
    np.testing.assert_allclose(value, 0.5 * X * (1.0 + bent), atol=1e-6)
    np.testing.assert_allclose(to_x, UPSTREAM * expected, atol=2e-6)


@pytest.mark.parametrize("width", [5, 300])
def test_normalisation_agrees_with_keras(width):
    rng = np.random.default_rng(0)
    x = rng.normal(2.0, 3.0, [2, 3, width])
    scale, shift = rng.normal(size=[2, width])

    def of_keras(x, scale, shift):
        return keras.ops.layer_normalization(x, scale, shift, epsilon=1e-5)

    def ours(x, scale, shift):
        return layer_norm(x, scale, shift, 1e-5)

    for expected, received in zip(
        value_and_gradients(of_keras, x, scale, shift),
        value_and_gradients(ours, x, scale, shift),
        strict=True,
    ):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_wide_rows_are_rounded_to_bfloat16_as_by_a_cast():
    bits = np.random.default_rng(0).integers(0, 2**32, 2**20, np.uint32)
    # Between two bfloat16 numbers as well, and infinities.
    bits[::3] = bits[::3] & 0xFFFF0000 | 0x8000
    bits[:2] = 0x7F800000, 0xFF800000
    x = bits.view(np.float32)
    x = x[~np.isnan(x)]
    compiled = tf.function(lambda x: _rounded(x, tf.bfloat16), jit_compile=True)
    np.testing.assert_array_equal(
        tf.bitcast(compiled(x), tf.uint16),
        tf.bitcast(tf.cast(x, tf.bfloat16), tf.uint16),
    )
    # What is no number stays none, if it came of arithmetic or of bfloat16.
    none = [np.inf - np.inf, 0.0 * np.inf, float(tf.bfloat16.max) * np.nan]
    none = np.array([*none, -none[0]], np.float32)
    none = np.append(none, np.uint32([0x7FFF0000, 0xFF810000]).view("f4"))
    assert np.isnan(tf.cast(compiled(none), tf.float32)).all()


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_a_model_learns_the_same_and_is_as_before(dtype):
    policy = small.gpt2_policy(sharpness=4.0)
    for layer in policy.model._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy(dtype)

    def gradients():
        with tf.GradientTape() as tape:
            found = tf.reduce_sum(policy.log_probs(IDS, MASK))
        return tape.gradient(
            found, [v.value for v in policy.trainable_variables]
        )

    def seen():
        return [
            (vars(x).get("call"), getattr(x, "activation", None))
            for x in policy.model._flatten_layers()
        ]

    before = seen()
    expected = gradients()
    with lean_layers(policy):
        pairs = list(zip(seen(), before, strict=True))
        received = gradients()
    changed = [now for now, then in pairs if now != then]
    assert seen() == before
    # Of each of 2 blocks: two normalisations, the block, six dense layers; and
    # the last normalisation.
    assert len(changed) == 19
    received, expected = (
        np.concatenate([np.ravel(tf.convert_to_tensor(x)) for x in found])
        for found in (received, expected)
    )
    # Of the whole gradient: that of some biases is 0 but for rounding.
    gap = np.linalg.norm(received - expected) / np.linalg.norm(expected)
    assert gap < (1e-5 if dtype == "float32" else 0.05)
