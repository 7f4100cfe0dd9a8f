"""Carriers to tf.data batches: drawn by row, trimmed to what they hold.

Knows the carriers and tf.data; no text and no tokenizer.
"""

from typing import TypeVar

import tensorflow as tf

from tfrlhf.data.packing import PackedExamples
from tfrlhf.types import Completions
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Preferences
from tfrlhf.types import Prompts
from tfrlhf.types import Ratings
from tfrlhf.types import ReferencedPreferences
from tfrlhf.types import ReferencedRatings
from tfrlhf.types import Rollout
from tfrlhf.types import StepRatings
from tfrlhf.types import Tensor

CARRIERS = (
    Prompts,
    Completions,
    Rollout,
    Experience,
    Preferences,
    Ratings,
    ReferencedPreferences,
    ReferencedRatings,
    StepRatings,
    Examples,
    PackedExamples,
)
Carrier = TypeVar(
    "Carrier",
    Prompts,
    Completions,
    Rollout,
    Experience,
    Preferences,
    Ratings,
    ReferencedPreferences,
    ReferencedRatings,
    StepRatings,
    Examples,
    PackedExamples,
)

# Batches of a run within which rows are sorted by length.
RUN = 4


def batches(
    carrier: Carrier,
    batch_size: int,
    shuffle: bool = False,
    seed: int = 0,
    bucket: int = 16,
) -> tf.data.Dataset:
    """Cuts a carrier into batches of the same NamedTuple.

    Args:
        carrier: Arrays or tensors with B rows each.
        batch_size: Rows a batch; the last batch may be short.
        shuffle: Draw the rows in random order, another one in each pass, and
            put rows of like length into one batch to save padding. Runs with
            the same `seed` (and the same `tf.random.set_seed`, if any) see
            the same orders.
        seed: Of the orders.
        bucket: Each batch is cut on the S axis to its longest row by
            `padding_mask`, rounded up to a multiple of this.

    Returns:
        A Dataset of ceil(B / batch_size) batches. In its element_spec the
        batch axis and S are None, so that one trace serves all shapes.

    Raises:
        ValueError: No carrier, no rows, or arrays that disagree about B.

    Example:
        >>> rows = tf.ones([5, 64], tf.int32)
        >>> [len(batch.token_ids) for batch in batches(Prompts(rows, rows), 2)]
        [2, 2, 1]
    """
    _check_arguments(carrier, batch_size, bucket)
    # Eager tensors are captured; NumPy arrays would become graph constants,
    # of which a graph holds 2 GB at most. The input pipeline runs on the CPU.
    with tf.device("CPU"):
        arrays = [tf.convert_to_tensor(array) for array in carrier]
    rows = len(carrier.token_ids)
    indices = tf.data.Dataset.range(rows)
    if shuffle:
        shuffled = indices.shuffle(rows, seed=seed)
        lengths = _lengths(carrier)
        grouped = _by_length(shuffled, lengths, batch_size, seed)
        count = -(-rows // batch_size)
        batched = grouped.apply(tf.data.experimental.assert_cardinality(count))
    else:
        batched = indices.batch(batch_size)

    def take(index: Tensor) -> Carrier:
        taken = [tf.gather(array, index) for array in arrays]
        return _trimmed(type(carrier)(*taken), bucket)

    options = tf.data.Options()
    # There are no files to share out between workers.
    options.experimental_distribute.auto_shard_policy = (
        tf.data.experimental.AutoShardPolicy.DATA
    )
    dataset = batched.map(take)
    return dataset.prefetch(tf.data.AUTOTUNE).with_options(options)


def _by_length(
    indices: tf.data.Dataset, lengths: Tensor, batch_size: int, seed: int
) -> tf.data.Dataset:
    """Sorts runs of rows by length, and cuts them into batches in any order."""

    def ordered(index: Tensor) -> Tensor:
        return tf.gather(index, tf.argsort(tf.gather(lengths, index)))

    runs = indices.batch(RUN * batch_size).map(ordered)
    return runs.unbatch().batch(batch_size).shuffle(RUN, seed=seed)


def _lengths(carrier: Carrier) -> Tensor:
    """Returns the longest row of each record, int32 [B]."""
    mask = tf.convert_to_tensor(carrier.padding_mask)
    lengths = tf.reduce_sum(mask, axis=-1)
    return tf.reduce_max(tf.reshape(lengths, [len(mask), -1]), axis=-1)


def _trimmed(batch: Carrier, bucket: int) -> Carrier:
    """Cuts the arrays shaped like token_ids to the longest row."""
    width = tf.shape(batch.token_ids)[-1]
    positions = tf.range(1, width + 1)
    longest = tf.reduce_max(
        tf.where(tf.not_equal(batch.padding_mask, 0), positions, 1)
    )
    kept = tf.minimum(-(-longest // bucket) * bucket, width)
    # The whole shape is compared: ranks [B, K] have no S axis, even if K == S.
    return type(batch)(
        *(
            array[..., :kept]
            if array.shape.as_list() == batch.token_ids.shape.as_list()
            else array
            for array in batch
        )
    )


def _check_arguments(carrier: Carrier, batch_size: int, bucket: int) -> None:
    if not isinstance(carrier, CARRIERS):
        names = ", ".join(kind.__name__ for kind in CARRIERS)
        raise ValueError(
            f"`carrier` must be one of {names}, not a "
            f"{type(carrier).__name__}: make one with tfrlhf.data."
        )
    for name, value in (("batch_size", batch_size), ("bucket", bucket)):
        if value < 1:
            raise ValueError(f"`{name}` must be at least 1, not {value}.")
    sizes = {
        name: len(array)
        for name, array in zip(carrier._fields, carrier, strict=True)
    }
    if len(set(sizes.values())) > 1:
        raise ValueError(
            f"the arrays of `carrier` must have the same number of rows, not "
            f"{sizes}: take the same rows of each."
        )
    if not len(carrier.token_ids):
        raise ValueError("`carrier` has no rows: give at least one.")
