"""Prompts to padded ids, and the rows of ids that every carrier is made of.

A row is (prompt ids, response ids). Knows the tokenizer by its interface
only, and no record formats.
"""

from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tfrlhf.data import chat
from tfrlhf.data.messages import check_messages
from tfrlhf.data.messages import is_messages
from tfrlhf.data.messages import response_messages
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import check_text
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.tokens import Ids
from tfrlhf.data.tokens import Request
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import build_row
from tfrlhf.data.tokens import encode_request
from tfrlhf.data.tokens import encoded_rows
from tfrlhf.types import Prompts


class PaddedRows(NamedTuple):
    """Rows of one width: int32 [N, S] each, 1 where a position counts."""

    token_ids: NDArray[np.int32]
    padding_mask: NDArray[np.int32]
    response_mask: NDArray[np.int32]


class _PromptEncoder(NamedTuple):
    """Prompts to (their ids, no response); `limit` says what they exceed."""

    tokenizer: TextTokenizer
    max_length: int
    limit: str

    def request(self, where: str, record: Record) -> Request:
        prompt = check_prompt(where, require(where, record, "prompt"))
        return response_request(where, prompt, {}, self.tokenizer)

    def row(
        self, where: str, request: Request, encoded: list[Ids]
    ) -> tuple[Ids, Ids]:
        (ids,) = encoded
        _check_prompt_ids(where, ids)
        if len(ids) > self.max_length:
            raise DataError(
                f"{where}: `prompt` is {len(ids)} tokens long, {self.limit}."
            )
        return ids, []

    def length(self, row: tuple[Ids, Ids]) -> int:
        return len(row[0])

    def stack(
        self, rows: Sequence[tuple[Ids, Ids]], bucket: int = 32
    ) -> Prompts:
        pad_id = self.tokenizer.pad_id
        padded = padded_rows(rows, pad_id, self.max_length, bucket)
        return Prompts(padded.token_ids, padded.padding_mask)


