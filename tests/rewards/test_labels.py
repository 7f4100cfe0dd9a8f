import pytest

from tfrlhf.rewards import LabelMatch
from tfrlhf.rewards import read_labels
from tfrlhf.rewards import write_labels


def test_labels_are_read_as_they_are_written():
    labels = {"topic": "interest rates", "sentiment": "neutral"}
    assert read_labels(write_labels(labels)) == labels
    assert read_labels(" no labels at all") == {}
    assert read_labels("a: x; a: y; b:") == {"a": "y"}


def test_a_label_is_right_or_not():
    score = LabelMatch("topic")
    answers = [" topic: rates; sentiment: x", " topic: markets", "", "topic: a"]
    golds = ["rates", "rates", "rates", ["b", "a"]]
    assert score([""] * 4, answers, topic=golds) == [1.0, 0.0, 0.0, 1.0]


def test_the_column_must_be_there():
    with pytest.raises(ValueError, match="LabelMatch reads the column 'topic'"):
        LabelMatch("topic")([""], [""], sentiment=["x"])
