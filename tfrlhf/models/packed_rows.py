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
        `PackedRows`, at most B rows, S or 2 · S wide.
    """
    lengths = tf.reduce_sum(padding_mask, axis=-1)
    length = tf.shape(padding_mask)[1]
    # Twice the width has room for two where no two are short enough, but the
    # attention of a token goes over twice as much.
    narrow, wide = (_laid_out(lengths, width) for width in (length, 2 * length))
    costs = [
        x.count * x.width * (2 * hidden_size + x.width) for x in (narrow, wide)
    ]
    rows, starts, count, width = (
        tf.where(costs[1] < costs[0], y, x)
        for x, y in zip(narrow, wide, strict=True)
    )
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


class _Layout(NamedTuple):
    """Rows [B] and starts in them [B] of sequences; rows, and their width."""

    rows: Tensor
    starts: Tensor
    count: Tensor
    width: Tensor


def _laid_out(lengths: Tensor, width: Tensor) -> _Layout:
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    nothing = tf.zeros_like(lengths)

    def lay(
        i: Tensor, room: Tensor, rows: Tensor, starts: Tensor
    ) -> tuple[Tensor, ...]:
        which = order[i]
        length = lengths[which]
        fits = tf.cast(room >= length, tf.int32)
        row = tf.argmax(fits, output_type=tf.int32)
        start = width - room[row]
        return (
            i + 1,
            tf.tensor_scatter_nd_sub(room, [[row]], [length]),
            tf.tensor_scatter_nd_update(rows, [[which]], [row]),
            tf.tensor_scatter_nd_update(starts, [[which]], [start]),
        )

    most = tf.size(lengths)
    _, _, rows, starts = tf.while_loop(
        lambda i, *_: i < most,
        lay,
        (0, nothing + width, nothing, nothing),
        parallel_iterations=1,
    )
    # A part of a batch may have no rows at all.
    used = tf.maximum(tf.reduce_max(rows) + 1, 0)
    step = tf.maximum(-(-most // COUNTS), 1)
    count = -(-used // step) * step
    return _Layout(rows, starts, tf.minimum(count, most), width)
