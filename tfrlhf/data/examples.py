"""Demonstrations to Examples: the response is learnt, the prompt is given."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

from tfrlhf.data import chat
from tfrlhf.data.messages import Message
from tfrlhf.data.messages import check_messages
from tfrlhf.data.messages import is_messages
from tfrlhf.data.prompts import check_prompt
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.prompts import response_request
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import require
from tfrlhf.data.records import text_field
from tfrlhf.data.tokens import Ids
from tfrlhf.data.tokens import Request
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import build_row
from tfrlhf.data.tokens import encode_request
from tfrlhf.data.tokens import encoded_rows
from tfrlhf.types import Examples


class ExampleRow(NamedTuple):
    """An example in ids.

    Attributes:
        prompt_ids: What comes before the first learnt token.
        response_ids: The rest, EOS included.
        gaps: Positions [start, stop) of the row that are not learnt in it.
    """

    prompt_ids: Ids
    response_ids: Ids
    gaps: list[tuple[int, int]]


class ExampleEncoder(NamedTuple):
    """Records of prompt and response, or of messages, to `Examples`.

    Attributes:
        tokenizer: Gives the ids.
        max_length: The most tokens of a row.
        learn_prompts: Whether the prompt is learnt too.
    """

    tokenizer: TextTokenizer
    max_length: int
    learn_prompts: bool = False

    def request(self, where: str, record: Record) -> Request:
        """Checks a record and says what to tokenise."""
        if "messages" in record:
            value = record["messages"]
            messages = check_messages(where, "messages", value, ("assistant",))
            texts = chat.turn_texts(where, messages, self.tokenizer)
            return Request(texts, False, messages)
        prompt = check_prompt(where, require(where, record, "prompt"))
        if is_messages(prompt):
            response = require(where, record, "response")
        else:
            response = text_field(where, record, "response")
        responses = {"response": response}
        return response_request(where, prompt, responses, self.tokenizer)

    def row(
        self, where: str, request: Request, encoded: list[Ids]
    ) -> ExampleRow:
        """Makes a row of the ids of the texts."""
        if isinstance(request.record, list):
            return self._conversation(where, request.record, encoded)
        prompt, responses = request.record
        prompt_ids, (response_ids,) = encode_responses(
            where,
            prompt,
            responses,
            self.tokenizer,
            self.max_length,
            encoded=encoded,
        )
        return ExampleRow(prompt_ids, response_ids, [])

    def length(self, row: ExampleRow) -> int:
        """Returns the tokens of a row."""
        return len(row.prompt_ids) + len(row.response_ids)

    def stack(self, rows: Sequence[ExampleRow], bucket: int = 16) -> Examples:
        """Pads rows to `Examples` of NumPy arrays."""
        parts = [(row.prompt_ids, row.response_ids) for row in rows]
        pad_id = self.tokenizer.pad_id
        made = Examples(*padded_rows(parts, pad_id, self.max_length, bucket))
        if self.learn_prompts:
            return made._replace(loss_mask=made.padding_mask)
        for mask, row in zip(made.loss_mask, rows, strict=True):
            for start, stop in row.gaps:
                mask[start:stop] = 0
        return made

    def _conversation(
        self, where: str, messages: list[Message], encoded: list[Ids]
    ) -> ExampleRow:
        end = end_of_sequence(self.tokenizer, self.max_length)
        ids, spans = chat.turn_spans(
            where, encoded, end, messages, self.tokenizer
        )
        if len(ids) > self.max_length:
            raise DataError(
                f"{where}: `messages` are {len(ids)} tokens long with EOS, "
                f"more than max_length={self.max_length}: shorten them or "
                "raise max_length."
            )
        first = spans[0][0]
        later = zip(spans, spans[1:], strict=False)
        gaps = [(stop, start) for (_, stop), (start, _) in later]
        return ExampleRow(ids[:first], ids[first:], gaps)


def examples(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_length: int,
    learn_prompts: bool = False,
    skip_bad: bool = False,
) -> Examples:
    """Turns {"prompt", "response"} or {"messages"} records into ids.

    Args:
        records: The records; no text may be blank. Of messages, every turn of
            the assistant is learnt.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.
        learn_prompts: Whether the prompt is learnt too.
        skip_bad: Leave bad records out, with a warning that counts them.

    Returns:
        Examples of NumPy arrays, int32 [B, S]; `loss_mask` is 1 on the
        response and its EOS. S is the longest row rounded up to a multiple of
        16, and at most `max_length`.

    Raises:
        DataError: The first bad record.

    Example:
        >>> records = [{"prompt": "Say hi.", "response": " Hi!"}]
        >>> examples(records, tokenizer, max_length=64).token_ids.shape
        (1, 16)
    """
    end_of_sequence(tokenizer, max_length)
    encoder = ExampleEncoder(tokenizer, max_length, learn_prompts)
    made = encoded_rows(numbered_records(records), encoder, tokenizer)
    return encoder.stack(build_each(made, build_row, skip_bad))


def sequences(
    prompts: Sequence[Any],
    responses: Sequence[str],
    tokenizer: TextTokenizer,
    max_length: int,
) -> Examples:
    """Turns prompts with responses into ids, to be scored.

    Args:
        prompts: B strings, or lists of messages.
        responses: B strings; one without text is EOS alone.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.

    Returns:
        Examples of NumPy arrays, int32 [B, S].

    Raises:
        ValueError: Not as many responses as prompts, or one that is too long.

    Example:
        >>> sequences(["Say hi."], [""], tokenizer, 64).loss_mask.sum()
        1
    """
    if len(prompts) != len(responses):
        raise ValueError(
            f"There must be a response for each of {len(prompts)} prompts, "
            f"not {len(responses)}."
        )
    end_of_sequence(tokenizer, max_length)
    rows = []
    for index, (prompt, response) in enumerate(
        zip(prompts, responses, strict=True)
    ):
        where, answer = f"response {index}", {"response": response}
        if is_messages(prompt):
            prompt = check_prompt(where, prompt)
        request = response_request(where, prompt, answer, tokenizer, True)
        prompt_ids, (response_ids,) = encode_responses(
            where,
            prompt,
            answer,
            tokenizer,
            max_length,
            encoded=encode_request(tokenizer, request),
        )
        rows.append((prompt_ids, response_ids))
    return Examples(*padded_rows(rows, tokenizer.pad_id, max_length))
