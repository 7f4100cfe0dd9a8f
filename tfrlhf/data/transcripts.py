"""Pairs of whole conversations (Anthropic HH) to preference records.

Each line holds two transcripts with turns of "Human:" and "Assistant:" that
begin alike and end differently (https://arxiv.org/abs/2204.05862).
"""

import os

from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import build_each
from tfrlhf.data.records import numbered_lines
from tfrlhf.data.records import parse_record
from tfrlhf.data.records import text_field

ASSISTANT = "\n\nAssistant:"


def read_transcripts(
    path: str | os.PathLike[str], skip_bad: bool = False
) -> list[Record]:
    r"""Reads {"chosen", "rejected"} transcripts from .jsonl or .jsonl.gz.

    The prompt is the longest beginning that both transcripts share and that
    ends with an assistant's turn about to speak. What follows is the
    response, later turns included where the transcripts part early.

    Args:
        path: The file, UTF-8.
        skip_bad: Leave bad lines out, with a warning that counts them.

    Returns:
        Records {"prompt", "chosen", "rejected"} with their origin under
        "_where"; the texts are kept to the letter.

    Raises:
        DataError: A missing or empty file, or the first line whose
            transcripts are equal or share no assistant's turn.

    Example:
        A line with chosen "\n\nHuman: Hi\n\nAssistant: Hello." and rejected
        "\n\nHuman: Hi\n\nAssistant: Go." gives prompt
        "\n\nHuman: Hi\n\nAssistant:", chosen " Hello.", rejected " Go.".
    """

    def parse(where: str, line: bytes) -> Record:
        return _split(where, parse_record(where, line, ("chosen", "rejected")))

    return build_each(numbered_lines(path), parse, skip_bad)


def _split(where: str, record: Record) -> Record:
    chosen = text_field(where, record, "chosen")
    rejected = text_field(where, record, "rejected")
    if chosen == rejected:
        raise DataError(
            f"{where}: `chosen` and `rejected` are the same text: correct one "
            "of them or delete the record."
        )
    shared = os.path.commonprefix([chosen, rejected])
    turn = shared.rfind(ASSISTANT)
    if turn < 0:
        raise DataError(
            f"{where}: `chosen` and `rejected` share no turn that begins with "
            f"{ASSISTANT!r}: give both the same prompt or delete the record."
        )
    end = turn + len(ASSISTANT)
    return {
        "prompt": chosen[:end],
        "chosen": chosen[end:],
        "rejected": rejected[end:],
        "_where": where,
    }
