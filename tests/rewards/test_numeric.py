"""Numbers in text, and the answers of GSM8K."""

import gzip
import json
from fractions import Fraction

import pytest

from tfrlhf.rewards import NumericAnswer
from tfrlhf.rewards.numeric import find_number


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("72", 72),
        ("It is 72.", 72),
        ("First 3, then 5", 5),
        ("1,234,567 clips", 1234567),
        ("1,234.50", Fraction(2469, 2)),
        ("12,34", 34),
        ("1,2345", 2345),
        ("72.00", 72),
        (".5", Fraction(1, 2)),
        ("-3", -3),
        ("−3", -3),
        ("+3", 3),
        ("8 - 5", 5),
        ("8-5", 5),
        ("$-4", -4),
        ("-$4", -4),
        ("¥1,000元", 1000),
        ("共72个", 72),
        ("是１２", 12),
        ("3/4 of it", Fraction(3, 4)),
        ("-3/4", Fraction(-3, 4)),
        ("in H2O there are 5", 5),
        ("5 of H2O", 5),
        ("48/2 = <<48/2=24>>24 clips", 24),
        ("no 9\n#### 72", 72),
        ("#### 72 (or 73)", 72),
        ("#### 1\n#### -2", -2),
        ("#### $1,200", 1200),
        ("7 #### none", None),
        ("1/0", None),
        ("none", None),
        ("", None),
        ("9" * 5000, None),
    ],
)
def test_find_number(text, expected):
    number = find_number(text)
    assert (number and number.value) == expected
    assert not (number and number.percent)


@pytest.mark.parametrize(
    ("response", "gold", "expected"),
    [
        ("so 1,200.0", "1200", 1.0),
        ("1/2", "0.5", 1.0),
        ("0.333", "1/3", 0.0),
        ("1000001", "1000000", 0.0),
        ("72", 72, 1.0),
        ("0.1", 0.1, 1.0),
        ("72", "solved\n#### 72", 1.0),
        ("-72", "72", 0.0),
        # A percent sign is a unit or a division by 100, as the other has it.
        ("50%", "50", 1.0),
        ("50 %", "0.5", 1.0),
        ("0.5", "50%", 1.0),
        ("50%", "50%", 1.0),
        ("0.5%", "50%", 0.0),
        ("50", "0.5", 0.0),
        ("none", "0", 0.0),
    ],
)
def test_numeric_answer(response, gold, expected):
    assert NumericAnswer()(["?"], [response], answer=[gold]) == [expected]


def test_columns():
    assert NumericAnswer("n")(["?"], ["3"], n=[3], answer=[4]) == [1.0]
    with pytest.raises(ValueError, match="NumericAnswer reads the column 'ans"):
        NumericAnswer()(["?"], ["3"])
    for gold in ("three", None, ["3"]):
        with pytest.raises(ValueError, match="'answer'. Received in row 1: "):
            NumericAnswer()(["?"] * 2, ["3"] * 2, answer=[3, gold])


def test_gold_solutions_are_right(shared_data):
    path = shared_data / "data" / "math" / "gsm8k_train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        solutions = [json.loads(line)["answer"] for line in lines]
    assert len(solutions) == 7473
    reward = NumericAnswer()
    prompts = ["?"] * len(solutions)
    assert set(reward(prompts, solutions, answer=solutions)) == {1.0}
    golds = [s.rpartition("#### ")[2] for s in solutions]
    spoken = [f"That makes ${gold}." for gold in golds]
    assert set(reward(prompts, spoken, answer=solutions)) == {1.0}
    # Another one's answer is right where it is the same number.
    numbers = [float(gold.replace(",", "")) for gold in golds]
    same = [float(a == b) for a, b in zip(numbers, numbers[1:], strict=False)]
    received = reward(prompts[1:], spoken[1:], answer=solutions[:-1])
    assert received == same
    assert sum(same) < 0.05 * len(same)
