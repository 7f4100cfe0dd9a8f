"""Demonstrations to Examples: the response is learnt, the prompt is given."""

from collections.abc import Iterable
from collections.abc import Sequence

from tfrlhf.data.prompts import Ids
from tfrlhf.data.prompts import TextTokenizer
from tfrlhf.data.prompts import encode_responses
from tfrlhf.data.prompts import end_of_sequence
from tfrlhf.data.prompts import padded_rows
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import numbered_records
from tfrlhf.data.records import text_field
from tfrlhf.types import Examples


def examples(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_length: int,
    learn_prompts: bool = False,
) -> Examples:
    """Turns {"prompt", "response"} records into ids with a loss mask.

    Args:
        records: The records; both texts must not be blank.
        tokenizer: Gives the ids; must have an EOS, which ends each response.
        max_length: The most tokens of prompt, response and EOS together.
        learn_prompts: Whether the prompt is learnt too.

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

    def build(where: str, record: Record) -> tuple[Ids, Ids]:
        prompt = text_field(where, record, "prompt")
        response = text_field(where, record, "response")
        prompt_ids, (response_ids,) = encode_responses(
            where, prompt, {"response": response}, tokenizer, max_length
        )
        return prompt_ids, response_ids

    rows = build_each(numbered_records(records), build, skip_bad=False)
    made = Examples(*padded_rows(rows, tokenizer.pad_id, max_length))
    return made._replace(loss_mask=made.padding_mask) if learn_prompts else made


def sequences(
    prompts: Sequence[str],
    responses: Sequence[str],
    tokenizer: TextTokenizer,
    max_length: int,
) -> Examples:
    """Turns prompts with responses into ids, to be scored.

    Args:
        prompts: B strings.
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
        prompt_ids, (response_ids,) = encode_responses(
            f"response {index}",
            prompt,
            {"response": response},
            tokenizer,
            max_length,
        )
        rows.append((prompt_ids, response_ids))
    return Examples(*padded_rows(rows, tokenizer.pad_id, max_length))
