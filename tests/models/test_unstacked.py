"""The cache as it is kept: the numbers of a stacked tensor."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.unstacked import KEYS
from tfrlhf.models.unstacked import VALUES
from tfrlhf.models.unstacked import Stacked
from tfrlhf.models.unstacked import Turned
from tfrlhf.models.unstacked import from_nest
from tfrlhf.models.unstacked import to_nest
from tfrlhf.models.unstacked import unstacked
from tfrlhf.models.unstacked import with_room

# Rows, positions, heads, width of a head.
SHAPE = (2, 5, 3, 4)


def numbers(shape, seed=0):
    return tf.random.stateless_normal(shape, (seed, 0))


@pytest.mark.parametrize("order", [KEYS, VALUES])
def test_turned_is_the_tensor(order):
    plain = numbers(SHAPE)
    turned = Turned(tf.transpose(plain, order), order)
    assert turned.shape == plain.shape
    assert turned.dtype == plain.dtype
    np.testing.assert_array_equal(tf.convert_to_tensor(turned), plain)
    np.testing.assert_array_equal(turned[:, 1:2], plain[:, 1:2])


@pytest.mark.parametrize("order", [KEYS, VALUES])
def test_updates_and_repeats_are_those_of_the_tensor(order):
    plain, update = numbers(SHAPE), numbers((2, 1, 3, 4), seed=1)
    start = [0, tf.constant(3), 0, 0]
    with unstacked():
        turned = Turned(tf.transpose(plain, order), order)
        turned = keras.ops.slice_update(turned, start, update)
        plain = keras.ops.slice_update(plain, start, update)
        np.testing.assert_array_equal(tf.convert_to_tensor(turned), plain)
        for axis in (2, 1):
            np.testing.assert_array_equal(
                tf.convert_to_tensor(keras.ops.repeat(turned, 2, axis=axis)),
                keras.ops.repeat(plain, 2, axis=axis),
            )
        assert isinstance(turned, Turned)
        whole = keras.ops.repeat(turned, 2, axis=-1)
    np.testing.assert_array_equal(whole, tf.repeat(plain, 2, axis=-1))


@pytest.mark.parametrize("order", [KEYS, VALUES])
@pytest.mark.parametrize(
    ("equation", "queries"),
    [
        ("bqnd,bsnd->bnqs", (2, 1, 6, 4)),
        ("bnqs,bsnd->bqnd", (2, 6, 1, 5)),
        # In which heads are summed over.
        ("bqnd,bsnd->bqs", (2, 1, 6, 4)),
    ],
)
def test_groups_of_queries_are_multiplied_as_each_would_be(
    order, equation, queries
):
    plain, queries = numbers(SHAPE), numbers(queries, seed=1)
    expected = tf.einsum(equation, queries, tf.repeat(plain, 2, axis=2))
    with unstacked():
        turned = Turned(tf.transpose(plain, order), order)
        shared = keras.ops.repeat(turned, 2, axis=2)
        assert shared.shape == (2, 5, 6, 4)
        found = keras.ops.einsum(equation, queries, shared)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_nest_holds_the_whole_cache():
    layers = [
        [numbers(SHAPE, 2 * i), numbers(SHAPE, 2 * i + 1)] for i in (0, 1)
    ]
    cache = Stacked([Stacked(pair) for pair in layers])
    nest = to_nest(cache)
    assert [x.shape for x in nest[0]] == [(2, 3, 4, 5), (2, 3, 5, 4)]
    back = from_nest(nest)
    assert back.shape == cache.shape == (2, 2, 2, *SHAPE[1:])
    np.testing.assert_array_equal(back.tensor(), cache.tensor())
    # What a step has changed, and what it has made anew.
    back.parts[0].parts[0] = layers[0][0]
    for received, expected in zip(
        tf.nest.flatten(to_nest(back)), tf.nest.flatten(nest), strict=True
    ):
        np.testing.assert_array_equal(received, expected)


def test_room_is_behind_what_was_read():
    cache = Stacked([Stacked([numbers(SHAPE), numbers(SHAPE, 1)])])
    longer = with_room(cache, 2)
    assert longer.shape == (2, 1, 2, 7, 3, 4)
    np.testing.assert_array_equal(
        longer.tensor()[..., :5, :, :], cache.tensor()
    )
    assert not longer.tensor()[..., 5:, :, :].numpy().any()


def test_keras_is_left_as_it_was():
    names = ("stack", "slice_update", "repeat", "einsum")
    before = [getattr(keras.ops, name) for name in names]
    with pytest.raises(ZeroDivisionError), unstacked():
        assert keras.ops.repeat is not before[2]
        _ = 1 / 0
    assert [getattr(keras.ops, name) for name in names] == before
