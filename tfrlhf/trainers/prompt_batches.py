"""The prompts of a run as batches of records, in an order that repeats."""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrlhf.data.messages import is_messages

# The column of prompts that are lists of messages.
MESSAGES = "messages"


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
        if isinstance(prompts, str):
            raise ValueError(
                "`prompts` must be a list of strings or records. Received one "
                "string: put it in a list."
            )
        if batch_size < 1:
            raise ValueError(
                "`batch_size` must be at least 1. Received: "
                f"batch_size={batch_size}"
            )
        self.records = [_as_record(i, p) for i, p in enumerate(prompts)]
        if not self.records:
            raise ValueError("`prompts` is empty: give at least one prompt.")
        self.rows = len(self.records)
        self.batch_size = batch_size
        self.seed = seed

    def __len__(self) -> int:
        return -(-self.rows // self.batch_size)

    def epoch(self, epoch: int) -> Iterator[list[dict[str, Any]]]:
        """Yields the batches of an epoch in its own order."""
        generator = np.random.default_rng((self.seed, epoch))
        return self._batches(generator.permutation(self.rows).tolist())

    def in_order(self) -> Iterator[list[dict[str, Any]]]:
        """Yields the batches in the order given."""
        return self._batches(list(range(self.rows)))

    def _batches(self, order: list[int]) -> Iterator[list[dict[str, Any]]]:
        for start in range(0, self.rows, self.batch_size):
            chosen = order[start : start + self.batch_size]
            yield [self.records[i] for i in chosen]


def as_columns(
    records: list[dict[str, Any]],
) -> tuple[list[Any], dict[str, list[Any]]]:
    """Splits records into prompts and columns.

    Args:
        records: records `{"prompt": ..., **columns}`.

    Returns:
        The prompts, and each column that every record has as a list; where
        all prompts are messages, they are the column `messages`. Names that
        start with an underscore are the project's own and left out.
    """
    names = set(records[0]).intersection(*records[1:]) - {"prompt"}
    columns = {
        name: [record[name] for record in records]
        for name in sorted(names)
        if not name.startswith("_")
    }
    prompts = [record["prompt"] for record in records]
    if all(is_messages(prompt) for prompt in prompts):
        columns[MESSAGES] = prompts
    return prompts, columns


def _as_record(index: int, prompt: Any) -> dict[str, Any]:
    bare = isinstance(prompt, str) or is_messages(prompt)
    record = {"prompt": prompt} if bare else prompt
    value = record.get("prompt") if isinstance(record, dict) else None
    if is_messages(value):
        if MESSAGES in record:
            raise ValueError(
                f"Prompt {index} is a list of messages, which reward functions "
                f"get as the column `{MESSAGES}`: rename the column of that "
                "name that it has already."
            )
        return record
    if not isinstance(value, str):
        raise ValueError(
            f"Prompt {index} must be a string, a list of messages, or a "
            f"record with one of them as `prompt`. Received: {prompt!r}"
        )
    if not value.strip():
        raise ValueError(
            f"Prompt {index} is empty: every prompt needs some text."
        )
    return record
