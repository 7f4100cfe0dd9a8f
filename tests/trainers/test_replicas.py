"""On one replica; on two, see tests/distribute."""

import numpy as np
import tensorflow as tf

from tfrlhf.trainers import replicas
from tfrlhf.types import Prompts

ROWS = Prompts(tf.constant([[1, 2], [3, 4], [5, 6]]), tf.ones([3, 2], tf.int32))


def test_padding_repeats_the_last_row():
    full = replicas.padded(ROWS, 5)
    assert isinstance(full, Prompts)
    np.testing.assert_array_equal(
        full.token_ids, [[1, 2], [3, 4], [5, 6], [5, 6], [5, 6]]
    )
    assert full.padding_mask.shape == (5, 2)
    assert replicas.padded(ROWS, 3) is ROWS


def test_round_up():
    assert [replicas.round_up(n, 4) for n in (1, 4, 5)] == [4, 4, 8]


def test_one_replica_takes_all_rows():
    strategy = tf.distribute.get_strategy()
    assert replicas.per_replica(strategy, ROWS) is ROWS


def test_results_lose_the_padding():
    sizes = []

    def function(token_ids, padding_mask):
        sizes.append(len(token_ids))
        return token_ids + padding_mask, tf.reduce_sum(token_ids, axis=1)

    first, second = replicas.on_replicas(
        tf.distribute.get_strategy(), function, ROWS, size=4
    )
    assert sizes == [4]
    np.testing.assert_array_equal(first, [[2, 3], [4, 5], [6, 7]])
    np.testing.assert_array_equal(second, [3, 7, 11])


def test_more_rows_than_the_size_are_not_cut():
    (token_ids,) = replicas.on_replicas(
        tf.distribute.get_strategy(), lambda x, y: (x,), ROWS, size=1
    )
    np.testing.assert_array_equal(token_ids, ROWS.token_ids)
