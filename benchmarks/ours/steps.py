"""Training steps of `SFT`, `RewardModel` and `DPO` inside `fit`."""

import time
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

import tfrlhf
from benchmarks import shapes
from benchmarks.ours import models
from benchmarks.turns import Finished
from benchmarks.turns import Turns
from tfrlhf.types import Examples
from tfrlhf.types import Preferences

BATCHES = 8
WARM_UP = 3


class Steps(keras.callbacks.Callback):
    """Holds training between steps until it is its turn."""

    def __init__(self, turns: Turns) -> None:
        super().__init__()
        self.turns = turns
        self.left = WARM_UP
        self.start = 0.0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """The step begins; it fetches its batch itself."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reports the step that ended and waits for the next."""
        taken = time.perf_counter() - self.start
        self.left -= 1
        if self.left < 0:
            self.turns.report({"step": taken})
        if self.left <= 0 and not self.turns.wait(models.awaken):
            raise Finished


def run(
    turns: Turns,
    shape: str,
    trainer: str,
    dtype: str = "float32",
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes a training step a turn.

    Args:
        turns: the driver.
        shape: a batch of which are examples, or pairs.
        trainer: "sft", "reward" or "dpo".
        dtype: a Keras dtype policy.
        changes: fields of the shape.
    """
    size = shapes.find(shape, changes)
    policy = models.policy(size, dtype)
    model: Any
    rows: Examples | Preferences
    if trainer == "sft":
        model, rows = tfrlhf.SFT(policy), examples(size)
    elif trainer == "reward":
        model, rows = tfrlhf.RewardModel.from_policy(policy), pairs(size)
    else:
        model, rows = tfrlhf.DPO(policy), pairs(size)
    model.compile(keras.optimizers.Adam(shapes.LEARNING_RATE))
    model.fit(
        rows,
        batch_size=size.batch,
        epochs=10**6,
        callbacks=[Steps(turns)],
        verbose=0,
    )


def examples(size: shapes.Shape) -> Examples:
    """Prompts with responses of full length, which are learnt."""
    ids = models.random_ids(size, BATCHES * size.batch, size.length)
    learnt = np.zeros_like(ids)
    learnt[:, size.prompt :] = 1
    return Examples(ids, np.ones_like(ids), learnt)


def pairs(size: shapes.Shape) -> Preferences:
    """Prompts with two responses of full length."""
    count = BATCHES * size.batch
    ids = models.random_ids(size, 2 * count, size.length)
    ids = ids.reshape(count, 2, size.length)
    ids[:, 1, : size.prompt] = ids[:, 0, : size.prompt]
    response = np.zeros_like(ids)
    response[:, :, size.prompt :] = 1
    ranks = np.tile(np.array([0, 1], np.int32), [count, 1])
    weight = np.ones(count, np.float32)
    return Preferences(
        ids, np.ones_like(ids), response, ranks, weight, 0 * weight
    )
