"""Iterations of `RLOO.fit` and `GRPO.fit`."""

from collections.abc import Mapping
from typing import Any

import keras

import tfrlhf
from benchmarks import shapes
from benchmarks.ours import models
from benchmarks.ours.ppo import Iterations
from benchmarks.ours.ppo import noted_phases
from benchmarks.ours.ppo import reward
from benchmarks.turns import Turns
from tfrlhf.rollout import GroupRelative
from tfrlhf.rollout import LeaveOneOut

WARM_UP = 2


TRAINERS = {
    "rloo": (tfrlhf.RLOO, LeaveOneOut),
    "grpo": (tfrlhf.GRPO, GroupRelative),
}


def run(
    turns: Turns,
    shape: str,
    trainer: str,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes an iteration a turn: a pass over a rollout, a KL, no values."""
    size = shapes.find(shape, changes)
    kind, estimator = TRAINERS[trainer]
    model = kind(models.policy(size), reward)
    model.compile(
        keras.optimizers.Adam(shapes.LEARNING_RATE),
        sampler=tfrlhf.Sampler(max_new_tokens=size.response),
        advantage=estimator(shapes.GROUP),
    )
    model.fit(
        models.texts(size, 8 * size.batch, size.prompt),
        batch_size=size.batch,
        epochs=10**6,
        callbacks=[Iterations(turns, WARM_UP, noted_phases(model))],
        verbose=0,
    )
