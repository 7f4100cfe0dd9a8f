"""Raw records of many shapes to the project's four kinds.

A shape is known by its columns; what else a record holds is kept. Knows the
shapes and no files.
"""

import json
import reprlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from tfrlhf.data.annotations import from_argilla
from tfrlhf.data.annotations import from_label_studio
from tfrlhf.data.annotations import is_argilla
from tfrlhf.data.annotations import is_label_studio
from tfrlhf.data.messages import as_messages
from tfrlhf.data.messages import check_messages
from tfrlhf.data.messages import is_messages
from tfrlhf.data.messages import response_messages
from tfrlhf.data.messages import shared_messages
from tfrlhf.data.preferences import ranked_responses
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import check_text
from tfrlhf.data.records import margin_field
from tfrlhf.data.records import number_field
from tfrlhf.data.records import require
from tfrlhf.data.records import text_field
from tfrlhf.data.records import weight_field
from tfrlhf.data.transcripts import as_transcript
from tfrlhf.data.transcripts import split_transcripts

KINDS = ("prompts", "examples", "preferences", "ratings")
# Fields that a table can only hold as JSON.
_JSON_FIELDS = (
    "messages",
    "conversations",
    "history",
    "responses",
    "ranks",
    "rating",
    "ratings",
    "output",
)


class Shaper(NamedTuple):
    """How raw records become the project's.

    Attributes:
        columns: Project's name to the source's.
        table: Whether all values are text, as in CSV.
        apart: Whether a list of ratings becomes a record each.
        transcript: Whether messages become plain text.
    """

    columns: Mapping[str, str]
    table: bool = False
    apart: bool = False
    transcript: bool = False

    def shape(self, where: str, raw: Any) -> list[tuple[str, Record]]:
        """Returns (kind, record) for all that a raw record holds.

        Raises:
            DataError: An unknown shape, or a field that is not as it must be.
        """
        if not isinstance(raw, dict):
            raise DataError(
                f"{where}: a record must be an object of fields, not "
                f"{reprlib.repr(raw)}: write its fields by name."
            )
        flat = [raw]
        if is_label_studio(raw):
            flat = from_label_studio(where, raw, self.columns)
        elif is_argilla(raw):
            flat = from_argilla(where, raw, self.columns)
        shaped = []
        for record in flat:
            named = self._renamed(where, record)
            if self.table:
                named = _from_cells(where, named)
            kind, record = _recognised(where, named)
            record = CHECKS[kind](where, record)
            if self.transcript:
                record = _as_text(record)
            record["_where"] = where
            if kind == "ratings":
                shaped += [(kind, r) for r in self._rated(where, record)]
            else:
                shaped.append((kind, record))
        return shaped

    def _renamed(self, where: str, raw: Record) -> Record:
        record = {k: v for k, v in raw.items() if v is not None}
        for name, source in self.columns.items():
            if name in ("left", "right"):
                continue
            if source not in raw:
                present = ", ".join(f"`{column}`" for column in raw)
                raise DataError(
                    f"{where}: the field `{source}` is missing, which "
                    f"`columns` maps to `{name}`: the record has {present}."
                )
        mapped = {
            name: record[source]
            for name, source in self.columns.items()
            if source in record
        }
        taken = set(self.columns.values())
        rest = {k: v for k, v in record.items() if k not in taken}
        return rest | mapped

    def _rated(self, where: str, record: Record) -> list[Record]:
        """Returns the mean of several ratings, or each of them."""
        values = record["rating"]
        if not isinstance(values, list):
            return [record]
        if self.apart:
            return [record | {"rating": value} for value in values]
        weight = weight_field(where, record)
        mean = sum(values) / len(values)
        return [record | {"rating": mean, "weight": weight * len(values)}]


def _recognised(where: str, record: Record) -> tuple[str, Record]:
    """Returns the kind of a record and its fields under the project's names."""
    record = dict(record)
    for other, name in (("conversations", "messages"), ("ratings", "rating")):
        if other in record and name not in record:
            record[name] = record.pop(other)
    if "instruction" in record and "prompt" not in record:
        record = _instruction(where, record)
    if {"question", "answer"} <= set(record) and "prompt" not in record:
        record["prompt"] = record.pop("question")
        record["response"] = record.pop("answer")
    present = set(record)
    if "messages" in present:
        return "examples", record
    if {"chosen", "rejected"} <= present:
        if "prompt" not in present:
            record |= _shared_prompt(where, record)
        return "preferences", record
    if "prompt" in present and "responses" in present:
        return "preferences", record
    if {"prompt", "response", "rating"} <= present:
        return "ratings", record
    if {"prompt", "response"} <= present:
        return "examples", record
    if "prompt" in present:
        return "prompts", record
    names = ", ".join(f"`{name}`" for name in record if name != "_where")
    first = next(iter(record), "text")
    raise DataError(
        f"{where}: the columns {names or 'none'} are no shape that is known: "
        f"say what they are, such as columns={{'prompt': {first!r}}}."
    )


