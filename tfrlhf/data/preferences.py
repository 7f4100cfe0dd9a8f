"""Comparisons to Preferences: K responses to one prompt, the best first.

A pair of `chosen` and `rejected` is the case K = 2.
"""

import reprlib
from collections.abc import Iterable
from itertools import combinations
from numbers import Integral
from typing import NamedTuple

import numpy as np

from tfrlhf.data.prompts import Ids
from tfrlhf.data.prompts import TextTokenizer
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import check_text
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.records import text_field
from tfrlhf.data.records import weight_field
from tfrlhf.types import Preferences


class _Row(NamedTuple):
    prompt_ids: Ids
    responses: list[Ids]
    ranks: list[int]
    weight: float


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
    ties allowed, renumbered without gaps); "weight" is optional. A response
    may be empty: it is then its EOS alone.

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
        weight float32 [B]. K is the largest number of responses; absent ones
        have rank -1 and are all padding. S is the longest row rounded up to a
        multiple of 16, and at most `max_length`.

    Raises:
        DataError: The first bad record.

    Example:
        >>> records = [{"prompt": "Hi", "chosen": " there", "rejected": " X"}]
        >>> preferences(records, tokenizer, max_length=64).ranks
        array([[0, 1]], dtype=int32)
    """
    end_of_sequence(tokenizer, max_length)

    def build(where: str, record: Record) -> _Row:
        prompt = text_field(where, record, "prompt")
        responses, ranks = _ranked_responses(where, record)
        weight = weight_field(where, record)
        prompt_ids, response_ids = encode_responses(
            where, prompt, responses, tokenizer, max_length, truncate
        )
        _check_different(where, responses, response_ids, ranks, max_length)
        return _Row(prompt_ids, response_ids, ranks, weight)

    rows = build_each(numbered_records(records), build, skip_bad)
    return _stacked(rows, tokenizer.pad_id, max_length)


def _ranked_responses(
    where: str, record: Record
) -> tuple[dict[str, str], list[int]]:
    """Returns field name to text, and the rank of each."""
    if "responses" not in record:
        return {
            field: text_field(where, record, field, may_be_blank=True)
            for field in ("chosen", "rejected")
        }, [0, 1]
    texts = require(where, record, "responses")
    if not isinstance(texts, list) or len(texts) < 2:
        raise DataError(
            f"{where}: `responses` must be a list of two or more strings, not "
            f"{reprlib.repr(texts)}: add responses or delete the record."
        )
    fields = [f"responses[{index}]" for index in range(len(texts))]
    return {
        field: check_text(where, field, text, may_be_blank=True)
        for field, text in zip(fields, texts, strict=True)
    }, _ranks(where, record, len(texts))


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
    responses: dict[str, str],
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


def _stacked(rows: list[_Row], pad_id: int, max_length: int) -> Preferences:
    """Pads records to K candidates and candidates to S tokens."""
    candidates = max(len(row.ranks) for row in rows)
    ranks = np.full((len(rows), candidates), -1, dtype=np.int32)
    flat: list[tuple[Ids, Ids]] = []
    for index, row in enumerate(rows):
        ranks[index, : len(row.ranks)] = row.ranks
        flat += [(row.prompt_ids, response) for response in row.responses]
        flat += [([], [])] * (candidates - len(row.ranks))
    padded = padded_rows(flat, pad_id, max_length)
    shape = len(rows), candidates, -1
    return Preferences(
        token_ids=padded.token_ids.reshape(shape),
        padding_mask=padded.padding_mask.reshape(shape),
        response_mask=padded.response_mask.reshape(shape),
        ranks=ranks,
        weight=np.array([row.weight for row in rows], dtype=np.float32),
    )
