"""Rated responses to Ratings: one response with the number a human gave it."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfrlhf.data.prompts import Ids
from tfrlhf.data.prompts import TextTokenizer
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import number_field
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import text_field
from tfrlhf.data.records import weight_field
from tfrlhf.types import Ratings


class _Row(NamedTuple):
    prompt_ids: Ids
    response_ids: Ids
    rating: float
    weight: float


def ratings(
    records: Iterable[Record], tokenizer: TextTokenizer, max_length: int
) -> Ratings:
    """Turns {"prompt", "response", "rating"[, "weight"]} records into ids.

    Args:
        records: The records; ratings are numbers on any scale, and an empty
            response may be rated.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.

    Returns:
        Ratings of NumPy arrays: int32 [B, S], float32 [B]. S is the longest
        row rounded up to a multiple of 16, and at most `max_length`.

    Raises:
        DataError: The first bad record.

    Example:
        >>> records = [{"prompt": "Hi.", "response": " Hello!", "rating": 4}]
        >>> ratings(records, tokenizer, max_length=64).rating
        array([4.], dtype=float32)
    """
    end_of_sequence(tokenizer, max_length)

    def build(where: str, record: Record) -> _Row:
        prompt = text_field(where, record, "prompt")
        response = text_field(where, record, "response", may_be_blank=True)
        rating = number_field(where, record, "rating")
        prompt_ids, (response_ids,) = encode_responses(
            where, prompt, {"response": response}, tokenizer, max_length
        )
        weight = weight_field(where, record)
        return _Row(prompt_ids, response_ids, rating, weight)

    rows = build_each(numbered_records(records), build, skip_bad=False)
    padded = padded_rows(
        [(row.prompt_ids, row.response_ids) for row in rows],
        tokenizer.pad_id,
        max_length,
    )
    return Ratings(
        *padded,
        rating=np.array([row.rating for row in rows], dtype=np.float32),
        weight=np.array([row.weight for row in rows], dtype=np.float32),
    )
