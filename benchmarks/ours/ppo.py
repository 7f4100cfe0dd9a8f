"""Iterations of `PPO.fit`, whole and by phase."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import tfrlhf
from benchmarks import shapes
from benchmarks.ours import models
from benchmarks.turns import Finished
from benchmarks.turns import Turns

PHASES = ("rollout", "collect", "update")


def noted_phases(trainer: tfrlhf.PPO) -> dict[str, float]:
    """Makes a trainer note what its phases take, in the dict returned."""
    taken: dict[str, float] = {}

    def timed(name: str, phase: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = phase(*args, **kwargs)
            taken[name] = time.perf_counter() - start
            return result

        return run

    for name in PHASES:
        setattr(trainer, name, timed(name, getattr(trainer, name)))
    return taken


class Iterations(keras.callbacks.Callback):
    """Holds training between iterations until it is its turn."""

    def __init__(
        self, turns: Turns, warm_up: int, taken: dict[str, float]
    ) -> None:
        super().__init__()
        self.turns = turns
        self.taken = taken
        self.left = warm_up
        self.start = 0.0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Reports the iteration that ended and waits for the next."""
        now = time.perf_counter()
        self.left -= 1
        if self.left >= 0 and self.left:
            return
        if self.left < 0:
            lengths = tf.reduce_sum(
                self.model.last_iteration.rollout.response_mask, axis=-1
            )
            self.turns.report(
                {
                    "iteration": now - self.start,
                    **self.taken,
                    "mean length": float(
                        tf.reduce_mean(tf.cast(lengths, tf.float32))
                    ),
                    "longest": float(tf.reduce_max(lengths)),
                }
            )
        if not self.turns.wait(models.awaken):
            raise Finished
        self.start = time.perf_counter()


def run(
    turns: Turns,
    shape: str,
    dtype: str = "float32",
    shared: bool = False,
    ragged: bool = False,
    warm_up: int = 2,
    replicas: int = 1,
    threads: tuple[int, int] = (0, 0),
    xla: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes an iteration of PPO a turn.

    Args:
        turns: the driver.
        shape: of the models and the batch.
        dtype: a Keras dtype policy.
        shared: whether policy and value model have one trunk.
        ragged: whether responses end by themselves.
        warm_up: iterations before the first turn.
        replicas: logical CPUs.
        threads: inside an operation and for different ones; 0 for as many as
            there are processors.
        xla: whether XLA compiles more than the decode loop.
        changes: fields of the shape.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads[0])
    tf.config.threading.set_inter_op_parallelism_threads(threads[1])
    size = shapes.find(shape, changes)
    with strategy(replicas).scope():
        ppo = make(size, dtype, shared, ragged, xla)
    ppo.fit(
        models.texts(size, 8 * size.batch, size.prompt),
        batch_size=size.batch,
        epochs=10**6,
        callbacks=[Iterations(turns, warm_up, noted_phases(ppo))],
        verbose=0,
    )


def reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Scores that cost next to nothing."""
    return [float(len(r) % 7) for r in responses]


def strategy(replicas: int) -> tf.distribute.Strategy:
    """So many logical CPUs, or the default."""
    if replicas == 1:
        return tf.distribute.get_strategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * replicas,
    )
    return tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(replicas)])


def make(
    size: shapes.Shape,
    dtype: str,
    shared: bool = False,
    ragged: bool = False,
    xla: bool = False,
) -> tfrlhf.PPO:
    """Builds and compiles; the reward costs next to nothing."""
    policy = models.policy(size, dtype, ragged)
    ppo = tfrlhf.PPO(
        policy,
        reward,
        value=tfrlhf.ValueModel.from_policy(policy, share_trunk=shared),
    )
    ppo.compile(
        keras.optimizers.Adam(shapes.LEARNING_RATE),
        sampler=tfrlhf.Sampler(
            max_new_tokens=size.response,
            stop_token_ids=None if ragged else (),
        ),
        kl=tfrlhf.FixedKL(0.05),
        update_epochs=4,
        jit_compile=True if xla else "auto",
    )
    return ppo
