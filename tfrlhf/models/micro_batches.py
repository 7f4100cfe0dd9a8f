"""A batch in parts, to save memory."""

from typing import Any

import tensorflow as tf

from tfrlhf.types import Tensor


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
