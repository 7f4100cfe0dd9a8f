"""Sampling: 64 tokens, and one token, which is what reading a prompt takes."""

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
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Samples a batch a turn, with no token that ends a response."""
    size = shapes.find(shape, changes)
    policy = models.policy(size, dtype)
    prompts = models.prompts(size)
    sampler = tfrlhf.Sampler(stop_token_ids=())
    seed = 0

    def sample(tokens: int) -> float:
        start = time.perf_counter()
        found = policy.generate(prompts, tokens, sampler, seed=seed)
        found.token_ids.numpy()
        return time.perf_counter() - start

    for _ in range(2):
        sample(size.response)
        sample(1)
    while turns.wait():
        seed += 1
        turns.report({"generate": sample(size.response), "first": sample(1)})
