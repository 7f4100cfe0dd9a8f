"""Gradients of embeddings, added where the rest of the gradient lies.

A table that embeds tokens and is the output head as well has a gradient from
both. TensorFlow joins them in two copies of the whole table, the largest
arrays of a step where the vocabulary is large.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.types import Tensor

CALLS = keras.layers.Embedding.call, keras.layers.ReversibleEmbedding.call


class Lookup(NamedTuple):
    """Rows of a table that a pass has read.

    Attributes:
        table: Keras variable [V, H].
        token_ids: int32, any shape.
        rows: float, the shape of `token_ids`, then H.
    """

    table: Any
    token_ids: Tensor
    rows: Tensor


@contextmanager
def noted_lookups(
    model: keras.Model, tape: tf.GradientTape
) -> Iterator[list[Lookup]]:
    """Lets the tape watch the rows that are looked up, not their tables.

    Args:
        model: whose layers are meant: embeddings that train and do nothing
            but look up. They are as they were afterwards.
        tape: that records.

    Yields:
        What is looked up, for `gradients`.

    Example:
        >>> with tf.GradientTape() as tape:
        ...     with noted_lookups(policy, tape) as lookups:
        ...         loss = tf.reduce_sum(policy.log_probs(token_ids, mask))
        >>> found = gradients(
        ...     tape, loss, policy.trainable_variables, lookups)
    """
    lookups: list[Lookup] = []
    calls = [
        (layer, _noting_call(layer, tape, lookups))
        for layer in model._flatten_layers(include_self=False)
        if isinstance(layer, keras.layers.Embedding) and _only_looks_up(layer)
    ]
    with replaced_calls(calls):
        yield lookups


def _only_looks_up(layer: Any) -> bool:
    return (
        type(layer).call in CALLS
        and "call" not in vars(layer)
        and layer.built
        and not layer.mask_zero
        and layer.quantization_mode is None
        and not layer.lora_enabled
        and layer.embeddings.trainable
    )


def _noting_call(
    layer: Any, tape: tf.GradientTape, lookups: list[Lookup]
) -> Any:
    plain = layer.call

    def call(inputs: Tensor, reverse: bool = False) -> Tensor:
        if reverse:
            return plain(inputs, reverse=True)
        token_ids = tf.cast(inputs, tf.int32)
        with tape.stop_recording():
            # A variable that is gathered from is copied by whoever reads it.
            table = tf.convert_to_tensor(layer.embeddings.value)
            rows = tf.gather(table, token_ids)
        tape.watch(rows)
        lookups.append(Lookup(layer.embeddings, token_ids, rows))
        return tf.cast(rows, layer.compute_dtype)

    return call


def gradients(
    tape: tf.GradientTape,
    loss: Tensor,
    variables: Sequence[Any],
    lookups: Sequence[Lookup],
    in_place: bool = False,
) -> list[Tensor]:
    """Returns what `tape.gradient` would without `noted_lookups`, dense.

    Args:
        tape: that has recorded the loss.
        loss: float scalar.
        variables: Keras variables; what the loss does not depend on gets 0.
        lookups: what `noted_lookups` has yielded.
        in_place: whether to save a copy by an operation that XLA has not.

    Returns:
        A tensor for each variable, in its shape.
    """
    found, to_rows = tape.gradient(
        loss, ([v.value for v in variables], [x.rows for x in lookups])
    )
    read = [
        (lookup, tf.convert_to_tensor(to_row))
        for lookup, to_row in zip(lookups, to_rows, strict=True)
        if to_row is not None
    ]

    def dense(variable: Any, gradient: Any) -> Tensor:
        here = [(a.token_ids, g) for a, g in read if a.table is variable]
        if not here:
            if gradient is None:
                return tf.zeros(variable.shape, variable.dtype)
            return tf.convert_to_tensor(gradient)
        width = variable.shape[-1]
        ids = tf.concat([tf.reshape(i, [-1]) for i, _ in here], axis=0)
        rows = tf.concat([tf.reshape(g, [-1, width]) for _, g in here], axis=0)
        if gradient is None:
            return tf.math.unsorted_segment_sum(rows, ids, variable.shape[0])
        add = tf.tensor_scatter_nd_add
        if in_place:
            add = tf.raw_ops.ScatterNdNonAliasingAdd
            return add(input=gradient, indices=ids[:, None], updates=rows)
        return add(tf.convert_to_tensor(gradient), ids[:, None], rows)

    return [
        dense(variable, gradient)
        for variable, gradient in zip(variables, found, strict=True)
    ]
