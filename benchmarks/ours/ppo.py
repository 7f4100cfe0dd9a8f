"""Iterations of `PPO.fit`, whole and by phase."""

import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

import tfrlhf
from benchmarks import shapes
from benchmarks.ours import models
from benchmarks.turns import Finished
from benchmarks.turns import Turns


class TimedPPO(tfrlhf.PPO):
    """PPO that notes what its phases take."""

    def rollout(self, *args: Any, **kwargs: Any) -> Any:
        """See `PPO`."""
        return self._timed("rollout", super().rollout, *args, **kwargs)

    def collect(self, *args: Any, **kwargs: Any) -> Any:
        """See `PPO`."""
        return self._timed("collect", super().collect, *args, **kwargs)

    def update(self, *args: Any, **kwargs: Any) -> Any:
        """See `PPO`."""
        return self._timed("update", super().update, *args, **kwargs)

    def _timed(self, name: str, phase: Any, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = phase(*args, **kwargs)
        self.taken[name] = time.perf_counter() - start
        return result


class Iterations(keras.callbacks.Callback):
    """Holds training between iterations until it is its turn."""

    def __init__(self, turns: Turns, warm_up: int) -> None:
        super().__init__()
        self.turns = turns
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
                    **self.model.taken,
                    "mean length": float(
                        tf.reduce_mean(tf.cast(lengths, tf.float32))
                    ),
                    "longest": float(tf.reduce_max(lengths)),
                }
            )
        if not self.turns.wait():
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
        changes: fields of the shape.
    """
    tf.config.threading.set_intra_op_parallelism_threads(threads[0])
    tf.config.threading.set_inter_op_parallelism_threads(threads[1])
    size = shapes.find(shape, changes)
    with strategy(replicas).scope():
        ppo = make(size, dtype, shared, ragged)
    ppo.fit(
        models.texts(size, 8 * size.batch, size.prompt),
        batch_size=size.batch,
        epochs=10**6,
        callbacks=[Iterations(turns, warm_up)],
        verbose=0,
    )


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
    size: shapes.Shape, dtype: str, shared: bool, ragged: bool
) -> TimedPPO:
    """Builds and compiles; the reward costs next to nothing."""
    policy = models.policy(size, dtype, ragged)
    ppo = TimedPPO(
        policy,
        reward=lambda prompts, responses: [
            float(len(r) % 7) for r in responses
        ],
        value=tfrlhf.ValueModel.from_policy(policy, share_trunk=shared),
    )
    ppo.taken = {}
    ppo.compile(
        keras.optimizers.Adam(shapes.LEARNING_RATE),
        sampler=tfrlhf.Sampler(
            max_new_tokens=size.response,
            stop_token_ids=None if ragged else (),
        ),
        kl=tfrlhf.FixedKL(0.05),
        update_epochs=4,
    )
    return ppo
