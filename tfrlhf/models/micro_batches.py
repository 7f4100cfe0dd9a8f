"""A batch in parts, to save memory and padding."""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrlhf.types import Tensor

# Most widths that batches of one width are cut to, as layers are compiled for
# each.
WIDTHS = 8


def rows_of_part(batch: Any, index: int | Tensor, parts: int) -> Any:
    """Takes one of `parts` runs of rows out of a carrier.

    Args:
        batch: a carrier of tensors whose first axis is the rows.
        index: int32 scalar, which part, from 0.
        parts: how many; more than there are rows leaves some empty.

    Returns:
        A carrier; the sizes of the parts differ by one row at the most.
    """
    rows = tf.shape(tf.nest.flatten(batch)[0])[0]
    start, stop = rows * index // parts, rows * (index + 1) // parts
    return tf.nest.map_structure(lambda x: x[start:stop], batch)


def sorted_by_length(batch: Any) -> Any:
    """Orders rows from short to long, so that parts need little padding.

    Args:
        batch: a carrier with a `padding_mask` [B, ..., S], or a tuple with
            such carriers in it, each of which is ordered for itself.

    Returns:
        The carrier with its rows in another order.
    """
    if not hasattr(batch, "padding_mask"):
        return _inside(batch, sorted_by_length)
    length = tf.reduce_sum(batch.padding_mask, axis=-1)
    if length.shape.rank > 1:
        length = tf.reduce_max(length, axis=-1)
    order = tf.argsort(length, stable=True)
    return type(batch)(*(tf.gather(x, order) for x in batch))


def trimmed(batch: Any) -> Any:
    """Cuts the columns that are padding in every row, but for at least one.

    Args:
        batch: see `sorted_by_length`; right-padded. More than `WIDTHS` columns
            are cut to a multiple of a power of 2.

    Returns:
        The carrier; what has the rank of `padding_mask` is shorter.
    """
    if not hasattr(batch, "padding_mask"):
        return _inside(batch, trimmed)
    mask = batch.padding_mask
    # A column of padding stays, for the start check to see what looks at it.
    width = tf.reduce_max(tf.reduce_sum(mask, axis=-1)) + 1
    columns = tf.shape(mask)[-1]
    doublings = tf.reduce_sum(
        tf.cast(columns > WIDTHS * 2 ** tf.range(16), tf.int32)
    )
    step = tf.bitwise.left_shift(1, doublings)
    width = tf.minimum(-(-tf.maximum(width, 2) // step) * step, columns)
    rank = mask.shape.rank
    return type(batch)(
        *(x[..., :width] if x.shape.rank == rank else x for x in batch)
    )


def of_any_length(batch: Any) -> Any:
    """Describes carriers of as many rows but any number of columns.

    Args:
        batch: see `sorted_by_length`.

    Returns:
        `tf.TensorSpec`s in its place; what has not the rank of `padding_mask`
        is described as it is.
    """
    if not hasattr(batch, "padding_mask"):
        if hasattr(batch, "_fields"):
            return type(batch)(*map(of_any_length, batch))
        return tf.nest.map_structure(_described, batch)
    rank = len(batch.padding_mask.shape)
    return type(batch)(
        *(
            tf.TensorSpec([*x.shape[:-1], None], x.dtype)
            if len(x.shape) == rank
            else _described(x)
            for x in batch
        )
    )


def _described(x: Any) -> tf.TensorSpec:
    return tf.TensorSpec(x.shape, x.dtype)


def _inside(batch: Any, change: Callable[[Any], Any]) -> Any:
    if not hasattr(batch, "_fields"):
        return batch
    return type(batch)(*(change(x) for x in batch))


def sum_over_parts(function: Any, parts: int, zeros: Any, unroll: bool) -> Any:
    """Adds up what a function gives for every part, one after the other.

    Args:
        function: from the index of a part, int32 scalar, to float tensors.
        parts: how many.
        zeros: tensors of the structure and shapes of what it gives.
        unroll: XLA cannot cut parts of unequal sizes in a loop; without it,
            a loop keeps the graph, which has its own memory, as small as that
            of one part.

    Returns:
        The sums, of the structure of `zeros`.
    """

    def add_part(i: Any, so_far: Any) -> tuple[Any, Any]:
        return i + 1, tf.nest.map_structure(tf.add, so_far, function(i))

    if not unroll:
        return tf.while_loop(
            lambda i, _: i < parts, add_part, (0, zeros), parallel_iterations=1
        )[1]
    total = zeros
    for i in range(parts):
        with tf.control_dependencies(tf.nest.flatten(total)):
            _, total = add_part(i, total)
    return total
