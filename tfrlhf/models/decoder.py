"""Decoding outside of graphs, where the lengths of rows are known.

A compiled loop has as many rows as it began with, and begins where its
shortest prompt ends: a row waits for longer prompts and longer responses than
its own. So prompts are decoded in runs of similar length where that is less
work, and a loop is left when most of its rows have stopped: what goes on is a
smaller one.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tfrlhf.data import batches_by_length
from tfrlhf.models.decode_loop import Standing
from tfrlhf.models.decoding import DecodeWeights
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Tensor

# Halves are compiled twice as often, and with 16 rows slower than quarters.
SHRINK = 4
# Fewer rows than this take hardly less time than these.
FEWEST_ROWS = 4
# Rows of a run. A step of n rows takes about as long as n and some more rows.
RUN, MORE = 16, 12
# Of the work, that runs have to spare.
WORTH = 0.2
# Operations that a smaller loop has to spare a batch, because it is compiled
# anew: half a second of two processors, for two seconds once.
SPARED = 3e10


class Decoder:
    """Continues prompts with compiled loops that waste few rows.

    Each row draws the tokens that it would draw in one loop of all rows. What
    a loop needs is compiled when a batch first needs it. Inside of a graph, and
    on a GPU, where few rows take about as long as many, there is but one loop.

    Args:
        until: `decode_until` of a model and its settings.
        weights: returns `decode_weights` of the model.
        compiled: compiles a function of tensors.
        pad_id: what follows a response.
        work: operations that a token takes.

    Attributes:
        weights: prepares the weights as they are.
        stage: the compiled loop, which may leave rows to another one.
        whole: the compiled loop of all rows.
    """

    def __init__(
        self,
        until: Callable[..., tuple[Completions, Standing]],
        weights: Callable[[], DecodeWeights],
        compiled: Callable[[Any], Any],
        pad_id: int,
        work: int,
    ) -> None:
        def whole(
            prompts: Prompts, draws: Tensor, prepared: DecodeWeights
        ) -> Completions:
            return until(prompts, draws, lambda left: 0, prepared)[0]

        def stage(
            begin: Prompts | Standing, draws: Tensor, prepared: DecodeWeights
        ) -> tuple[Completions, Tensor, Standing]:
            rows = tf.shape(draws)[0]
            few = functools.partial(self._rows_after, rows)
            completions, standing = until(begin, draws, few, prepared)
            most = self._rows_after(rows, tf.shape(standing.token_ids)[1])
            return completions, *_first_active(standing, most)

        self.weights = tf.function(weights, autograph=False)
        self.whole = compiled(whole)
        self.stage = compiled(stage)
        self.pad_id = pad_id
        # As tokens.
        self._spared = min(math.ceil(SPARED / work), tf.int32.max)

    def __call__(self, prompts: Prompts, draws: Tensor) -> Completions:
        """Continues prompts.

        Args:
            prompts: `Prompts` of P rows.
            draws: float32 [B, T], see `decode`.

        Returns:
            `Completions` of B rows.
        """
        if tf.inside_function() or _on_gpu():
            return self.whole(prompts, draws, self.weights())
        weights = self.weights()
        each = draws.shape[0] // len(prompts.token_ids)
        size = max(RUN // each, 1)
        lengths = np.asarray(prompts.padding_mask).sum(axis=1)
        spared = _spared_by_length(lengths, each, size, draws.shape[1])
        if spared < self._spared:
            return self._in_stages(prompts, draws, weights)
        width = prompts.token_ids.shape[1] + draws.shape[1]
        order, found = [], []
        for rows, run in batches_by_length(prompts, size):
            # A short run would be compiled anew.
            full = np.pad(np.arange(len(rows)), (0, size - len(rows)), "edge")
            run = Prompts(*(tf.constant(x[full]) for x in run))
            chosen = _rows_of(rows[full], each)
            part = self._in_stages(run, tf.gather(draws, chosen), weights)
            order.append(chosen[: len(rows) * each])
            found.append(self._widened(part, len(rows) * each, width))
        place = np.argsort(np.concatenate(order))
        joined = (tf.concat(x, axis=0) for x in zip(*found, strict=True))
        return Completions(*(tf.gather(x, place) for x in joined))

    def _in_stages(
        self, prompts: Prompts, draws: Tensor, weights: DecodeWeights
    ) -> Completions:
        completions, rows, standing = self.stage(prompts, draws, weights)
        while tf.reduce_any(standing.active):
            left = tf.gather(draws, rows)
            found, chosen, standing = self.stage(standing, left, weights)
            completions = _updated(completions, rows, found)
            rows = tf.gather(rows, chosen)
        return completions

    def _rows_after(self, rows: Tensor, left: Tensor) -> Tensor:
        """Returns how many rows a loop leaves with so many positions to go."""
        few = rows // SHRINK
        pays = (few >= FEWEST_ROWS) & (left * (rows - few) >= self._spared)
        return tf.where(pays, few, 0)

    def _widened(
        self, completions: Completions, rows: int, width: int
    ) -> Completions:
        """Returns the first rows, with as many columns as all runs get."""
        token_ids = completions.token_ids
        room = [[0, 0], [0, width - token_ids.shape[1]]]
        wide = Completions(
            *(tf.pad(x, room) if x.shape.rank == 2 else x for x in completions)
        )
        padded = tf.pad(token_ids, room, constant_values=self.pad_id)
        return Completions(*(x[:rows] for x in wide._replace(token_ids=padded)))


def _on_gpu() -> bool:
    return bool(tf.config.list_physical_devices("GPU"))


def _spared_by_length(
    lengths: NDArray[np.int32], each: int, size: int, limit: int
) -> int:
    """Returns the tokens that runs of similar length spare, 0 for too few."""
    lengths = np.sort(lengths)
    starts = range(0, len(lengths), size)
    spread = [np.ptp(lengths[start : start + size]) for start in starts]
    runs = int(sum(spread)) + len(starts) * limit
    at_once = (len(lengths) * each + MORE) * (int(np.ptp(lengths)) + limit)
    spared = at_once - (size * each + MORE) * runs
    return spared if spared > WORTH * at_once else 0


def _rows_of(prompts: NDArray[np.int64], each: int) -> NDArray[np.int64]:
    """Returns the rows of draws that belong to prompts."""
    return (prompts[:, None] * each + np.arange(each)).reshape(-1)


def _first_active(standing: Standing, count: Tensor) -> tuple[Tensor, Standing]:
    """Returns the active rows, filled up to `count` with others."""
    stopped = tf.cast(~standing.active, tf.int32)
    rows = tf.argsort(stopped, stable=True)[:count]
    index = standing.index
    standing = tf.nest.map_structure(
        lambda x: tf.gather(x, rows), standing._replace(index=rows)
    )
    return rows, standing._replace(index=index)


def _updated(
    completions: Completions, rows: Tensor, found: Completions
) -> Completions:
    pairs = zip(completions, found, strict=True)
    return Completions(
        *(
            tf.tensor_scatter_nd_update(old, rows[:, None], new)
            for old, new in pairs
        )
    )
