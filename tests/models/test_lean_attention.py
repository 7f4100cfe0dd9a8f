import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.lean_attention import attention
from tfrlhf.models.lean_attention import attention_method
from tfrlhf.models.replaced_calls import replaced_methods

# Rows, queries, heads, width of a head; keys are as many as queries.
B, T, N, H = 2, 5, 3, 4
SCALE = 0.7


def given(seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=[4, B, T, N, H]).astype(np.float32)


def some_mask():
    mask = np.tril(np.ones([T, T], bool))[None, None].repeat(B, axis=0)
    mask[1, :, :, 0] = False
    # The first query of the second row sees nothing.
    return mask


def by_loops(query, key, value, mask):
    found = np.zeros([B, T, N, H])
    for b, t, n in np.ndindex(B, T, N):
        seen = [s for s in range(T) if mask[b, 0, t, s]]
        if not seen:
            # All alike, as it is for Keras.
            found[b, t, n] = value[b, :, n].mean(axis=0)
            continue
        scores = [SCALE * (query[b, t, n] @ key[b, s, n]) for s in seen]
        weights = np.exp(np.array(scores) - max(scores))
        weights /= weights.sum()
        found[b, t, n] = weights @ value[b, seen, n]
    return found


def with_gradients(function, inputs, upstream):
    inputs = [tf.constant(x) for x in inputs]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        found = function(*inputs)
    return found, tape.gradient(found, inputs, tf.cast(upstream, found.dtype))


def replaced(layer):
    method = attention_method(layer)
    return replaced_methods([(layer, "_compute_attention", method)])


def test_values_are_those_of_loops():
    query, key, value, _ = given()
    mask = some_mask()
    found = attention(query, key, value, tf.constant(mask), SCALE)
    expected = by_loops(query, key, value, mask)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_gradients_are_differences():
    *inputs, upstream = (x.astype(np.float64) for x in given())
    mask = some_mask()
    _, gradients = with_gradients(
        lambda *x: attention(*x, tf.constant(mask), SCALE),
        [x.astype(np.float32) for x in inputs],
        upstream,
    )
    step = 1e-4
    for which, gradient in enumerate(gradients):
        for place in np.ndindex(B, T, N, H):
            sums = []
            for sign in (1, -1):
                moved = [x.copy() for x in inputs]
                moved[which][place] += sign * step
                sums.append((by_loops(*moved, mask) * upstream).sum())
            expected = (sums[0] - sums[1]) / (2 * step)
            if which == 0 and place[:2] == (1, 0):
                # Its scores are masked.
                expected = 0.0
            np.testing.assert_allclose(gradient[place], expected, atol=1e-4)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize("masked", [True, False])
def test_a_layer_gives_what_it_gave(dtype, masked):
    layer = keras.layers.MultiHeadAttention(N, H, dtype=dtype)
    x = np.random.default_rng(1).normal(size=[B, T, 8]).astype(np.float32)
    upstream = np.random.default_rng(2).normal(size=[B, T, 8])
    mask = some_mask()[:, 0] if masked else None

    def call(x):
        return layer(x, x, attention_mask=mask)

    expected, (to_x,) = with_gradients(call, [x], upstream)
    with replaced(layer):
        found, (to_x_found,) = with_gradients(call, [x], upstream)
    tolerance = 1e-5 if dtype == "float32" else 5e-2
    for a, b in ((found, expected), (to_x_found, to_x)):
        np.testing.assert_allclose(
            tf.cast(a, tf.float32), tf.cast(b, tf.float32), atol=tolerance
        )


@pytest.mark.parametrize(
    "asked", ["use_causal_mask", "return_attention_scores"]
)
def test_what_more_is_asked_for_is_left_to_keras(asked):
    layer = keras.layers.MultiHeadAttention(N, H)
    x = np.random.default_rng(1).normal(size=[B, T, 8]).astype(np.float32)
    expected = layer(x, x, **{asked: True})
    with replaced(layer):
        found = layer(x, x, **{asked: True})
    for a, b in zip(
        tf.nest.flatten(found), tf.nest.flatten(expected), strict=True
    ):
        np.testing.assert_array_equal(a, b)


def test_other_layers_are_left_alone():
    assert attention_method(keras.layers.Dense(2)) is None
    dropping = keras.layers.MultiHeadAttention(N, H, dropout=0.1)
    assert attention_method(dropping) is None