def _shared_prompt(where: str, record: Record) -> Record:
    if is_messages(record["chosen"]):
        chosen, rejected = record["chosen"], record["rejected"]
        prompt = shared_messages(where, chosen, rejected)
        return {"prompt": prompt}
    return split_transcripts(where, record)


def _instruction(where: str, record: Record) -> Record:
    """Alpaca's columns; with a `history` they are a conversation."""
    prompt = record.pop("instruction")
    more = record.pop("input", "")
    if isinstance(prompt, str) and isinstance(more, str) and more.strip():
        prompt = f"{prompt}\n{more}"
    if "history" in record:
        prompt = [*_history(where, record.pop("history")), *as_messages(prompt)]
    record["prompt"] = prompt
    if "output" in record:
        output = record.pop("output")
        several = isinstance(output, list) and not is_messages(output)
        record["responses" if several else "response"] = output
    return record


def _history(where: str, history: Any) -> list[Any]:
    messages = []
    for index, turn in enumerate(history if isinstance(history, list) else [0]):
        if not isinstance(turn, list) or len(turn) != 2:
            raise DataError(
                f"{where}: `history[{index}]` must be a question and its "
                "answer: write [[question, answer], ...]."
            )
        messages.append({"role": "user", "content": turn[0]})
        messages.append({"role": "assistant", "content": turn[1]})
    return messages


def _from_cells(where: str, record: Record) -> Record:
    """Reads the cells of a table that hold no plain text."""
    values = dict(record)
    for name in _JSON_FIELDS:
        cell = values.get(name)
        if isinstance(cell, str) and cell.lstrip()[:1] in ("[", "{"):
            try:
                values[name] = json.loads(cell)
            except json.JSONDecodeError as error:
                if name == "output":
                    continue
                raise DataError(
                    f"{where}: `{name}` is not valid JSON ({error.msg}): "
                    "write a JSON list in the cell."
                ) from error
    for name in ("rating", "weight", "margin"):
        cell = values.get(name)
        if isinstance(cell, str):
            if not cell.strip():
                del values[name]
                continue
            try:
                values[name] = float(cell)
            except ValueError:
                continue  # the check of the field says so
    return values


def _check_prompt(where: str, record: Record) -> Record:
    prompt = require(where, record, "prompt")
    if is_messages(prompt):
        last = ("user", "tool")
        messages = check_messages(where, "prompt", prompt, last)
        return record | {"prompt": messages}
    text_field(where, record, "prompt")
    return record


def _check_example(where: str, record: Record) -> Record:
    if "messages" in record:
        value = record["messages"]
        messages = check_messages(where, "messages", value, ("assistant",))
        return record | {"messages": messages}
    record = _check_prompt(where, record)
    if is_messages(record["prompt"]):
        prompt, value = record["prompt"], record["response"]
        response_messages(where, "response", prompt, value)
    else:
        text_field(where, record, "response")
    return record


def _check_preference(where: str, record: Record) -> Record:
    record = _check_prompt(where, record)
    weight_field(where, record)
    margin_field(where, record)
    responses, _ = ranked_responses(where, record)
    for field, value in responses.items():
        if is_messages(record["prompt"]):
            response_messages(where, field, record["prompt"], value)
        else:
            check_text(where, field, value, may_be_blank=True)
    return record


def _check_rating(where: str, record: Record) -> Record:
    record = _check_prompt(where, record)
    if is_messages(record["prompt"]):
        prompt, value = record["prompt"], record["response"]
        response_messages(where, "response", prompt, value)
    else:
        text_field(where, record, "response", may_be_blank=True)
    weight_field(where, record)
    values = record["rating"]
    if not isinstance(values, list):
        number_field(where, record, "rating")
        return record
    if not values:
        raise DataError(
            f"{where}: `rating` is an empty list: write a number or delete "
            "the record."
        )
    for index, value in enumerate(values):
        field = f"rating[{index}]"
        number_field(where, {field: value}, field)
    return record


CHECKS: dict[str, Callable[[str, Record], Record]] = {
    "prompts": _check_prompt,
    "examples": _check_example,
    "preferences": _check_preference,
    "ratings": _check_rating,
}


def _as_text(record: Record) -> Record:
    """Writes the messages of a record as transcripts."""
    record = dict(record)
    if "messages" in record:
        *record["prompt"], answer = record.pop("messages")
        record["response"] = answer["content"]
    prompt = record["prompt"]
    if not is_messages(prompt):
        return record
    record["prompt"] = as_transcript(prompt)
    for name in ("response", "chosen", "rejected"):
        if name in record:
            record[name] = _answer_text(prompt, record[name])
    if "responses" in record:
        record["responses"] = [
            _answer_text(prompt, value) for value in record["responses"]
        ]
    return record


def _answer_text(prompt: list[Any], value: Any) -> str:
    if isinstance(value, str):
        return f" {value}"
    added = value[len(prompt) :] if value[: len(prompt)] == prompt else value
    if len(added) == 1:
        return f" {added[0]['content']}"
    before = as_transcript(added[:-1]).removeprefix("\n\nAssistant:")
    return f"{before} {added[-1]['content']}"
