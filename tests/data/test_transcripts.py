import pytest

from tfrlhf.data import DataError
from tfrlhf.data import read_transcripts


def read(write_lines, chosen, rejected):
    path = write_lines({"chosen": chosen, "rejected": rejected})
    (record,) = read_transcripts(path)
    assert record["prompt"] + record["chosen"] == chosen
    assert record["prompt"] + record["rejected"] == rejected
    assert record.pop("_where") == f"{path}:1"
    return tuple(record[field] for field in ("prompt", "chosen", "rejected"))


def test_the_last_answer_is_the_response(write_lines):
    start = "\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant:"
    assert read(write_lines, start + " d \n", start + " e") == (
        start,
        " d \n",
        " e",
    )


def test_answers_that_begin_alike_are_not_cut_in_the_middle(write_lines):
    start = "\n\nHuman: a\n\nAssistant:"
    assert read(write_lines, start + " No way", start + " No, thanks") == (
        start,
        " No way",
        " No, thanks",
    )


def test_transcripts_that_part_early_keep_later_turns(write_lines):
    start = "\n\nHuman: a\n\nAssistant:"
    rest = "\n\nHuman: c\n\nAssistant: d"
    assert read(write_lines, start + " b1" + rest, start + " b2" + rest) == (
        start,
        " b1" + rest,
        " b2" + rest,
    )


def test_one_transcript_may_be_the_beginning_of_the_other(write_lines):
    start = "\n\nHuman: a\n\nAssistant:"
    assert read(write_lines, start, start + " b") == (start, "", " b")


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: a"},
            "`chosen` and `rejected` are the same text",
        ),
        (
            {
                "chosen": "\n\nHuman: a\n\nAssistant: c",
                "rejected": "\n\nHuman: b\n\nAssistant: c",
            },
            r"share no turn that begins with '\\n\\nAssistant:': give both",
        ),
        ({"chosen": "a"}, "the field `rejected` is missing"),
        ({"chosen": "a", "rejected": 1}, "`rejected` must be a string"),
        ({"chosen": "", "rejected": "a"}, "`chosen` is blank"),
        ("{", "the line is not valid JSON"),
    ],
)
def test_bad_lines(write_lines, record, message):
    good = {"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b"}
    path = write_lines(good, record)
    with pytest.raises(DataError, match=r"data\.jsonl:2: .*" + message):
        read_transcripts(path)
    with pytest.warns(UserWarning, match="skipped 1 bad records of 2"):
        assert len(read_transcripts(path, skip_bad=True)) == 1
