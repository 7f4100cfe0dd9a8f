"""Responses in steps, each with its own rating, to StepRatings."""

import reprlib
from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.data.prompts import check_prompt
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.prompts import response_request
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import check_text
from tfrlhf.data.records import number_field
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.records import text_field
from tfrlhf.data.records import weight_field
from tfrlhf.data.tokens import Ids
from tfrlhf.data.tokens import Request
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import build_row
from tfrlhf.data.tokens import encoded_rows
from tfrlhf.types import StepRatings


class StepRow(NamedTuple):
    """A response in ids, with the places where its steps end."""

    prompt_ids: Ids
    response_ids: Ids
    ends: list[int]
    ratings: list[float]
    weight: float


class StepEncoder(NamedTuple):
    """Records of prompt, steps and ratings to `StepRatings`.

    Attributes:
        tokenizer: Gives the ids.
        max_length: The most tokens of a row.
        separator: What stands between two steps.
        separator_id: Its id.
    """

    tokenizer: TextTokenizer
    max_length: int
    separator: str
    separator_id: int

    def request(self, where: str, record: Record) -> Request:
        """Checks a record and says what to tokenise."""
        prompt = check_prompt(where, text_field(where, record, "prompt"))
        steps = _steps(where, record, self.separator)
        labels = _labels(where, record, len(steps))
        response = self.separator.join(steps)
        request = response_request(
            where, prompt, {"steps": response}, self.tokenizer
        )
        weight = weight_field(where, record)
        return request._replace(record=(*request.record, labels, weight))

    def row(self, where: str, request: Request, encoded: list[Ids]) -> StepRow:
        """Makes a row of the ids of the texts."""
        prompt, responses, ratings, weight = request.record
        prompt_ids, (ids,) = encode_responses(
            where,
            prompt,
            responses,
            self.tokenizer,
            self.max_length,
            encoded=encoded,
        )
        ends = [i for i, token in enumerate(ids) if token == self.separator_id]
        ends.append(len(ids) - 1)
        if len(ends) != len(ratings):
            raise DataError(
                f"{where}: the {len(ratings)} `steps` become {len(ends)} in "
                "tokens: the tokenizer joins the separator "
                f"{self.separator!r} with what is beside it; use another one."
            )
        return StepRow(prompt_ids, ids, ends, ratings, weight)

    def length(self, row: StepRow) -> int:
        """Returns the tokens of a row."""
        return len(row.prompt_ids) + len(row.response_ids)

    def stack(self, rows: Sequence[StepRow], bucket: int = 16) -> StepRatings:
        """Pads rows to `StepRatings` of NumPy arrays."""
        padded = padded_rows(
            [(row.prompt_ids, row.response_ids) for row in rows],
            self.tokenizer.pad_id,
            self.max_length,
            bucket,
        )
        rating = np.zeros(padded.token_ids.shape, np.float32)
        step_mask = np.zeros_like(padded.token_ids)
        for index, row in enumerate(rows):
            places = len(row.prompt_ids) + np.array(row.ends)
            rating[index, places] = row.ratings
            step_mask[index, places] = 1
        return StepRatings(
            *padded,
            step_mask=step_mask,
            rating=rating,
            weight=np.array([row.weight for row in rows], dtype=np.float32),
        )


def step_ratings(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_length: int,
    separator: str = "\n",
    skip_bad: bool = False,
) -> StepRatings:
    r"""Turns {"prompt", "steps", "labels"[, "weight"]} records into ids.

    The response is the steps with the separator between them; a step ends at
    the separator's token, the last one at EOS.

    Args:
        records: The records, with a number for each step, such as 1 for a
            right and 0 for a wrong one.
        tokenizer: Gives the ids; must have an EOS.
        max_length: The most tokens of prompt, response and EOS together.
        separator: A text that is one token, and in no step.
        skip_bad: Leave bad records out, with a warning that counts them.

    Returns:
        StepRatings of NumPy arrays, [B, S]. S is the longest row rounded up
        to a multiple of 16, and at most `max_length`.

    Raises:
        DataError: The first bad record.
        ValueError: A separator that is not one token.

    Example:
        >>> records = [{"prompt": "2+2+1=", "steps": ["4+1", "5"]} | {
        ...     "labels": [1, 1]
        ... }]
        >>> step_ratings(records, tokenizer, max_length=64).step_mask.sum()
        2
    """
    end_of_sequence(tokenizer, max_length)
    token_id = separator_id(tokenizer, separator)
    encoder = StepEncoder(tokenizer, max_length, separator, token_id)
    made = encoded_rows(numbered_records(records), encoder, tokenizer)
    return encoder.stack(build_each(made, build_row, skip_bad))


def separator_id(tokenizer: TextTokenizer, separator: str) -> int:
    """Returns the id of a text that is one token.

    Args:
        tokenizer: Gives the ids.
        separator: The text, as it stands after another one.

    Raises:
        ValueError: It is not one token.
    """
    _, ids, apart = tokenizer.encode_pair("a", separator)
    if len(ids) != 1 or not apart:
        raise ValueError(
            f"`separator` must be one token. Received: {separator!r}, which is "
            f"{len(ids)} tokens"
        )
    return ids[0]


def _steps(where: str, record: Record, separator: str) -> list[str]:
    steps = require(where, record, "steps")
    if not isinstance(steps, list) or not steps:
        raise DataError(
            f"{where}: `steps` must be a list of one or more strings, not "
            f"{reprlib.repr(steps)}: write a step even if it is the only one."
        )
    for index, step in enumerate(steps):
        if separator in check_text(where, f"steps[{index}]", step):
            raise DataError(
                f"{where}: `steps[{index}]` holds the separator "
                f"{separator!r}: make two steps of it."
            )
    return steps


def _labels(where: str, record: Record, count: int) -> list[float]:
    values: Any = require(where, record, "labels")
    if not isinstance(values, list) or len(values) != count:
        raise DataError(
            f"{where}: `labels` must be a list of {count} numbers, one for "
            f"each of `steps`, not {reprlib.repr(values)}: write them in order."
        )
    return [
        number_field(where, {f"labels[{index}]": value}, f"labels[{index}]")
        for index, value in enumerate(values)
    ]