def encode_prompts(
    texts: Iterable[Any],
    tokenizer: TextTokenizer,
    max_length: int,
    bucket: int = 32,
) -> Prompts:
    """Tokenises prompts and pads them on the right to one width.

    Args:
        texts: The prompts: strings, or lists of messages for the tokenizer's
            chat template.
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
    numbered = [
        (f"prompt {index}", {"prompt": text})
        for index, text in enumerate(texts)
    ]
    if not numbered:
        raise DataError("`texts` is empty: give at least one prompt.")
    limit = f"more than max_length={max_length}: shorten it or raise max_length"
    encoder = _PromptEncoder(tokenizer, max_length, limit)
    made = encoded_rows(numbered, encoder, tokenizer)
    return encoder.stack(build_each(made, build_row, skip_bad=False), bucket)


def check_prompts(
    records: Iterable[Record], tokenizer: TextTokenizer, max_length: int
) -> None:
    """Refuses prompts that would stop a training later on.

    Args:
        records: Records with a `prompt`, as `load` gives them.
        tokenizer: Gives the ids.
        max_length: The most tokens a prompt may have.

    Raises:
        DataError: The first prompt that is blank or too long, by file and
            line.
    """
    limit = (
        f"but the model's context leaves {max_length}: shorten it, or allow "
        "shorter responses"
    )
    encoder = _PromptEncoder(tokenizer, max_length, limit)
    for _, make in encoded_rows(numbered_records(records), encoder, tokenizer):
        make()


def batches_by_length(
    prompts: Prompts, size: int, each: int = 1
) -> Iterator[tuple[NDArray[np.int64], Prompts]]:
    """Cuts prompts into batches of similar length, the shortest first.

    A batch is decoded from the end of its shortest prompt on, so that prompts
    of different length take more steps.

    Args:
        prompts: `Prompts` of N rows.
        size: rows of a batch; the last one may be shorter.
        each: how often a prompt occurs; equal ones follow each other.

    Yields:
        The row numbers of a batch and its `Prompts`, as wide as 32 times a
        power of 2, so that they have few shapes.

    Example:
        >>> prompts = encode_prompts(["a b c", "a"], tokenizer, 8)
        >>> [rows.tolist() for rows, _ in batches_by_length(prompts, 1)]
        [[1], [0]]
    """
    arrays = [np.asarray(x) for x in prompts]
    lengths = arrays[1].sum(axis=1)
    order = np.repeat(np.argsort(lengths, kind="stable"), each)
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        width = 32
        while width < lengths[rows].max():
            width *= 2
        yield rows, Prompts(*(x[rows, :width] for x in arrays))


def prompt_texts(prompts: Iterable[Any], tokenizer: TextTokenizer) -> list[str]:
    """Returns prompts as text: messages as the chat template writes them.

    Args:
        prompts: Strings, or lists of messages.
        tokenizer: Writes messages, with the opening of the assistant's turn.

    Raises:
        DataError: A prompt that is no text, or has no text; "prompt 17" is
            the 18th.
    """
    requests = (
        response_request(where, check_prompt(where, prompt), {}, tokenizer)
        for where, prompt in (
            (f"prompt {index}", prompt) for index, prompt in enumerate(prompts)
        )
    )
    return [request.texts[0] for request in requests]


def check_prompt(where: str, prompt: Any) -> Any:
    """Returns a prompt that is a text or well-formed messages."""
    if is_messages(prompt):
        return check_messages(where, "prompt", prompt, ("user", "tool"))
    return check_text(where, "prompt", prompt)


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


def response_request(
    where: str,
    prompt: Any,
    responses: Mapping[str, Any],
    tokenizer: TextTokenizer,
    may_be_blank: bool = False,
) -> Request:
    """Returns what to tokenise for `encode_responses`: the prompt, then all.

    Args:
        where: The place of the record.
        prompt: What `check_prompt` returned.
        responses: Field name to text, or to messages where the prompt is of
            messages.
        tokenizer: Writes messages.
        may_be_blank: Whether an answer to messages may be.
    """
    if isinstance(prompt, str):
        joins = getattr(tokenizer, "joins", None)
        apart = tuple(
            place
            for place, text in enumerate(responses.values(), start=1)
            if joins is not None and joins(prompt, text)
        )
        texts = [prompt] + [
            text if place in apart else prompt + text
            for place, text in enumerate(responses.values(), start=1)
        ]
        return Request(texts, True, (prompt, responses), apart)
    texts = [chat.render(where, "prompt", prompt, tokenizer, True)]
    for field, value in responses.items():
        messages = response_messages(where, field, prompt, value, may_be_blank)
        texts.append(chat.render(where, field, messages, tokenizer))
    return Request(texts, False, (prompt, responses))


def encode_responses(
    where: str,
    prompt: Any,
    responses: Mapping[str, Any],
    tokenizer: TextTokenizer,
    max_length: int,
    truncate: bool = False,
    encoded: list[Ids] | None = None,
) -> tuple[Ids, list[Ids]]:
    """Returns the ids of a prompt and of each response, EOS appended.

    All responses continue the same prompt ids. With `truncate` the prompt
    keeps its end (and BOS) beside the longest response, and a response that
    leaves the prompt less than one token is cut on the right, EOS included.

    Args:
        where: The place of the record, for the messages.
        prompt: The text or the messages that are continued.
        responses: Field name to text, or to messages.
        tokenizer: Gives the ids.
        max_length: The most tokens of prompt, response and EOS together.
        truncate: Cut what is longer instead of raising.
        encoded: The ids of `response_request`'s texts, if they are known.

    Raises:
        DataError: A prompt without tokens, more than `max_length` tokens, or
            a chat template that writes the prompt in two ways.
    """
    end = end_of_sequence(tokenizer, max_length)
    if encoded is None:
        request = response_request(where, prompt, responses, tokenizer)
        encoded = encode_request(tokenizer, request)
    prompt_ids, *wholes = encoded
    _check_prompt_ids(where, prompt_ids)
    response_ids: list[Ids] = []
    for (field, text), ids in zip(responses.items(), wholes, strict=True):
        if not isinstance(prompt, str):
            rest = chat.response_part(where, field, prompt_ids, ids, end)
        elif ids[: len(prompt_ids)] == prompt_ids:
            rest = ids[len(prompt_ids) :]
        else:
            _, rest, _ = tokenizer.encode_pair(prompt, text)
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
