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

_wanted: ContextVar[bool] = ContextVar("packs_rows", default=False)


@contextmanager
def rows_are_packed(wanted: bool = True) -> Iterator[None]:
    """Lets `heads.hidden_states` pack the rows that it is given.

    Args:
        wanted: False where shapes must not depend on values, as for XLA.

    Example:
        >>> with rows_are_packed():
        ...     log_probs = policy.log_probs(token_ids, mask, where=mask)
    """
    token = _wanted.set(wanted)
    try:
        yield
    finally:
        _wanted.reset(token)


def packs(backbone: keras.Model) -> bool:
    """Tells whether the rows of a backbone's batches are to be packed."""
    return _wanted.get() and packing.is_known(backbone)


class PackedRows(NamedTuple):
    """Where the tokens of a batch of B sequences lie in R rows.

    Attributes:
        token_ids: int32 [R, S], 0 where no token lies.
        padding_mask: int32 [R, S].
        segments: int32 [R, S], the number of the sequence, -1 for none.
        positions: int32 [R, S], of the token in its sequence.
        rows: int32 [B], the row of each sequence.
        starts: int32 [B], where it begins in it.
    """

    token_ids: Tensor
    padding_mask: Tensor
    segments: Tensor
    positions: Tensor
    rows: Tensor
    starts: Tensor

    def moved(self, places: Tensor) -> Tensor:
        """Returns where tokens lie.

        Args:
            places: int [N, 2], sequence and position.

        Returns:
            int [N, 2], row and position in it.
        """
        sequence, position = tf.unstack(places, axis=1)
        rows, starts = (
            tf.cast(tf.gather(x, sequence), places.dtype)
            for x in (self.rows, self.starts)
        )
        # A sequence without a token may begin where its row ends.
        last = tf.shape(self.token_ids, places.dtype)[1] - 1
        return tf.stack([rows, tf.minimum(starts + position, last)], axis=1)

    def unpacked(self, hidden: Tensor) -> Tensor:
        """Lays states out as the sequences were.

        Args:
            hidden: float [R, S, H].

        Returns:
            float [B, S, H]; what is no token's has no meaning, and no
            gradient.
        """
        width = tf.shape(hidden)[1]
        depth = hidden.shape[-1]
        place = self.segments * width + self.positions
        is_token = tf.reshape(self.padding_mask > 0, [-1])
        source = tf.where(is_token, tf.reshape(place, [-1]), 0)
        target = (self.rows * width + self.starts)[:, None] + tf.range(width)
        # Past the end of the last row, of a sequence that is not as wide.
        target = tf.minimum(tf.reshape(target, [-1]), tf.size(place) - 1)

        @tf.custom_gradient
        def spread(states: Tensor) -> Any:
            def gradient(upstream: Tensor) -> Tensor:
                # Each state has been read once: no sum over those who read.
                found = tf.gather(upstream, source)
                return tf.where(is_token[:, None], found, 0)

            return tf.gather(states, target), gradient

        found = spread(tf.reshape(hidden, [-1, depth]))
        return tf.reshape(found, [-1, width, depth])


def packed_rows(token_ids: Tensor, padding_mask: Tensor) -> PackedRows:
    """Packs sequences, the longest first, each where there is room first.

    Args:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S], right-padded.

    Returns:
        `PackedRows`, at most B rows.
    """
    count, width = tf.unstack(tf.shape(token_ids))
    lengths = tf.reduce_sum(padding_mask, axis=-1)
    rows, starts = _places(lengths, width)
    step = -(-count // COUNTS)
    used = tf.reduce_max(rows) + 1
    used = tf.minimum(-(-used // step) * step, count)
    token = tf.where(tf.sequence_mask(lengths, width))
    where = tf.cast(token, tf.int32)
    sequence, position = tf.unstack(where, axis=1)
    target = tf.stack(
        [
            tf.gather(rows, sequence),
            tf.gather(starts, sequence) + position,
        ],
        axis=1,
    )
    shape = tf.stack([used, width])
    segments = tf.scatter_nd(target, sequence + 1, shape) - 1
    return PackedRows(
        tf.scatter_nd(target, tf.gather_nd(token_ids, token), shape),
        tf.cast(segments >= 0, tf.int32),
        segments,
        tf.scatter_nd(target, position, shape),
        rows,
        starts,
    )


def _places(lengths: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the row and the start in it of each length, int32 [B]."""
    order = tf.argsort(lengths, direction="DESCENDING", stable=True)
    nothing = tf.zeros_like(lengths)

    def place(
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

    _, _, rows, starts = tf.while_loop(
        lambda i, *_: i < tf.size(lengths),
        place,
        (0, nothing + width, nothing, nothing),
        parallel_iterations=1,
    )
    return rows, starts
