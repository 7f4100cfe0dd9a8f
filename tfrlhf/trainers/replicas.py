"""Rows of whole tensors to the replicas of a strategy and back.

Between the compiled phases a batch is held whole on the host, so that
whitening, minibatches and metrics see all of it; a phase works on each
replica's run of rows.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf


def per_replica(strategy: tf.distribute.Strategy, rows: Any) -> Any:
    """Deals runs of rows out to the replicas.

    Args:
        strategy: the strategy whose replicas take the rows.
        rows: a carrier of tensors with the same first axis N. N must divide
            by the number of replicas: see `padded`.

    Returns:
        The same carrier of per-replica values.
    """
    replicas = strategy.num_replicas_in_sync
    if replicas == 1:
        return rows
    size = row_count(rows) // replicas

    def part(context: tf.distribute.experimental.ValueContext) -> Any:
        start = context.replica_id_in_sync_group * size
        return tf.nest.map_structure(lambda x: x[start : start + size], rows)

    return strategy.experimental_distribute_values_from_function(part)


def padded(rows: Any, count: int) -> Any:
    """Repeats the last row until there are `count` rows.

    Args:
        rows: a carrier of tensors with the same first axis.
        count: at least the number of rows.

    Returns:
        The carrier with `count` rows.
    """
    missing = count - row_count(rows)
    if missing == 0:
        return rows

    def extend(x: tf.Tensor) -> tf.Tensor:
        return tf.concat([x, tf.repeat(x[-1:], missing, axis=0)], axis=0)

    return tf.nest.map_structure(extend, rows)


def with_absent_rows(rows: Any, count: int) -> Any:
    """Fills up to `count` rows with some that count nowhere.

    Args:
        rows: a carrier with a `response_mask`.
        count: at least the number of rows.

    Returns:
        The carrier with `count` rows; the new ones have an empty response.
    """
    if count == row_count(rows):
        return rows
    real = tf.range(count)[:, None] < row_count(rows)
    full = padded(rows, count)
    return full._replace(response_mask=tf.where(real, full.response_mask, 0))


def row_count(rows: Any) -> int:
    """Returns the first axis of a carrier's tensors."""
    return int(tf.nest.flatten(rows)[0].shape[0])


def round_up(number: int, multiple: int) -> int:
    """Returns the smallest multiple that is at least `number`."""
    return -(-number // multiple) * multiple


def _in_one_graph(
    strategy: tf.distribute.Strategy, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Returns a function of per-replica rows that works on all at once.

    Outside of a graph a strategy lets one replica work after the other.
    """

    def run(rows: Any) -> Any:
        return strategy.run(lambda part: function(*part), args=(rows,))

    compiled = isinstance(function, tf.types.experimental.PolymorphicFunction)
    if not compiled or strategy.num_replicas_in_sync == 1:
        return run
    # Kept where it lives as long as what it calls.
    if not hasattr(function, "on_all_replicas"):
        function.on_all_replicas = tf.function(  # type: ignore[attr-defined]
            run, autograph=False, reduce_retracing=True
        )
    return function.on_all_replicas  # type: ignore[attr-defined,no-any-return]


def one_program(strategy: tf.distribute.Strategy, xla: bool) -> bool:
    """Tells whether one call works on the rows of all replicas.

    Processors have one pool of threads for all programs of XLA, so that one of
    all rows is faster there than several at once. Where the pool is a single
    thread, programs at once have a thread each, and one of all rows has not.

    Args:
        strategy: the strategy.
        xla: whether XLA compiles what is called and nothing in it needs a
            replica.
    """
    if strategy.num_replicas_in_sync == 1:
        return True
    devices = map(tf.DeviceSpec.from_string, strategy.extended.worker_devices)
    alone = tf.config.threading.get_intra_op_parallelism_threads() == 1
    on_processors = all(device.device_type == "CPU" for device in devices)
    return xla and on_processors and not alone


def on_replicas(
    strategy: tf.distribute.Strategy,
    function: Callable[..., Any],
    rows: Any,
    size: int,
    xla: bool = False,
) -> Any:
    """Runs a function of rows on every replica and joins the results.

    Args:
        strategy: the strategy.
        function: from a carrier of rows to a structure of tensors of as many
            rows; compiled.
        rows: a tuple or carrier of tensors with the same first axis N.
        size: rows to pad to, so that a short batch is not compiled anew.
        xla: see `one_program`.

    Returns:
        The results of all N rows, in order.
    """
    count = int(rows[0].shape[0])
    replicas = strategy.num_replicas_in_sync
    full = padded(rows, round_up(max(count, size), replicas))
    together = one_program(strategy, xla)
    if together and replicas > 1:
        results = function(*full)
    else:
        part = per_replica(strategy, full)
        results = _in_one_graph(strategy, function)(part)
    if together:
        return tf.nest.map_structure(lambda x: x[:count], results)

    def join(value: Any) -> tf.Tensor:
        parts = strategy.experimental_local_results(value)
        return tf.concat(parts, axis=0)[:count]

    return tf.nest.map_structure(join, results)
