"""What people answered in Argilla and Label Studio, to flat records.

Knows the exports of both; a record comes out for each answer, with who gave it
under `annotator` where the export tells. Items without a submitted answer give
no record.
"""

import reprlib
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record

ANSWERS = ".responses"
_DROPPED = ("discarded", "draft", "pending")


class Answer(NamedTuple):
    """What one person said.

    Attributes:
        value: A number, a text, or a ranking.
        annotator: Who it was; None where the export does not tell.
    """

    value: Any
    annotator: Any = None


def is_argilla(record: Record) -> bool:
    """Tells an Argilla record: nested, flattened or of version 1."""
    if isinstance(record.get("fields"), dict):
        return True
    return any(
        (name.endswith(ANSWERS) and isinstance(value, list))
        or _answers_of_version_1(value)
        for name, value in record.items()
    )


def is_label_studio(record: Record) -> bool:
    """Tells a task of Label Studio's JSON export."""
    return isinstance(record.get("data"), dict) and isinstance(
        record.get("annotations"), list
    )


def from_argilla(
    where: str, record: Record, columns: Mapping[str, str]
) -> list[Record]:
    """Returns the flat records of an Argilla record.

    A question answered with numbers becomes `rating`, a ranking becomes
    `responses` and `ranks`, a label that names a text field `chosen` and
    `rejected`, and any other text `response`.

    Args:
        where: The place of the record.
        record: As Argilla's `to_list`, `to_json` or `to_datasets` gives it.
        columns: Project's name to the name of a field or question.

    Raises:
        DataError: Several questions that could be meant.
    """
    texts, questions = _argilla_parts(record)
    answered = {name: values for name, values in questions.items() if values}
    wanted = set(columns.values())
    if len(answered) > 1 and wanted & set(answered):
        answered = {n: v for n, v in answered.items() if n in wanted}
    if len(answered) > 1:
        raise DataError(
            f"{where}: the questions {', '.join(answered)} are answered: name "
            "the one to learn from, such as "
            f"columns={{'rating': {next(iter(answered))!r}}}."
        )
    for name, values in answered.items():
        return _flat(where, name, texts, values, columns)
    return []


def from_label_studio(
    where: str, record: Record, columns: Mapping[str, str]
) -> list[Record]:
    """Returns the flat records of a Label Studio task.

    Ratings and numbers become `rating`, a pairwise choice `chosen` and
    `rejected` (the left and the right one are the two texts beside the
    prompt, in their order, or the columns "left" and "right"), a ranking
    `responses`, a text area `response`. Cancelled annotations are left out.

    Args:
        where: The place of the task.
        record: A task with `data` and `annotations`.
        columns: Project's name to the name of a field of `data`.

    Raises:
        DataError: A pair without two texts.
    """
    texts = record["data"]
    found: dict[str, list[Answer]] = {}
    for annotation in record["annotations"]:
        if annotation.get("was_cancelled"):
            continue
        who = annotation.get("completed_by")
        if isinstance(who, dict):
            who = who.get("email", who.get("id"))
        for result in annotation.get("result") or []:
            kind, value = result.get("type"), result.get("value") or {}
            for answer in _label_studio_answer(
                where, texts, kind, value, columns
            ):
                found.setdefault(str(result.get("from_name")), []).append(
                    Answer(answer, who)
                )
    return [
        flat
        for name, answers in found.items()
        for flat in _flat(where, name, texts, answers, columns)
    ]


def _answers_of_version_1(value: Any) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and isinstance(value[0], dict)
        and {"user_id", "value", "status"} <= set(value[0])
    )


def _argilla_parts(record: Record) -> tuple[Record, dict[str, list[Answer]]]:
    """Returns the texts, and the submitted answers to each question."""
    if isinstance(record.get("fields"), dict):
        metadata = record.get("metadata")
        texts = dict(metadata) if isinstance(metadata, dict) else {}
        texts |= record["fields"]
        questions = record.get("responses") or {}
        return texts, {
            name: _submitted(answers) for name, answers in questions.items()
        }
    texts, questions = {}, {}
    for name, value in record.items():
        question = name.removesuffix(ANSWERS)
        if name.endswith(ANSWERS):
            unknown = [None] * len(value or [])
            states = record.get(f"{name}.status") or unknown
            users = record.get(f"{name}.users") or unknown
            questions[question] = [
                Answer(answer, user)
                for answer, state, user in zip(
                    value or [], states, users, strict=True
                )
                if state not in _DROPPED
            ]
        elif _answers_of_version_1(value):
            questions[question] = _submitted(value)
        elif ".responses." not in name and ".suggestion" not in name:
            texts[name] = value
    return texts, questions


def _submitted(answers: Any) -> list[Answer]:
    return [
        Answer(answer.get("value"), answer.get("user_id"))
        for answer in answers or []
        if answer.get("status") not in _DROPPED
        and answer.get("value") is not None
    ]


