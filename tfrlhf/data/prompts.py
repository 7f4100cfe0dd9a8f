"""Prompts to padded ids, and the rows of ids that every carrier is made of.

A row is (prompt ids, response ids). Knows the tokenizer by its interface
only, and no record formats.
"""

from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import NamedTuple
from typing import Protocol
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import check_text
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import text_field
from tfrlhf.types import Prompts

Ids: TypeAlias = list[int]


class TextTokenizer(Protocol):
    """What this package asks of a tokenizer."""

    @property
    def bos_id(self) -> int | None:
        """The id in front of every text, if the tokenizer adds one."""

    @property
    def eos_id(self) -> int | None:
        """The id that ends a response."""

    @property
    def pad_id(self) -> int:
        """The id that fills a row."""

    def encode(self, text: str) -> Ids:
        """Returns the ids of a text, never with EOS."""

    def encode_pair(self, prompt: str, response: str) -> tuple[Ids, Ids, bool]:
        """Returns ids(prompt), the response's ids, and whether they join."""


class PaddedRows(NamedTuple):
    """Rows of one width: int32 [N, S] each, 1 where a position counts."""

    token_ids: NDArray[np.int32]
    padding_mask: NDArray[np.int32]
    response_mask: NDArray[np.int32]


def encode_prompts(
    texts: Iterable[str],
    tokenizer: TextTokenizer,
    max_length: int,
    bucket: int = 32,
) -> Prompts:
    """Tokenises prompts and pads them on the right to one width.

    Args:
        texts: The prompts.
        tokenizer: Gives the ids; BOS in front where the tokenizer has one.
        max_length: The most tokens a prompt may have.
        bucket: S is the longest prompt rounded up to a multiple of this, and
            at most `max_length`, so that few shapes are compiled.

    Returns:
        Prompts of NumPy arrays, int32 [B, S].

    Raises:
        DataError: A prompt that is no text, blank or too long; "prompt 17" is
            `texts[17]`.

    Example:
        >>> encode_prompts(["Once", "A hen"], tokenizer, 64).token_ids.shape
        (2, 32)
    """
    if isinstance(texts, str):
        raise DataError(
            f"`texts` must be a list of strings, not the string {texts[:30]!r}:"
            " put it in a list."
        )
    _check_at_least("max_length", max_length, 1)
    rows: list[tuple[Ids, Ids]] = []
    for index, text in enumerate(texts):
        where = f"prompt {index}"
        ids = tokenizer.encode(check_text(where, "prompt", text))
        _check_prompt_ids(where, ids)
        if len(ids) > max_length:
            raise DataError(
                f"{where}: `prompt` is {len(ids)} tokens long, more than "
                f"max_length={max_length}: shorten it or raise max_length."
            )
        rows.append((ids, []))
    if not rows:
        raise DataError("`texts` is empty: give at least one prompt.")
    padded = padded_rows(rows, tokenizer.pad_id, max_length, bucket)
    return Prompts(padded.token_ids, padded.padding_mask)


def check_prompts(
    records: Iterable[Record], tokenizer: TextTokenizer, max_length: int
) -> None:
    """Refuses prompts that would stop a training later on.

    Args:
        records: Records with a `prompt`, as `read_jsonl` gives them.
        tokenizer: Gives the ids.
        max_length: The most tokens a prompt may have.

    Raises:
        DataError: The first prompt that is blank or too long, by file and
            line.
    """
    for where, record in numbered_records(records):
        ids = tokenizer.encode(text_field(where, record, "prompt"))
        _check_prompt_ids(where, ids)
        if len(ids) > max_length:
            raise DataError(
                f"{where}: `prompt` is {len(ids)} tokens long, but the model's "
                f"context leaves {max_length}: shorten it, or allow shorter "
                "responses."
            )


