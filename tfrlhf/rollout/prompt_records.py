"""Prompts as records, and what reward functions are given of them."""

from collections.abc import Sequence
from typing import Any

from tfrlhf.data.messages import is_messages

# The column of prompts that are lists of messages.
MESSAGES = "messages"


def as_records(prompts: Sequence[Any]) -> list[dict[str, Any]]:
    """Makes every prompt a record.

    Args:
        prompts: strings or lists of messages, or records `{"prompt": ...,
            **columns}` with one of them.

    Returns:
        As many records.

    Raises:
        ValueError: no prompts, one string instead of a list, or a prompt that
            is blank or none of these.
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
