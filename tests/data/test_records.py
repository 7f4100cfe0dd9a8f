import gzip
import re

import pytest

from tfrlhf.data import DataError
from tfrlhf.data import read_jsonl


def fails(path, message, **kwargs):
    with pytest.raises(DataError, match=message):
        read_jsonl(path, **kwargs)


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_records_carry_their_line(write_lines, name):
    path = write_lines({"prompt": "好"}, "", {"prompt": "b", "x": 1}, name=name)
    assert read_jsonl(path) == [
        {"prompt": "好", "_where": f"{path}:1"},
        {"prompt": "b", "x": 1, "_where": f"{path}:3"},
    ]
    assert len(read_jsonl(str(path))) == 2


def test_byte_order_mark_and_line_separators_in_strings(write_lines):
    path = write_lines(
        b'\xef\xbb\xbf{"prompt": "a"}\r',
        '{"prompt": "one\u2028line\u0085"}',
    )
    first, second = read_jsonl(path)
    assert first["prompt"] == "a"
    assert second["prompt"] == "one\u2028line\u0085"


def test_missing_file_directory_and_other_ending(tmp_path, write_lines):
    fails(tmp_path / "no.jsonl", r"no\.jsonl is not a file: give the path")
    fails(tmp_path, "is not a file")
    fails(write_lines({}, name="a.csv"), r"a\.csv has an ending .* convert it")
    fails(write_lines({}, name="a.csv.gz"), "has an ending")


def test_empty_file(write_lines):
    fails(write_lines(), r"data\.jsonl is empty: write one JSON object a line")
    fails(write_lines("", "  "), "is empty")
    fails(write_lines(name="a.jsonl.gz"), r"a\.jsonl\.gz is empty")


def test_broken_gzip(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(b'{"prompt": "not compressed"}\n')
    fails(path, r"a\.jsonl\.gz is not a complete gzip file .*: fetch or")
    whole = gzip.compress(b'{"prompt": "a"}\n' * 10)
    path.write_bytes(whole[:-6])
    fails(path, "is not a complete gzip file")


def test_bad_lines(write_lines):
    good = {"prompt": "a"}
    place = r"data\.jsonl:2: "
    fails(
        write_lines(good, '{"prompt": a}'),
        place + r"the line is not valid JSON \(Expecting value, column 12\)",
    )
    fails(
        write_lines(good, b'{"prompt": "\xff"}'),
        place + "the line is not UTF-8 at byte 12: save",
    )
    fails(
        write_lines(good, [1, 2]),
        place + r"the line holds \[1, 2\] and not a JSON object: write",
    )
    fails(
        write_lines(good, {"text": "a"}),
        place + r"the field `prompt` is missing: add .* there \(`text`\)",
    )
    fails(write_lines(good, {}), place + r".*that are there \(none\)")
    fails(
        write_lines(good, {"prompt": 3}),
        place + "`prompt` must be a string, not 3: write",
    )
    fails(write_lines(good, {"prompt": None}), "must be a string, not None")
    fails(write_lines(good, {"prompt": " \n"}), place + "`prompt` is blank")
    fails(
        write_lines(good, r'{"prompt": "a\ud83d"}'),
        place + r"`prompt` holds half a character .* at position 1: write",
    )


def test_required_fields_may_be_any(write_lines):
    path = write_lines({"chosen": 1})
    assert read_jsonl(path, required=())[0]["chosen"] == 1
    fails(path, "`rejected` is missing", required=("chosen", "rejected"))


def test_skip_bad_counts_and_gives_the_first_reason(write_lines):
    path = write_lines({"prompt": ""}, "oops", {"prompt": "a"})
    message = re.escape(
        f"skipped 2 bad records of 3, the first because {path}:1: `prompt` is"
    )
    with pytest.warns(UserWarning, match=message):
        assert [r["prompt"] for r in read_jsonl(path, skip_bad=True)] == ["a"]


def test_skip_bad_with_nothing_left(write_lines):
    fails(
        write_lines("oops", "oops"),
        r"all of the 2 records are bad, the first because .*data\.jsonl:1: ",
        skip_bad=True,
    )


def test_messages_are_one_short_line(write_lines):
    for line in ({"prompt": "\n" * 500}, {"prompt": ["\n" * 500]}, "{"):
        path = write_lines(line)
        with pytest.raises(DataError) as error:
            read_jsonl(path)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < len(str(path)) + 150
