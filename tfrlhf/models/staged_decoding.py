"""Decoding that goes on with fewer rows when most have stopped.

A compiled loop has as many rows as it began with: the last one to stop makes
all others wait. So it is left early, and what goes on is a smaller loop.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfrlhf.models.decode_loop import SPARED
from tfrlhf.models.decode_loop import Standing
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Tensor

# Halves are compiled twice as often, and with 16 rows slower than quarters.
SHRINK = 4
# Fewer rows than this take hardly less time than these.
FEWEST_ROWS = 4


class StagedDecoder:
    """Continues prompts in compiled stages of fewer and fewer rows.

    Each row draws the tokens that it would draw in one stage. The stages after
    the first are compiled when a batch first needs them; inside of a graph
    there is but one.

    Args:
        until: from `Prompts` or `Standing`, draws [B, T] and a number of rows
            to what `decode_until` returns.
        compiled: compiles a function of tensors.

    Attributes:
        stage: the compiled stage.
        whole: the compiled loop of all rows, for graphs.
    """

    def __init__(
        self,
        until: Callable[..., tuple[Completions, Standing]],
        compiled: Callable[[Any], Any],
    ) -> None:
        def whole(prompts: Prompts, draws: Tensor) -> Completions:
            return until(prompts, draws, 0)[0]

        def stage(
            begin: Prompts | Standing, draws: Tensor
        ) -> tuple[Completions, Tensor, Standing]:
            few = _rows_after(draws)
            completions, standing = until(begin, draws, few)
            return completions, *_first_active(standing, few)

        self.whole = compiled(whole)
        self.stage = compiled(stage)

    def __call__(self, prompts: Prompts, draws: Tensor) -> Completions:
        """Returns the `Completions` of `Prompts` and draws [B, T]."""
        if tf.inside_function():
            return self.whole(prompts, draws)
        completions, rows, standing = self.stage(prompts, draws)
        while tf.reduce_any(standing.active):
            left = tf.gather(draws, rows)
            found, chosen, standing = self.stage(standing, left)
            completions = _updated(completions, rows, found)
            rows = tf.gather(rows, chosen)
        return completions


def _rows_after(draws: Tensor) -> Tensor:
    """Returns how many rows a stage leaves to the next one."""
    rows, limit = tf.unstack(tf.shape(draws))
    few = rows // SHRINK
    pays = (few >= FEWEST_ROWS) & (limit * (rows - few) >= SPARED)
    return tf.where(pays, few, 0)


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
