"""Exports of Argilla (2 nested and flattened, 1) and Label Studio."""

import json

import pytest

from tfrlhf.data import DataError
from tfrlhf.data import annotator_agreement
from tfrlhf.data import load
from tfrlhf.data import weight_annotators

TEXTS = {"prompt": "Hi", "response": "Hello."}
PAIR = {"prompt": "Hi", "response-1": "Hello.", "response-2": "Go."}


def loaded(*records, **arguments):
    return [
        {name: value for name, value in record.items() if name != "_where"}
        for record in load(list(records), **arguments)
    ]


def answers(*values, status="submitted"):
    return [
        {"user_id": f"u{i}", "value": value, "status": status}
        for i, value in enumerate(values)
    ]


def nested(fields, metadata=None, **responses):
    return {
        "id": "1",
        "fields": fields,
        "metadata": metadata or {},
        "suggestions": {},
        "responses": responses,
        "status": "completed",
    }


def flattened(fields, **responses):
    record = {"id": "1", "status": "completed", "_server_id": None} | fields
    for name, values in responses.items():
        record[f"{name}.responses"] = values
        record[f"{name}.responses.users"] = ["u"] * len(values)
        record[f"{name}.responses.status"] = ["submitted"] * len(values)
        record[f"{name}.suggestion"] = values[0]
        record[f"{name}.suggestion.score"] = None
    return record


RATED = TEXTS | {"rating": 4.0, "weight": 2.0}


def test_argilla_ratings():
    record = nested(TEXTS, {"topic": "greeting"}, quality=answers(3, 5))
    assert loaded(record) == [RATED | {"topic": "greeting"}]
    own = {"id": "1", "status": "completed"}
    assert loaded(flattened(TEXTS, quality=[3, 5])) == [RATED | own]
    version_1 = TEXTS | {"quality": answers(3, 5), "quality-suggestion": 1}
    assert loaded(version_1) == [RATED | {"quality-suggestion": 1}]
    apart = loaded(flattened(TEXTS, quality=[3, 5]), annotators="apart")
    assert [record["rating"] for record in apart] == [3, 5]


def test_argilla_answers_that_were_not_submitted():
    both = (
        answers(3) + answers(5, status="discarded") + answers(1, status="draft")
    )
    (record,) = loaded(nested(TEXTS, quality=both))
    assert (record["rating"], record["weight"]) == (3.0, 1.0)
    left_out = nested(TEXTS, quality=[])
    assert len(loaded(left_out, nested(TEXTS, quality=answers(3)))) == 1
    with pytest.raises(DataError, match="no records that can be used"):
        loaded(left_out)


def test_argilla_rankings():
    expected = {
        "prompt": "Hi",
        "responses": ["Go.", "Hello."],
        "ranks": [0, 1],
        "annotator": "u0",
    }
    (record,) = loaded(
        nested(PAIR, order=answers(["response-2", "response-1"]))
    )
    assert record == expected
    ties = [
        {"value": "response-1", "rank": 2},
        {"value": "response-2", "rank": 1},
    ]
    (record,) = loaded(PAIR | {"order": answers(ties)})
    assert record["responses"] == ["Hello.", "Go."]
    assert record["ranks"] == [2, 1]


def test_argilla_labels_that_name_a_response():
    records = loaded(nested(PAIR, better=answers("response-2", "response-1")))
    assert [(r["responses"], r["ranks"]) for r in records] == [
        (["Go.", "Hello."], [1, 2]),
        (["Hello.", "Go."], [1, 2]),
    ]


def test_argilla_texts_become_responses():
    record = nested({"prompt": "Hi"}, answer=answers("Hello, you."))
    assert loaded(record) == [
        {"prompt": "Hi", "response": "Hello, you.", "annotator": "u0"}
    ]


def test_argilla_with_several_questions():
    record = nested(TEXTS, quality=answers(3), safety=answers(5))
    with pytest.raises(
        DataError, match=r"questions quality, safety are .*'rating': 'quality'"
    ):
        loaded(record)
    (record,) = loaded(record, columns={"rating": "safety"})
    assert record["rating"] == 5.0


def test_argilla_rankings_of_unknown_fields():
    record = nested(PAIR, order=answers(["response-3", "response-1"]))
    with pytest.raises(DataError, match="record 0: the ranking names 'respo"):
        loaded(record)


def task(data, *results, **annotation):
    return {
        "id": 1,
        "data": data,
        "annotations": [
            {"completed_by": i, "result": [result]} | annotation
            for i, result in enumerate(results)
        ],
    }


