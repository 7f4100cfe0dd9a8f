"""Records from files: one JSON object a line, and the checks of its fields.

Knows lines, fields and their types; nothing of tokens. Every complaint is one
sentence that begins with the place of the record.
"""

import gzip
import json
import os
import reprlib
import warnings
import zlib
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from typing import TypeAlias
from typing import TypeVar

import numpy as np

Record: TypeAlias = dict[str, Any]
Item = TypeVar("Item")
Row = TypeVar("Row")

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)


class DataError(ValueError):
    """A record that cannot be used; the message names where it is and why."""


def read_jsonl(
    path: str | os.PathLike[str],
    required: tuple[str, ...] = ("prompt",),
    skip_bad: bool = False,
) -> list[Record]:
    r"""Reads a .jsonl or .jsonl.gz file, one JSON object a line.

    Blank lines are passed over. A `prompt` must be a text that is not blank;
    the other fields are checked by the function that turns them into ids.

    Args:
        path: The file, UTF-8.
        required: The fields that every record must have.
        skip_bad: Leave bad lines out, with a warning that counts them.

    Returns:
        The records in file order, each with its origin ("a.jsonl:12") under
        the key "_where".

    Raises:
        DataError: A missing or empty file, or the first bad line.

    Example:
        >>> _ = Path("a.jsonl").write_text('{"prompt": "Once"}\n')
        >>> read_jsonl("a.jsonl")
        [{'prompt': 'Once', '_where': 'a.jsonl:1'}]
    """

    def parse(where: str, line: bytes) -> Record:
        return parse_record(where, line, required)

    return build_each(numbered_lines(path), parse, skip_bad)


def numbered_lines(
    path: str | os.PathLike[str],
) -> Iterator[tuple[str, bytes]]:
    """Yields ("path:number", line) for each line that is not blank."""
    path = Path(path)
    if not path.is_file():
        raise DataError(
            f"{path} is not a file: give the path of a .jsonl or .jsonl.gz "
            "file that exists."
        )
    if not path.name.endswith((".jsonl", ".jsonl.gz")):
        raise DataError(
            f"{path} has an ending that is not read here: convert it to "
            ".jsonl or .jsonl.gz, one JSON object a line."
        )
    empty = True
    open_file = gzip.open if path.suffix == ".gz" else open
    try:
        # Bytes, because text mode reports bad UTF-8 without its line.
        with open_file(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    empty = False
                    yield f"{path}:{number}", line
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            f"{path} is not a complete gzip file ({error}): fetch or compress "
            "it again."
        ) from error
    if empty:
        raise DataError(f"{path} is empty: write one JSON object a line.")


def numbered_records(
    records: Iterable[Record],
) -> Iterator[tuple[str, Record]]:
    """Yields (place, record); "record 17" is `records[17]`."""
    empty = True
    for index, record in enumerate(records):
        if not isinstance(record, dict):
            raise DataError(
                f"record {index} must be a dict of fields, not "
                f"{reprlib.repr(record)}: give a list of dicts, or read the "
                "file with read_jsonl."
            )
        empty = False
        yield record.get("_where", f"record {index}"), record
    if empty:
        raise DataError("`records` is empty: give at least one record.")


def build_each(
    items: Iterable[tuple[str, Item]],
    build: Callable[[str, Item], Row],
    skip_bad: bool,
) -> list[Row]:
    """Builds one row of each item; bad ones raise, or are skipped and counted.

    The warning points at the caller of the function that called this one.
    """
    rows: list[Row] = []
    reasons: list[str] = []
    for where, item in items:
        try:
            rows.append(build(where, item))
        except DataError as error:
            if not skip_bad:
                raise
            reasons.append(str(error))
    if not rows:
        raise DataError(
            f"all of the {len(reasons)} records are bad, the first because "
            f"{reasons[0]}"
        )
    if reasons:
        warnings.warn(
            f"skipped {len(reasons)} bad records of "
            f"{len(rows) + len(reasons)}, the first because {reasons[0]}",
            stacklevel=3,
        )
    return rows


def parse_record(where: str, line: bytes, required: tuple[str, ...]) -> Record:
    """Returns the JSON object of a line with the fields it must have."""
    try:
        record = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: the line is not UTF-8 at byte {error.start}: save the "
            "file as UTF-8."
        ) from error
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: the line is not valid JSON ({error.msg}, column "
            f"{error.colno}): write one JSON object a line."
        ) from error
    if not isinstance(record, dict):
        raise DataError(
            f"{where}: the line holds {reprlib.repr(record)} and not a JSON "
            'object: write {"field": value, ...}.'
        )
    for field in required:
        require(where, record, field)
    if "prompt" in required:
        text_field(where, record, "prompt")
    record["_where"] = where
    return record


def require(where: str, record: Record, field: str) -> Any:
    """Returns the value of a field that must be there."""
    if field not in record:
        present = ", ".join(f"`{name}`" for name in record if name != "_where")
        raise DataError(
            f"{where}: the field `{field}` is missing: add it to the fields "
            f"that are there ({present or 'none'})."
        )
    return record[field]


def text_field(
    where: str, record: Record, field: str, may_be_blank: bool = False
) -> str:
    """Returns the text of a field that must be there."""
    return check_text(where, field, require(where, record, field), may_be_blank)


def check_text(
    where: str, field: str, value: Any, may_be_blank: bool = False
) -> str:
    """Returns `value` if it is a text that can be tokenised."""
    if not isinstance(value, str):
        raise DataError(
            f"{where}: `{field}` must be a string, not {reprlib.repr(value)}: "
            "write the text in quotes."
        )
    if not may_be_blank and not value.strip():
        raise DataError(
            f"{where}: `{field}` is blank: write its text or delete the record."
        )
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        # JSON may hold "\ud83d" alone, which no tokenizer takes.
        raise DataError(
            f"{where}: `{field}` holds half a character (a lone surrogate) at "
            f"position {error.start}: write the whole character or delete it."
        ) from error
    return value


def number_field(where: str, record: Record, field: str) -> float:
    """Returns the number of a field that must be there."""
    value = require(where, record, field)
    numeric = isinstance(value, int | float | np.integer | np.floating)
    # NaN compares false, and integers of any size compare exactly.
    if (
        isinstance(value, bool)
        or not numeric
        or not abs(value) <= LARGEST_FLOAT32
    ):
        raise DataError(
            f"{where}: `{field}` must be a finite number, not "
            f"{reprlib.repr(value)}: write a number such as 0.5."
        )
    return float(value)


def weight_field(where: str, record: Record) -> float:
    """Returns the optional weight of a record, 1 without one."""
    if "weight" not in record:
        return 1.0
    weight = number_field(where, record, "weight")
    if weight < 0:
        raise DataError(
            f"{where}: `weight` must not be negative, not {weight}: write 0 "
            "to leave the record out."
        )
    return weight


def margin_field(where: str, record: Record) -> float:
    """Returns the optional margin of a comparison, 0 without one."""
    if "margin" not in record:
        return 0.0
    margin = number_field(where, record, "margin")
    if margin < 0:
        raise DataError(
            f"{where}: `margin` must not be negative, not {margin}: the first "
            "of the ranks is the better one."
        )
    return margin
