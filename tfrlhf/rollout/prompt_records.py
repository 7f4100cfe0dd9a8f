"""Prompts as records, and what reward functions are given of them."""

from collections.abc import Sequence
from typing import Any


def as_records(prompts: Sequence[Any]) -> list[dict[str, Any]]:
    """Makes every prompt a record.

    Args:
        prompts: strings, or records `{"prompt": ..., **columns}`.

    Returns:
        As many records.

    Raises:
        ValueError: no prompts, one string instead of a list, or a prompt that
            is blank or neither string nor record.
    """
    if isinstance(prompts, str):
        raise ValueError(
            "`prompts` must be a list of strings or records. Received one "
            "string: put it in a list."
        )
    records = [_as_record(i, p) for i, p in enumerate(prompts)]
    if not records:
        raise ValueError("`prompts` is empty: give at least one prompt.")
    return records


def as_columns(
    records: list[dict[str, Any]],
) -> tuple[list[str], dict[str, list[Any]]]:
    """Splits records into prompts and columns.

    Args:
        records: records `{"prompt": ..., **columns}`.

    Returns:
        The prompts, and each column that every record has as a list. Names
        that start with an underscore are the project's own and left out.
    """
    names = set(records[0]).intersection(*records[1:]) - {"prompt"}
    columns = {
        name: [record[name] for record in records]
        for name in sorted(names)
        if not name.startswith("_")
    }
    return [record["prompt"] for record in records], columns


def _as_record(index: int, prompt: Any) -> dict[str, Any]:
    record = {"prompt": prompt} if isinstance(prompt, str) else prompt
    if not isinstance(record, dict) or not isinstance(
        record.get("prompt"), str
    ):
        raise ValueError(
            f"Prompt {index} must be a string or a record with a string "
            f"`prompt`. Received: {prompt!r}"
        )
    if not record["prompt"].strip():
        raise ValueError(
            f"Prompt {index} is empty: every prompt needs some text."
        )
    return record