def end_of_sequence(tokenizer: TextTokenizer, max_length: int) -> int:
    """Returns the id that ends responses, once the arguments make sense."""
    # BOS, a prompt token and a response token must fit when truncated.
    _check_at_least("max_length", max_length, 3)
    if tokenizer.eos_id is None:
        raise ValueError(
            "`tokenizer` has no end-of-sequence token, with which every "
            "response must end: set its eos_id to the id of one."
        )
    return tokenizer.eos_id


def encode_responses(
    where: str,
    prompt: str,
    responses: Mapping[str, str],
    tokenizer: TextTokenizer,
    max_length: int,
    truncate: bool = False,
) -> tuple[Ids, list[Ids]]:
    """Returns the ids of a prompt and of each response, EOS appended.

    All responses continue the same prompt ids. With `truncate` the prompt
    keeps its end (and BOS) beside the longest response, and a response that
    leaves the prompt less than one token is cut on the right, EOS included.

    Args:
        where: The place of the record, for the messages.
        prompt: The text that is continued.
        responses: Field name to text.
        tokenizer: Gives the ids.
        max_length: The most tokens of prompt, response and EOS together.
        truncate: Cut what is longer instead of raising.

    Raises:
        DataError: A prompt without tokens, or more than `max_length` tokens.
    """
    end = end_of_sequence(tokenizer, max_length)
    prompt_ids: Ids = []
    response_ids: list[Ids] = []
    for field, text in responses.items():
        # The first part is ids(prompt) for every response.
        prompt_ids, rest, _ = tokenizer.encode_pair(prompt, text)
        _check_prompt_ids(where, prompt_ids)
        response_ids.append([*rest, end])
        length = len(prompt_ids) + len(rest) + 1
        if length > max_length and not truncate:
            raise DataError(
                f"{where}: `prompt` and `{field}` are {length} tokens long "
                f"with EOS, more than max_length={max_length}: shorten them "
                "or raise max_length."
            )
    return _truncated(prompt_ids, response_ids, tokenizer.bos_id, max_length)


def padded_rows(
    rows: Sequence[tuple[Ids, Ids]],
    pad_id: int,
    max_length: int,
    bucket: int = 16,
) -> PaddedRows:
    """Lays (prompt ids, response ids) out in rows of one width.

    S is the longest row rounded up to a multiple of `bucket`, and at most
    `max_length`.
    """
    _check_at_least("bucket", bucket, 1)
    longest = max(len(prompt) + len(response) for prompt, response in rows)
    width = min(-(-longest // bucket) * bucket, max_length)
    token_ids = np.full((len(rows), width), pad_id, dtype=np.int32)
    padding_mask = np.zeros_like(token_ids)
    response_mask = np.zeros_like(token_ids)
    for row, (prompt, response) in enumerate(rows):
        start, stop = len(prompt), len(prompt) + len(response)
        token_ids[row, :stop] = prompt + response
        padding_mask[row, :stop] = 1
        response_mask[row, start:stop] = 1
    return PaddedRows(token_ids, padding_mask, response_mask)


def _truncated(
    prompt_ids: Ids, responses: list[Ids], bos_id: int | None, max_length: int
) -> tuple[Ids, list[Ids]]:
    """Cuts a prompt on the left and its responses on the right until all fit.

    Nothing changes where everything fits.
    """
    head = prompt_ids[:1] if prompt_ids[0] == bos_id else []
    body = prompt_ids[len(head) :]
    room = max_length - len(head) - min(1, len(body))
    responses = [ids[:room] for ids in responses]
    kept = max_length - len(head) - max(len(ids) for ids in responses)
    return head + body[max(0, len(body) - kept) :], responses


def _check_prompt_ids(where: str, ids: Ids) -> None:
    if not ids:
        raise DataError(
            f"{where}: `prompt` has no tokens in this tokenizer's vocabulary: "
            "write other text or delete the record."
        )


def _check_at_least(name: str, value: int, smallest: int) -> None:
    if value < smallest:
        raise ValueError(
            f"`{name}` must be at least {smallest}, not {value}: raise it."
        )
