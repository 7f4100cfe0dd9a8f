"""What rewards are given, checked; without the import of TensorFlow."""

from collections.abc import Mapping
from typing import Any


def texts_of(
    reward: str, name: str, columns: Mapping[str, Any], rows: int
) -> list[list[str]]:
    """Reads a column of texts, one or several a row.

    Args:
        reward: who asks, for the message.
        name: the column.
        columns: the columns that came with the responses.
        rows: the number of responses.

    Returns:
        At least one text for each response.

    Raises:
        ValueError: the column is missing, has another number of rows, or has
            a value that is neither a text nor a list of them.

    Example:
        >>> texts_of("BLEU", "reference", {"reference": ["a", ["b", "c"]]}, 2)
        [['a'], ['b', 'c']]
    """
    values = column(reward, name, columns, rows)
    return [
        _texts(reward, name, row, value) for row, value in enumerate(values)
    ]


def at_least(name: str, value: float, low: float) -> None:
    """Refuses a setting that is too small, or not a number."""
    if not value >= low:
        raise ValueError(
            f"`{name}` must be at least {low}. Received: {name}={value}"
        )


def more_than(name: str, value: float, low: float) -> None:
    """Refuses a setting that is too small or at the bound."""
    if not value > low:
        raise ValueError(
            f"`{name}` must be more than {low}. Received: {name}={value}"
        )


def column(
    reward: str, name: str, columns: Mapping[str, Any], rows: int
) -> list[Any]:
    """Returns a column, or says that it is missing or too short or long."""
    if name not in columns:
        there = ", ".join(map(repr, sorted(columns))) or "none"
        raise ValueError(
            f"{reward} reads the column {name!r}, which the prompts' records "
            f"do not all have: add it, or name another one. Columns: {there}"
        )
    values = list(columns[name])
    if len(values) != rows:
        raise ValueError(
            f"{reward} needs one value of the column {name!r} for each "
            f"response. Received: {len(values)} values and {rows} responses."
        )
    return values


def _texts(reward: str, name: str, row: int, value: Any) -> list[str]:
    found = [value] if isinstance(value, str) else value
    if (
        not isinstance(found, list | tuple)
        or not found
        or not all(isinstance(text, str) for text in found)
    ):
        raise ValueError(
            f"{reward} needs a text, or a list of at least one, in the column "
            f"{name!r}. Received in row {row}: {value!r}"
        )
    return list(found)