def result(kind, **value):
    return {"from_name": "q", "to_name": "t", "type": kind, "value": value}


def test_label_studio_ratings():
    assert loaded(
        task(TEXTS, result("rating", rating=3), result("rating", rating=5))
    ) == [RATED]
    assert loaded(task(TEXTS, result("number", number=2.5)))[0]["rating"] == 2.5
    assert (
        loaded(task(TEXTS, result("choices", choices=["4"])))[0]["rating"] == 4
    )


def test_label_studio_pairs():
    choice = result("pairwise", selected="right")
    (record,) = loaded(task(PAIR, choice))
    assert record == {
        "prompt": "Hi",
        "responses": ["Go.", "Hello."],
        "ranks": [0, 1],
        "annotator": "0",
    }
    more = PAIR | {"note": "text"}
    with pytest.raises(DataError, match="the prompt and two more texts, not"):
        loaded(task(more, choice))
    sides = {"left": "response-2", "right": "response-1"}
    (record,) = loaded(task(more, choice), columns=sides)
    assert record["responses"] == ["Hello.", "Go."]


def test_label_studio_rankings():
    items = [{"id": "a", "body": "Hello."}, {"id": "b", "body": "Go."}]
    ranked = result("ranker", ranker={"rank": ["b", "a"]})
    (record,) = loaded(task({"prompt": "Hi", "items": items}, ranked))
    assert record["responses"] == ["Go.", "Hello."]
    unknown = result("ranker", ranker={"rank": ["b", "c"]})
    with pytest.raises(DataError, match="the ranked item 'c' has no text"):
        loaded(task({"prompt": "Hi", "items": items}, unknown))


def test_label_studio_texts_and_cancelled_annotations():
    text = result("textarea", text=["Hello, you."])
    (record,) = loaded(task({"prompt": "Hi"}, text))
    assert record["response"] == "Hello, you."
    kept = task({"prompt": "Hi"}, text)
    cancelled = task({"prompt": "Hi"}, text, was_cancelled=True)
    assert len(loaded(cancelled, kept)) == 1


def test_columns_of_a_task():
    data = {"question": "Hi", "text": "Hello."}
    record = task(data, result("rating", rating=3))
    columns = {"prompt": "question", "response": "text"}
    assert loaded(record, columns=columns) == [
        {"prompt": "Hi", "response": "Hello.", "rating": 3.0}
        | {"weight": 1.0, "annotator": "0"}
    ]


def test_an_export_as_a_file(tmp_path):
    path = tmp_path / "export.json"
    tasks = [task(TEXTS, result("rating", rating=3))] * 2
    path.write_text(json.dumps(tasks, indent=2))
    (record,) = load(path)
    assert record["weight"] == 2.0


@pytest.mark.parametrize(
    "record",
    [
        nested(TEXTS, quality=answers(3, 5)),
        TEXTS | {"quality": answers(3, 5)},
        flattened(TEXTS, quality=[3, 5])
        | {"quality.responses.users": ["u0", "u1"]},
        {"id": 1, "data": TEXTS}
        | {
            "annotations": [
                {
                    "completed_by": who,
                    "result": [result("rating", rating=rating)],
                }
                for who, rating in (({"id": 7, "email": "u0"}, 3), ("u1", 5))
            ]
        },
    ],
    ids=["argilla", "argilla 1", "argilla flattened", "label studio"],
)
def test_ratings_keep_who_gave_them(record):
    one, other = loaded(record, annotators="apart")
    assert (one["annotator"], one["rating"]) == ("u0", 3)
    assert (other["annotator"], other["rating"]) == ("u1", 5)
    # A mean is nobody's.
    (mean,) = loaded(record)
    assert (mean["rating"], mean["weight"]) == (4.0, 2.0)
    assert "annotator" not in mean


def test_who_answers_can_be_weighed():
    records = loaded(
        nested(PAIR, better=answers("response-2", "response-1", "response-1"))
    )
    found = annotator_agreement(records)
    assert set(found.annotators) == {"u0", "u1", "u2"}
    weighed = weight_annotators(records, {"u0": 0.5, "u1": 1, "u2": 2})
    assert [record["weight"] for record in weighed] == [0.5, 1.0, 2.0]


def test_another_column_may_name_the_annotator():
    record = nested(TEXTS, {"who": "Ann"}, quality=answers(3))
    (found,) = loaded(record, columns={"annotator": "who"})
    assert found["annotator"] == "Ann"
