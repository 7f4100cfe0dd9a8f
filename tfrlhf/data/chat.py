"""Conversations to texts to tokenise, and where the assistant speaks in them.

Knows messages and the tokenizer's `render_chat`. The ids are those of
`transformers`' `apply_chat_template`: the template alone writes BOS.
"""

from collections.abc import Sequence

from tfrlhf.data.messages import Message
from tfrlhf.data.records import DataError
from tfrlhf.data.tokens import Ids
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.tokens import encode_many


def render(
    where: str,
    field: str,
    messages: Sequence[Message],
    tokenizer: TextTokenizer,
    add_generation_prompt: bool = False,
) -> str:
    """Writes messages by the tokenizer's chat template.

    Raises:
        DataError: No template, or one that fails on these messages.
    """
    write = getattr(tokenizer, "render_chat", None)
    if write is None:
        raise DataError(
            f"{where}: `{field}` is a list of messages, for which the "
            "tokenizer needs a `render_chat`: load the data with "
            "chat='transcript'."
        )
    try:
        return write(messages, add_generation_prompt=add_generation_prompt)
    except ValueError as error:
        raise DataError(
            f"{where}: `{field}` cannot be written: {error}."
        ) from error


def turn_texts(
    where: str, messages: Sequence[Message], tokenizer: TextTokenizer
) -> list[str]:
    """Returns the texts whose ids say where the assistant speaks.

    They are the whole conversation, and for each turn of the assistant what
    comes before it.
    """
    befores = [messages[:index] for index in _turns(messages)]
    return [
        render(where, "messages", messages, tokenizer),
        *(render(where, "messages", b, tokenizer, True) for b in befores),
    ]


def turn_spans(
    where: str,
    encoded: Sequence[Ids],
    eos_id: int,
    messages: Sequence[Message],
    tokenizer: TextTokenizer,
) -> tuple[Ids, list[tuple[int, int]]]:
    """Returns the ids of a conversation and the spans the assistant speaks.

    A turn ends with its first EOS, or where the template has none, before the
    next message. The conversation ends with EOS in any case.

    Args:
        where: The place of the record.
        encoded: The ids of `turn_texts`.
        eos_id: The id that ends a response.
        messages: The conversation.
        tokenizer: Writes the conversation up to a turn without EOS.

    Raises:
        DataError: The ids before a turn do not begin those of the whole.
    """
    whole, *befores = encoded
    limits = [*(len(before) for before in befores[1:]), len(whole)]
    spans: list[tuple[int, int]] = []
    turns = _turns(messages)
    for before, turn, limit in zip(befores, turns, limits, strict=True):
        start, stop = len(before), None
        if whole[:start] == before:
            if eos_id in whole[start:limit]:
                stop = whole.index(eos_id, start) + 1
            else:
                shown = messages[: turn + 1]
                text = render(where, "messages", shown, tokenizer)
                (after,) = encode_many(tokenizer, [text], opening=False)
                stop = len(after) if whole[: len(after)] == after else None
        if stop is None:
            raise DataError(
                f"{where}: `messages` do not begin with the tokens of the "
                f"prompt before the assistant's turn {len(spans) + 1}, because "
                "the chat template writes a part of them in another way "
                "there: make a record for each answer, or change the template."
            )
        spans.append((start, stop))
    start, stop = spans[-1]
    if whole[start:stop][-1:] == [eos_id]:
        return whole[:stop], spans
    return [*whole, eos_id], [*spans[:-1], (start, len(whole) + 1)]


def _turns(messages: Sequence[Message]) -> list[int]:
    """The places of the assistant's messages."""
    return [
        index
        for index, message in enumerate(messages)
        if message["role"] == "assistant"
    ]


def response_part(
    where: str, field: str, prompt_ids: Ids, whole: Ids, eos_id: int
) -> Ids:
    """Returns what a response adds to its prompt's ids, without its EOS.

    What the template writes after the last EOS is left out.

    Raises:
        DataError: The prompt's ids do not begin the whole.
    """
    if whole[: len(prompt_ids)] != prompt_ids:
        raise DataError(
            f"{where}: `prompt` and `{field}` do not begin with the tokens of "
            "the prompt, because the chat template writes it in another way "
            "before an answer: use a template without that."
        )
    rest = whole[len(prompt_ids) :]
    if eos_id in rest:
        rest = rest[: len(rest) - 1 - rest[::-1].index(eos_id)]
    return rest
