"""Sequences of a batch side by side in fewer rows, while a model reads them.

A batch is as wide as its longest sequence, and what the shorter ones leave is
computed for nothing. Inside the model a row can hold several of them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from tfrlhf.models import packing
from tfrlhf.types import Tensor

# Most numbers of rows that batches of one size are packed into, as layers are
# compiled for each.
COUNTS = 16
# Widths of rows that are tried, up to twice the longest sequence.
WIDTHS = 9

# The batches that were packed so far, by graph, ids and mask, with these.
_known: ContextVar[dict[Any, Any] | None] = ContextVar("packed", default=None)


@contextmanager
def rows_are_packed(wanted: bool = True) -> Iterator[None]:
    """Lets `heads.hidden_states` pack the rows that it is given.

    Models that read the same tensors inside the block share their rows.

    Args:
        wanted: False where shapes must not depend on values, as for XLA.

    Example:
        >>> with rows_are_packed():
        ...     log_probs = policy.log_probs(token_ids, mask, where=mask)
    """
    token = _known.set({} if wanted else None)
    try:
        yield
    finally:
        _known.reset(token)


def packed_for(
    backbone: keras.Model, token_ids: Tensor, padding_mask: Tensor
) -> "PackedRows | None":
    """Packs the rows of a batch, if that is wanted and known to be right.

    Args:
        backbone: that reads them.
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S], right-padded.

    Returns:
        `PackedRows`; None to read the batch as it is.
    """
    known = _known.get()
    alone = token_ids.shape[0] in (0, 1)
    if known is None or alone or not packing.is_known(backbone):
        return None
    size = int(backbone.output.shape[-1])
    graph = tf.compat.v1.get_default_graph()
    inputs = graph, token_ids, padding_mask
    name = (*map(id, inputs), size)
    if name not in known:
        # With its inputs, so that no others get their ids.
        known[name] = packed_rows(token_ids, padding_mask, size), inputs
    packed: PackedRows = known[name][0]
    return packed


class PackedRows(NamedTuple):
    """The tokens of a batch [B, S] in R rows of W.

    Attributes:
        token_ids: int32 [R, W], 0 where no token lies.
        padding_mask: int32 [R, W].
        segments: int32 [R, W], the number of the sequence, -1 for none.
        positions: int32 [R, W], of the token in its sequence.
        places: int32 [B, S], where each token lies, row · W + position in it;
            any place for what is no token.
    """

    token_ids: Tensor
    padding_mask: Tensor
    segments: Tensor
    positions: Tensor
    places: Tensor

    def moved(self, places: Tensor) -> Tensor:
        """Returns where tokens lie, int [N, 2].

        Args:
            places: int [N, 2], sequence and position in it.
        """
        width = tf.shape(self.token_ids)[1]
        found = tf.gather_nd(self.places, places)
        moved = tf.stack([found // width, found % width], axis=1)
        return tf.cast(moved, places.dtype)

    def unpacked(self, hidden: Tensor) -> Tensor:
        """Lays states out as the sequences were.

        Args:
            hidden: float [R, W, H].

        Returns:
            float [B, S, H]; what is no token's has no meaning and no gradient.
        """
        length, depth = tf.shape(self.places)[1], hidden.shape[-1]
        sources = tf.maximum(self.segments * length + self.positions, 0)
        is_token = self.padding_mask[..., None] > 0

        @tf.custom_gradient
        def spread(states: Tensor) -> Any:
            def gradient(upstream: Tensor) -> Tensor:
                # Each state is read once: there is no sum over those who read.
                upstream = tf.reshape(upstream, [-1, depth])
                return tf.where(is_token, tf.gather(upstream, sources), 0)

            states = tf.reshape(states, [-1, depth])
            return tf.gather(states, self.places), gradient

        return spread(hidden)


def packed_rows(
    token_ids: Tensor, padding_mask: Tensor, hidden_size: int
) -> PackedRows:
    """Packs sequences, the longest first, each where there is room first.

    Args:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S], right-padded.
        hidden_size: of the model that will read them.

    Returns:
        `PackedRows`, at most B rows, S to 2 · S wide.
    """
    lengths = tf.reduce_sum(padding_mask, axis=-1)
    length = tf.shape(padding_mask)[1]
    more = length * tf.range(WIDTHS) // (WIDTHS - 1)
    # In steps, so that fewer numbers of tokens are compiled.
    widths = tf.where(more > 0, -(-(length + more) // 16) * 16, length)
    layouts = _laid_out(lengths, widths)
    # Wide rows leave less empty, but a token's attention goes over more.
    costs = tf.cast(layouts.count * widths, tf.float32) * tf.cast(
        2 * hidden_size + widths, tf.float32
    )
    best = tf.argmin(costs)
    rows, starts, count, width = (x[best] for x in layouts)
    places = (rows * width + starts)[:, None] + tf.range(length)
    # A sequence that is not as long may be the last of the last row.
    places = tf.minimum(places, count * width - 1)
    tokens = tf.where(padding_mask > 0)
    targets = tf.gather_nd(places, tokens)[:, None]
    sequences, positions = tf.unstack(tf.cast(tokens, tf.int32), axis=1)

    def laid(x: Tensor) -> Tensor:
        found = tf.scatter_nd(targets, x, (count * width)[None])
        return tf.reshape(found, tf.stack([count, width]))

    segments = laid(sequences + 1) - 1
    return PackedRows(
        laid(tf.gather_nd(token_ids, tokens)),
        tf.cast(segments >= 0, tf.int32),
        segments,
        laid(positions),
        places,
    )


class _Layouts(NamedTuple):
    """Of each of J widths: where B sequences lie, and the rows that takes.

    Attributes:
        rows: int32 [J, B].
        starts: int32 [J, B], in these rows.
        count: int32 [J].
        width: int32 [J].
    """

    rows: Tensor
    starts: Tensor
    count: Tensor
    width: Tensor


def _laid_out(lengths: Tensor, widths: Tensor) -> _Layouts:
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    most = tf.size(lengths)
    room = tf.repeat(widths[:, None], most, axis=1)

    def lay(before: tuple[Tensor, ...], length: Tensor) -> tuple[Tensor, ...]:
        room, _, _ = before
        fits = tf.cast(room >= length, tf.int32)
        row = tf.argmax(fits, axis=1, output_type=tf.int32)
        start = widths - tf.gather(room, row, batch_dims=1)
        return room - length * tf.one_hot(row, most, dtype=tf.int32), row, start

    nothing = tf.zeros_like(widths)
    _, rows, starts = tf.scan(
        lay, tf.gather(lengths, order), (room, nothing, nothing)
    )
    # As the sequences were, with the widths first.
    back = tf.argsort(order)
    rows, starts = (tf.transpose(tf.gather(x, back)) for x in (rows, starts))
    # A part of a batch may have no rows at all.
    used = tf.maximum(tf.reduce_max(rows, axis=1) + 1, 0)
    step = tf.maximum(-(-most // COUNTS), 1)
    count = -(-used // step) * step
    return _Layouts(rows, starts, tf.minimum(count, most), widths)
