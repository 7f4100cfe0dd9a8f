"""Sampling with transformers: a response, and one token."""

import time
from collections.abc import Mapping
from typing import Any

import torch

from benchmarks import shapes
from benchmarks.peers import models
from benchmarks.turns import Turns


def run(
    turns: Turns,
    shape: str,
    ragged: bool = False,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Samples a batch a turn.

    Args:
        turns: when to work.
        shape: the name of the shape.
        ragged: whether responses end by themselves.
        changes: to fields of the shape.
    """
    size = shapes.find(shape, changes)
    model = models.language_model(size, ends=ragged).eval()
    if ragged:
        models.end_at_random(model, size)
    ids = torch.tensor(models.random_ids(size, size.batch, size.prompt)).long()
    mask = torch.ones_like(ids)

    @torch.inference_mode()
    def sample(tokens: int) -> float:
        start = time.perf_counter()
        model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=tokens,
            min_new_tokens=None,
        )
        return time.perf_counter() - start

    for _ in range(2):
        sample(size.response)
        sample(1)
    while turns.wait(models.awaken):
        turns.report({"generate": sample(size.response), "first": sample(1)})
