import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.data import batches
from tfrlhf.data import examples
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Preferences
from tfrlhf.types import Prompts
from tfrlhf.types import Ratings


def prompts(lengths, width):
    mask = np.arange(width) < np.array(lengths)[:, None]
    row = np.arange(1, len(lengths) + 1)[:, None]
    return Prompts(
        np.where(mask, row, 0).astype(np.int32), mask.astype(np.int32)
    )


def order(dataset):
    return [int(row[0]) for batch in dataset for row in batch.token_ids]


def test_rows_in_order_with_a_short_last_batch():
    carrier = prompts([3, 1, 2, 4, 4], 4)
    dataset = batches(carrier, 2, bucket=1)
    assert dataset.cardinality() == 3
    taken = list(dataset)
    assert all(isinstance(batch, Prompts) for batch in taken)
    assert [batch.token_ids.shape for batch in taken] == [
        (2, 3),
        (2, 4),
        (1, 4),
    ]
    np.testing.assert_array_equal(taken[0].token_ids, [[1, 1, 1], [2, 0, 0]])
    np.testing.assert_array_equal(taken[0].padding_mask, [[1, 1, 1], [1, 0, 0]])
    assert order(dataset) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("length", "bucket", "width"),
    [(1, 4, 4), (4, 4, 4), (5, 4, 8), (9, 4, 10), (10, 4, 10), (3, 32, 10)],
)
def test_trimming_rounds_up_to_the_bucket(length, bucket, width):
    (batch,) = batches(prompts([1, length], 10), 2, bucket=bucket)
    assert batch.token_ids.shape == (2, width)
    np.testing.assert_array_equal(
        tf.reduce_sum(batch.padding_mask, -1), [1, length]
    )


def test_trimming_sees_padding_and_not_the_pad_id():
    carrier = prompts([3], 8)
    carrier.token_ids[:] = 0
    (batch,) = batches(carrier, 1, bucket=1)
    assert batch.token_ids.shape == (1, 3)


def test_rows_without_tokens_keep_one_bucket():
    (batch,) = batches(prompts([0], 8), 1, bucket=2)
    assert batch.token_ids.shape == (1, 2)


def test_preferences_trim_the_last_axis_only():
    # K == S: ranks must not be mistaken for an array with an S axis.
    mask = np.zeros([2, 4, 4], np.int32)
    mask[:, :, :2] = 1
    ranks = np.tile(np.arange(4, dtype=np.int32), [2, 1])
    ones = np.ones(2, np.float32)
    carrier = Preferences(mask, mask, mask, ranks, ones, ones)
    (batch,) = batches(carrier, 2, bucket=1)
    assert isinstance(batch, Preferences)
    assert batch.token_ids.shape == (2, 4, 2)
    assert batch.response_mask.shape == (2, 4, 2)
    np.testing.assert_array_equal(batch.ranks, ranks)
    assert batch.weight.shape == (2,)


def test_every_array_follows_its_row():
    base = prompts([2, 1, 3], 3)
    number = np.array([10, 20, 30], np.float32)
    ratings = Ratings(*base, base.padding_mask, number, number + 1)
    for batch in batches(ratings, 1, shuffle=True, bucket=1):
        row = int(batch.token_ids[0, 0])
        assert float(batch.rating[0]) == 10 * row
        assert float(batch.weight[0]) == 10 * row + 1
        assert batch.token_ids.shape[1] == [2, 1, 3][row - 1]


def test_tensors_and_float_arrays_are_trimmed_too():
    ids, mask = prompts([2, 2], 6)
    values = tf.random.stateless_uniform([2, 6], [1, 2])
    carrier = Experience(ids, mask, mask, *[values] * 5)
    (batch,) = batches(carrier, 2, bucket=1)
    assert {tuple(array.shape) for array in batch} == {(2, 2)}
    np.testing.assert_array_equal(batch.advantages, values[:, :2])
    assert batch.returns.dtype == tf.float32


def test_the_same_seed_gives_the_same_orders():
    carrier = prompts([1] * 20, 2)
    first = batches(carrier, 3, shuffle=True, seed=7)
    passes = [order(first), order(first)]
    again = batches(carrier, 3, shuffle=True, seed=7)
    assert [order(again), order(again)] == passes
    assert order(batches(carrier, 3, shuffle=True, seed=8)) != passes[0]
    assert passes[0] != passes[1]
    assert passes[0] != list(range(1, 21))
    assert all(sorted(seen) == list(range(1, 21)) for seen in passes)
    assert first.cardinality() == 7


def test_one_trace_serves_every_shape():
    dataset = batches(prompts([1, 2, 3, 4, 5], 5), 2, bucket=1)
    assert dataset.element_spec.token_ids.shape.as_list() == [None, None]
    traces = []

    @tf.function
    def total(iterator):
        traces.append(1)
        return tf.reduce_sum(next(iterator).padding_mask)

    iterator = iter(dataset)
    assert [int(total(iterator)) for _ in range(3)] == [3, 7, 5]
    assert len(traces) == 1


def test_under_a_strategy(tokenizer):
    records = [{"prompt": "x", "response": "y" * n} for n in (1, 2, 3)]
    dataset = batches(examples(records, tokenizer, 8), 2)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    taken = list(strategy.experimental_distribute_dataset(dataset))
    assert [type(batch) for batch in taken] == [Examples, Examples]
    assert int(tf.reduce_sum(taken[1].loss_mask)) == 4


def test_bad_arguments():
    carrier = prompts([1, 1], 2)
    with pytest.raises(ValueError, match="`carrier` must be one of Prompts, "):
        batches({"token_ids": carrier.token_ids}, 2)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        batches(carrier, 0)
    with pytest.raises(ValueError, match="`bucket` must be at least 1, not 0"):
        batches(carrier, 1, bucket=0)
    with pytest.raises(ValueError, match="the same number of rows, not {'tok"):
        batches(carrier._replace(padding_mask=carrier.token_ids[:1]), 1)
    with pytest.raises(ValueError, match="`carrier` has no rows"):
        batches(prompts([], 2), 1)
