"""What a fresh process takes until it trains, by part.

Imports nothing before the clock runs.
"""

import os
import time

from benchmarks.driver import OUTPUT
from benchmarks.turns import Turns


def run(turns: Turns, shape: str, kept: bool = False) -> None:
    """Measures once: a process starts once.

    Args:
        turns: the driver.
        shape: of the models and the batch.
        kept: whether XLA keeps what it compiles, as in the recipes, but in
            build/bench.
    """
    if kept:
        os.environ["TF_XLA_FLAGS"] = (
            f"--tf_xla_persistent_cache_directory={OUTPUT / 'xla'} "
            "--tf_xla_persistent_cache_read_only=false"
        )
    turns.wait()
    marks = [time.perf_counter()]

    import keras_hub  # noqa: F401
    import tensorflow  # noqa: F401

    marks.append(time.perf_counter())

    import tfrlhf
    from benchmarks import shapes
    from benchmarks.ours import models
    from benchmarks.ours import ppo

    # Public names are loaded at their first use.
    _ = tfrlhf.PPO, tfrlhf.ValueModel
    marks.append(time.perf_counter())
    size = shapes.find(shape)
    trainer = ppo.make(size, "float32")
    texts = models.texts(size, size.batch, size.prompt)
    marks.append(time.perf_counter())
    for _ in range(2):
        trainer.fit(texts, batch_size=size.batch, verbose=0)
        marks.append(time.perf_counter())
    names = ("import base", "import package", "build", "first", "second")
    taken = {
        name: after - before
        for name, before, after in zip(
            names, marks[:-1], marks[1:], strict=True
        )
    }
    taken["to first step"] = marks[4] - marks[0]
    turns.report(taken)
    turns.wait()
