"""Parts of a batch: what is cut off, and in which order the rows are."""

import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.micro_batches import of_any_length
from tfrlhf.models.micro_batches import sorted_by_length
from tfrlhf.models.micro_batches import trimmed
from tfrlhf.trainers.example_mixing import MixedExperience
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Preferences

LENGTHS = [3, 5, 2]


def rows(lengths, width):
    """Padding mask, and ids that say row and column."""
    mask = (np.arange(width) < np.array(lengths)[..., None]).astype(np.int32)
    ids = np.arange(mask.size, dtype=np.int32).reshape(mask.shape)
    return tf.constant(ids), tf.constant(mask)


def test_one_column_of_padding_stays():
    ids, mask = rows(LENGTHS, 9)
    batch = trimmed(Examples(ids, mask, mask))
    for received, whole in zip(batch, (ids, mask, mask), strict=True):
        np.testing.assert_array_equal(received, whole[:, :6])


def test_nothing_is_cut_off_where_a_row_is_full():
    ids, mask = rows(LENGTHS, 5)
    batch = trimmed(Examples(ids, mask, mask))
    np.testing.assert_array_equal(batch.token_ids, ids)


def test_no_rows_can_be_trimmed():
    ids, mask = (x[:0] for x in rows(LENGTHS, 9))
    assert trimmed(Examples(ids, mask, mask)).token_ids.shape[0] == 0


def test_only_tokens_are_cut():
    ids, mask = rows([[3, 1], [2, 6]], 8)
    ranks = tf.constant([[0, 1], [1, 0]])
    weight = tf.constant([1.0, 2.0])
    batch = trimmed(Preferences(ids, mask, mask, ranks, weight, weight))
    assert batch.token_ids.shape == (2, 2, 7)
    np.testing.assert_array_equal(batch.ranks, ranks)
    # Ordered by the longest candidate.
    batch = sorted_by_length(batch._replace(padding_mask=mask[::-1]))
    np.testing.assert_array_equal(batch.ranks, ranks[::-1])


def test_any_length_is_that_of_tokens():
    ids, mask = rows([[3, 1], [2, 6]], 8)
    ranks = tf.constant([[0, 1], [1, 0]])
    weight = tf.constant([1.0, 2.0])
    batch = Preferences(ids, mask, mask, ranks, weight, weight)
    found = of_any_length(batch)
    assert found.token_ids.shape.as_list() == [2, 2, None]
    assert found.ranks.shape == (2, 2)
    assert found.weight == tf.TensorSpec([2], tf.float32)
    mixed = MixedExperience(*[Examples(ranks, ranks, ranks)] * 2, weight)
    inner, _, other = of_any_length(mixed)
    assert inner.loss_mask.shape.as_list() == [2, None]
    assert other.shape == (2,)
    plain = of_any_length((np.zeros([2, 3]), {"x": weight}))
    assert plain[0].shape == (2, 3) and plain[1]["x"].shape == (2,)


def test_rows_are_ordered_from_short_to_long():
    ids, mask = rows(LENGTHS, 9)
    batch = sorted_by_length(Examples(ids, mask, ids))
    order = [2, 0, 1]
    np.testing.assert_array_equal(batch.token_ids, tf.gather(ids, order))
    np.testing.assert_array_equal(batch.loss_mask, tf.gather(ids, order))


def test_carriers_side_by_side_are_changed_apart():
    ids, mask = rows(LENGTHS, 9)
    other_ids, other_mask = rows([1, 7, 4], 9)
    floats = [tf.cast(ids, tf.float32)] * 5
    weight = tf.constant([0.1, 0.2, 0.3])
    mixed = MixedExperience(
        Experience(ids, mask, mask, *floats),
        Examples(other_ids, other_mask, other_mask),
        weight,
    )
    batch = trimmed(sorted_by_length(mixed))
    assert batch.experience.old_log_probs.shape == (3, 6)
    np.testing.assert_array_equal(
        batch.examples.token_ids, tf.gather(other_ids, [0, 2, 1])[:, :8]
    )
    np.testing.assert_array_equal(batch.weight, weight)


def test_what_has_no_padding_mask_is_left_alone():
    batch = (tf.zeros([2, 3]), {"x": tf.ones([2])})
    assert trimmed(batch) is batch
    assert sorted_by_length(batch) is batch


@pytest.mark.parametrize(
    ("columns", "longest", "width"),
    # To one more than the longest; of many columns to a multiple.
    [(8, 6, 7), (16, 8, 10), (64, 8, 16), (1000, 100, 128), (70, 69, 70)],
)
def test_many_columns_are_cut_to_few_widths(columns, longest, width):
    mask = tf.cast(tf.range(columns) < longest, tf.int32)[None]
    batch = trimmed(Examples(mask, mask, mask))
    assert batch.token_ids.shape == (1, width)
