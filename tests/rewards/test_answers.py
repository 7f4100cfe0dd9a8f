"""Exact match and F1 with scores worked out by hand."""

import gzip
import json

import pytest

from tfrlhf.rewards import F1
from tfrlhf.rewards import ExactMatch
from tfrlhf.rewards.answers import answer_words


def score(reward, response, gold):
    return reward(["Who?"], [response], answers=[gold])[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel Tower!", ["eiffel", "tower"]),
        ("an apple a day", ["apple", "day"]),
        ("theatre", ["theatre"]),
        # SQuAD takes ASCII punctuation out and does not split at it.
        ("well-known U.S.A.", ["wellknown", "usa"]),
        ("24–10", ["24–10"]),
        ("“红楼梦”，曹雪芹。", list("红楼梦曹雪芹")),
        ("共 308 分—NFL", ["共", "308", "分", "nfl"]),
        ("。", ["。"]),
        ("the", []),
    ],
)
def test_answer_words(text, expected):
    assert answer_words(text) == expected


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("the Eiffel Tower.", "Eiffel tower", 1.0),
        ("Eiffel Tower in Paris", "Eiffel tower", 0.0),
        ("Paris", ["London", "paris!"], 1.0),
        ("308分", "308 分", 1.0),
        ("《红楼梦》", "红楼梦", 1.0),
        ("红楼", "红楼梦", 0.0),
        ("", "", 1.0),
        ("", "x", 0.0),
    ],
)
def test_exact_match(response, gold, expected):
    assert score(ExactMatch(), response, gold) == expected


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        # in and paris against paris: P = 1/2, R = 1.
        ("in Paris", "Paris", 2 / 3),
        ("in Paris", ["Lyon", "Paris", "in the Paris"], 1.0),
        # A word counts as often as both have it: 2 of 3 and of 2.
        ("no no no", "no no", 4 / 5),
        # 三, 百: P = 2/3, R = 2/2.
        ("三百分", "三百", 4 / 5),
        ("308分", "308", 2 / 3),
        ("London", "Paris", 0.0),
        ("", "Paris", 0.0),
        ("the", "", 1.0),
    ],
)
def test_f1(response, gold, expected):
    assert score(F1(), response, gold) == pytest.approx(expected)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_answers_of_a_data_set_are_right(shared_data, language):
    path = shared_data / "data" / "qa" / f"xquad.{language}.json.gz"
    articles = json.loads(gzip.decompress(path.read_bytes()))["data"]
    questions = [
        question
        for article in articles
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    golds = [[a["text"] for a in q["answers"]] for q in questions]
    assert len(golds) == 1190
    responses = [several[0] for several in golds]
    prompts = [q["question"] for q in questions]
    for reward in (ExactMatch(), F1()):
        assert set(reward(prompts, responses, answers=golds)) == {1.0}
        shifted = reward(prompts, responses[1:] + responses[:1], answers=golds)
        assert sum(shifted) / len(shifted) < 0.1


@pytest.mark.parametrize("reward", [ExactMatch, F1])
def test_columns(reward):
    assert reward("gold")(["Who?"], ["x"], gold=["x"], answers=["y"]) == [1.0]
    with pytest.raises(ValueError, match="the column 'answers'.*Columns: none"):
        reward()(["Who?"], ["x"])
