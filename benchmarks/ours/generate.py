"""Sampling: a response, and one token, which is what reading a prompt takes."""

import itertools
import time
from collections.abc import Mapping
from typing import Any

import tfrlhf
from benchmarks import shapes
from benchmarks.ours import models
from benchmarks.turns import Turns


def run(
    turns: Turns,
    shape: str,
    dtype: str = "float32",
    ragged: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Samples a batch a turn.

    Args:
        turns: when to work.
        shape: the name of the shape.
        dtype: a Keras dtype policy.
        ragged: whether responses end by themselves.
        changes: to fields of the shape.
    """
    size = shapes.find(shape, changes)
    policy = models.policy(size, dtype, ragged)
    prompts = models.prompts(size)
    sampler = tfrlhf.Sampler(stop_token_ids=None if ragged else ())

    def sample(tokens: int, seed: int) -> float:
        start = time.perf_counter()
        found = policy.generate(prompts, tokens, sampler, seed=seed)
        found.token_ids.numpy()
        return time.perf_counter() - start

    def turn(seed: int) -> dict[str, float]:
        return {
            "generate": sample(size.response, seed),
            "first": sample(1, seed),
        }

    # Ragged rows become fewer and fewer; each number of them is compiled.
    warm_up = 5 if ragged else 2
    for seed in range(warm_up):
        turn(seed)
    seeds = itertools.count(warm_up)
    while turns.wait(models.awaken):
        turns.report(turn(next(seeds)))
