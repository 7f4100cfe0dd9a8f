"""The prompts of a run as batches of records, in an order that repeats."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrlhf.rollout import as_records


class PromptBatches:
    """Batches of prompt records.

    Args:
        prompts: strings or lists of messages, or records `{"prompt": ...,
            **columns}` with one of them.
        batch_size: records of a batch; the last one may be shorter.
        seed: int; the order is a permutation of (seed, epoch).

    Example:
        >>> len(PromptBatches(["a", "b", "c"], batch_size=2, seed=0))
        2
    """

    def __init__(
        self, prompts: Sequence[Any], batch_size: int, seed: int
    ) -> None:
        if batch_size < 1:
            raise ValueError(
                "`batch_size` must be at least 1. Received: "
                f"batch_size={batch_size}"
            )
        self.records = as_records(prompts)
        self.rows = len(self.records)
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[list[dict[str, Any]]]:
        """Yields the batches of an epoch in its own order."""
        generator = np.random.default_rng((self.seed, epoch))
        order = generator.permutation(self.rows).tolist()
        for start in range(0, self.rows, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield [self.records[i] for i in chosen]
