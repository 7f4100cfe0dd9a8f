"""Comparisons to Preferences: K responses to one prompt, the best first.

A pair of `chosen` and `rejected` is the case K = 2.
"""

import reprlib
from collections.abc import Iterable
from collections.abc import Sequence
from itertools import combinations
from numbers import Integral
from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.data.messages import is_messages
from tfrlhf.data.prompts import check_prompt
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.prompts import response_request
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import check_text
from tfrlhf.data.records import margin_field
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.records import weight_field
from tfrlhf.data.tokens import Ids
from tfrlhf.data.tokens import Request
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import build_row
from tfrlhf.data.tokens import encoded_rows
from tfrlhf.types import Preferences


class PreferenceRow(NamedTuple):
    """A comparison in ids."""

    prompt_ids: Ids
    responses: list[Ids]
    ranks: list[int]
    weight: float
    margin: float


class PreferenceEncoder(NamedTuple):
    """Records of compared responses to `Preferences`.

    Attributes:
        tokenizer: Gives the ids.
        max_length: The most tokens of a prompt and a response.
        truncate: Cut what is longer.
    """

    tokenizer: TextTokenizer
    max_length: int
    truncate: bool = False

    def request(self, where: str, record: Record) -> Request:
        """Checks a record and says what to tokenise."""
        prompt = check_prompt(where, require(where, record, "prompt"))
        responses, ranks = ranked_responses(where, record)
        if not is_messages(prompt):
            for field, text in responses.items():
                check_text(where, field, text, may_be_blank=True)
        numbers = weight_field(where, record), margin_field(where, record)
        request = response_request(where, prompt, responses, self.tokenizer)
        return request._replace(record=(*request.record, ranks, *numbers))

    def row(
        self, where: str, request: Request, encoded: list[Ids]
    ) -> PreferenceRow:
        """Makes a row of the ids of the texts."""
        prompt, responses, ranks, weight, margin = request.record
        prompt_ids, response_ids = encode_responses(
            where,
            prompt,
            responses,
            self.tokenizer,
            self.max_length,
            self.truncate,
            encoded,
        )
        _check_different(where, responses, response_ids, ranks, self.max_length)
        return PreferenceRow(prompt_ids, response_ids, ranks, weight, margin)

    def length(self, row: PreferenceRow) -> int:
        """Returns the tokens of the prompt with the longest response."""
        return len(row.prompt_ids) + max(map(len, row.responses))

    def stack(
        self, rows: Sequence[PreferenceRow], bucket: int = 16
    ) -> Preferences:
        """Pads records to K candidates and candidates to S tokens."""
        candidates = max(len(row.ranks) for row in rows)
        ranks = np.full((len(rows), candidates), -1, dtype=np.int32)
        flat: list[tuple[Ids, Ids]] = []
        for index, row in enumerate(rows):
            ranks[index, : len(row.ranks)] = row.ranks
            flat += [(row.prompt_ids, response) for response in row.responses]
            flat += [([], [])] * (candidates - len(row.ranks))
        pad_id = self.tokenizer.pad_id
        padded = padded_rows(flat, pad_id, self.max_length, bucket)
        shape = len(rows), candidates, -1
        return Preferences(
            token_ids=padded.token_ids.reshape(shape),
            padding_mask=padded.padding_mask.reshape(shape),
            response_mask=padded.response_mask.reshape(shape),
            ranks=ranks,
            weight=np.array([row.weight for row in rows], dtype=np.float32),
            margin=np.array([row.margin for row in rows], dtype=np.float32),
        )


def preferences(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_length: int,
    truncate: bool = False,
    skip_bad: bool = False,
) -> Preferences:
    """Turns comparisons into ids, masks and ranks.

    A record is {"prompt", "chosen", "rejected"} or {"prompt", "responses"}
    with the responses best first, or in any order beside "ranks" (0 = best,
    ties allowed, renumbered without gaps); "weight" and "margin" are optional.
    A response may be empty: it is then its EOS alone.

    Args:
        records: The records, from a reader or written in Python.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.
        truncate: Cut longer records instead of raising: first the beginning
            of the prompt (BOS stays, and all responses keep the same prompt
            tokens), then, where the response alone is too long, its end and
            EOS.
        skip_bad: Leave bad records out, with a warning that counts them.

    Returns:
        Preferences of NumPy arrays: int32 [B, K, S], ranks int32 [B, K],
        weight and margin float32 [B]. K is the largest number of responses;
        absent ones have rank -1 and are all padding. S is the longest row
        rounded up to a multiple of 16, and at most `max_length`.

    Raises:
        DataError: The first bad record.

    Example:
        >>> records = [{"prompt": "Hi", "chosen": " there", "rejected": " X"}]
        >>> preferences(records, tokenizer, max_length=64).ranks
        array([[0, 1]], dtype=int32)
    """
    end_of_sequence(tokenizer, max_length)
    encoder = PreferenceEncoder(tokenizer, max_length, truncate)
    made = encoded_rows(numbered_records(records), encoder, tokenizer)
    return encoder.stack(build_each(made, build_row, skip_bad))


def ranked_responses(
    where: str, record: Record
) -> tuple[dict[str, Any], list[int]]:
    """Returns the value of each response by its field, and their ranks.

    Raises:
        DataError: Missing responses, or ranks that do not fit them.
    """
    if "responses" not in record:
        return {
            field: require(where, record, field)
            for field in ("chosen", "rejected")
        }, [0, 1]
    values = record["responses"]
    if not isinstance(values, list) or len(values) < 2:
        raise DataError(
            f"{where}: `responses` must be a list of two or more strings, not "
            f"{reprlib.repr(values)}: add responses or delete the record."
        )
    return {
        f"responses[{index}]": value for index, value in enumerate(values)
    }, _ranks(where, record, len(values))


def _ranks(where: str, record: Record, count: int) -> list[int]:
    """Returns the ranks of a record, renumbered from 0 without gaps."""
    if "ranks" not in record:
        return list(range(count))
    ranks = record["ranks"]
    if not isinstance(ranks, list) or len(ranks) != count:
        raise DataError(
            f"{where}: `ranks` must be a list of {count} whole numbers, one "
            f"for each of `responses`, not {reprlib.repr(ranks)}: write them "
            "in the same order."
        )
    for rank in ranks:
        if (
            isinstance(rank, bool)
            or not isinstance(rank, Integral)
            or int(rank) < 0
        ):
            raise DataError(
                f"{where}: `ranks` must hold whole numbers from 0 (best), not "
                f"{reprlib.repr(rank)}: leave responses without a rank out."
            )
    if len(set(ranks)) == 1:
        raise DataError(
            f"{where}: `ranks` are all equal, so that nothing is compared: "
            "rank one response before another or delete the record."
        )
    order = sorted(set(ranks))
    return [order.index(rank) for rank in ranks]


def _check_different(
    where: str,
    responses: dict[str, Any],
    response_ids: list[Ids],
    ranks: list[int],
    max_length: int,
) -> None:
    """Refuses equal responses of unequal rank: nobody could tell them apart."""
    candidates = zip(responses.items(), response_ids, ranks, strict=True)
    for (first, first_ids, first_rank), (second, ids, rank) in combinations(
        candidates, 2
    ):
        if first_rank == rank or first_ids != ids:
            continue
        fields = f"`{first[0]}` and `{second[0]}`"
        if first[1] == second[1]:
            raise DataError(
                f"{where}: {fields} are the same text: correct one of them or "
                "delete the record."
            )
        raise DataError(
            f"{where}: {fields} become the same {len(ids)} tokens with "
            f"max_length={max_length}: raise max_length or delete the record."
        )