def _label_studio_answer(
    where: str,
    texts: Record,
    kind: Any,
    value: Record,
    columns: Mapping[str, str],
) -> list[Any]:
    """Returns what one result says: a number, a text, or ranked names."""
    if kind in ("rating", "number"):
        return [value.get(kind)]
    if kind == "choices":
        return [_number(choice) for choice in value.get("choices", [])[:1]]
    if kind == "textarea":
        text = value.get("text")
        return text[:1] if isinstance(text, list) else [text]
    if kind == "pairwise":
        pair = _pair(where, texts, columns)
        return [pair if value.get("selected") == "left" else pair[::-1]]
    if kind == "ranker":
        ranked = value.get("ranker")
        ranked = ranked.get("rank") if isinstance(ranked, dict) else ranked
        return [_items(where, texts, ranked or [])]
    return []


def _pair(where: str, texts: Record, columns: Mapping[str, str]) -> list[str]:
    if "left" in columns and "right" in columns:
        return [columns["left"], columns["right"]]
    prompt = columns.get("prompt", "prompt")
    pair = [
        name
        for name, value in texts.items()
        if name != prompt and isinstance(value, str)
    ]
    if len(pair) != 2:
        raise DataError(
            f"{where}: `data` must hold the prompt and two more texts, not "
            f"{reprlib.repr(pair)}: name them with "
            "columns={'left': ..., 'right': ...}."
        )
    return pair


def _items(where: str, texts: Record, ids: list[Any]) -> list[Any]:
    """Returns the texts of a ranked list of items, as [{"text": ...}]."""
    items = {
        str(item["id"]): item
        for value in texts.values()
        if isinstance(value, list)
        for item in value
        if isinstance(item, dict) and "id" in item
    }
    bodies = []
    for name in map(str, ids):
        item = items.get(name, {})
        body = next((item[k] for k in ("body", "text", "html") if k in item), 0)
        if not isinstance(body, str):
            raise DataError(
                f"{where}: the ranked item {name!r} has no text in `data`: "
                "give the items `id` and `body`."
            )
        bodies.append({"text": body})
    return bodies


def _number(choice: Any) -> Any:
    try:
        return float(choice)
    except (TypeError, ValueError):
        return choice


def _flat(
    where: str,
    question: str,
    texts: Record,
    answers: list[Answer],
    columns: Mapping[str, str],
) -> list[Record]:
    """Returns the records of all answers to one question."""
    numbers = [a for a in answers if isinstance(a.value, int | float)]
    if numbers:
        # Under its own name where `columns` looks for it.
        name = question if columns.get("rating") == question else "rating"
        return [
            texts | {name: [answer.value]} | _who(answer, columns)
            for answer in numbers
        ]
    return [
        _one(where, question, texts, answer.value, columns)
        | _who(answer, columns)
        for answer in answers
    ]


def _who(answer: Answer, columns: Mapping[str, str]) -> Record:
    """Names the annotator, unless `columns` looks for the name elsewhere."""
    if answer.annotator is None or "annotator" in columns:
        return {}
    return {"annotator": str(answer.annotator)}


def _one(
    where: str,
    question: str,
    texts: Record,
    answer: Any,
    columns: Mapping[str, str],
) -> Record:
    if isinstance(answer, str) and answer not in texts:
        name = question if columns.get("response") == question else "response"
        return texts | {name: answer}
    prompt = columns.get("prompt", "prompt")
    if isinstance(answer, str):
        others = [
            name
            for name, value in texts.items()
            if isinstance(value, str)
            and name not in (prompt, answer, "id")
            and not name.startswith(("_", "status"))
        ]
        answer = [{"value": answer, "rank": 1}] + [
            {"value": name, "rank": 2} for name in others
        ]
    if not isinstance(answer, list) or len(answer) < 2:
        raise DataError(
            f"{where}: the answer {reprlib.repr(answer)} to `{question}` is "
            "no number, ranking or text: leave the question out."
        )
    responses = [_text_of(where, texts, entry) for entry in answer]
    ranks = [
        entry["rank"] if isinstance(entry, dict) and "rank" in entry else index
        for index, entry in enumerate(answer)
    ]
    used = {
        e["value"] if isinstance(e, dict) and "value" in e else e
        for e in answer
        if isinstance(e, str) or "value" in e
    }
    rest = {name: value for name, value in texts.items() if name not in used}
    return rest | {"responses": responses, "ranks": ranks}


def _text_of(where: str, texts: Record, entry: Any) -> Any:
    if isinstance(entry, dict) and "text" in entry:
        return entry["text"]
    name = entry.get("value") if isinstance(entry, dict) else entry
    if name not in texts:
        raise DataError(
            f"{where}: the ranking names {name!r}, which is no field of the "
            f"record ({', '.join(texts)}): rank the names of its fields."
        )
    return texts[name]
