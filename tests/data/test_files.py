import gzip
import json

import pytest

from tfrlhf.data import DataError
from tfrlhf.data import files
from tfrlhf.data import load


def places_and_prompts(records):
    return [
        (record["_where"].rsplit("/", 1)[-1], record["prompt"])
        for record in records
    ]


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        return path

    return write


ROWS = [{"prompt": f"p {i}", "response": "r" * i} for i in (1, 2, 3)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_json_lines(write, name):
    records = load(write(name, LINES))
    expected = [(f"{name}:{i}", f"p {i}") for i in (1, 2, 3)]
    assert places_and_prompts(records) == expected
    assert places_and_prompts(records) == expected
    assert [r["response"] for r in records] == ["r", "rr", "rrr"]


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_json_array(write, name):
    records = load(write(name, json.dumps(ROWS, indent=1)))
    assert places_and_prompts(records) == [
        (f"{name}:{line}", f"p {i}") for i, line in ((1, 2), (2, 6), (3, 10))
    ]


def test_an_array_is_read_through_a_window(write, monkeypatch):
    # Long strings, escapes and literals are cut at every place.
    monkeypatch.setattr(files, "CHUNK", 7)
    rows = [
        {"prompt": '\\"\n,]' + "é😁" * i, "response": "]", "n": [None, 1.5, i]}
        for i in range(40)
    ]
    for options in ({}, {"indent": 2}, {"ensure_ascii": False}):
        path = write("a.json", json.dumps(rows, **options))
        read = [dict(item) for _, item in files.read_json_array(path)]
        assert read == rows


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.json:1: the file begins with its end"),
        ('{"prompt": "x"}', 'begins with \'{"prompt": "x"}\' and not'),
        ("[]", "its array has no records"),
        ('[\n{"prompt": "x"}\n', r"a\.json:3: after a record comes its end"),
        ('[{"prompt": "x"},\n{"prompt": "', r"a\.json:2: .*Unterminated"),
        ('[{"prompt": "x"},\n{"prompt": nul', r"a\.json:2: .*not valid JSON"),
        ('[{"prompt": "x"} {}]', "after a record comes '{}]'"),
        ('[{"prompt": "x"},\n12]', r"a\.json:2: the array holds 12 and not"),
    ],
)
def test_bad_arrays(write, content, message):
    with pytest.raises(DataError, match=message):
        list(load(write("a.json", content)))


def test_bad_json_is_told_without_reading_on(write, monkeypatch):
    monkeypatch.setattr(files, "CHUNK", 100)
    reads = []
    read = files._Window._read
    monkeypatch.setattr(
        files._Window, "_read", lambda self: reads.append(1) or read(self)
    )
    path = write("a.json", '[{"prompt": oops' + "x" * 10_000 + "]")
    with pytest.raises(DataError, match=r"a\.json:1: .*Expecting value"):
        list(load(path))
    assert len(reads) < 5


CSV = 'prompt,response\nshort,"two\nlines, ""quoted"""\nnext,r\n'


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_csv(write, name):
    records = list(load(write(name, CSV)))
    assert places_and_prompts(records) == [
        (f"{name}:2", "short"),
        (f"{name}:4", "next"),
    ]
    assert records[0]["response"] == 'two\nlines, "quoted"'


def test_tsv_and_byte_order_mark(write):
    path = write("a.tsv", "\ufeffprompt\tresponse\nx, y\tz\n")
    (record,) = load(path)
    assert (record["prompt"], record["response"]) == ("x, y", "z")


def test_cells_become_numbers_and_lists(write):
    path = write(
        "a.csv",
        "prompt,responses,ranks,weight,margin\n"
        'p,"[""a"", ""b""]","[1, 0]",0.5,2\np,"[""a"", ""b""]","[0, 1]",,\n',
    )
    first, second = load(path)
    assert first["responses"] == ["a", "b"]
    assert (first["ranks"], first["weight"]) == ([1, 0], 0.5)
    assert first["margin"] == 2.0
    assert not {"weight", "margin"} & set(second)


def test_long_cells(write):
    (record,) = load(write("a.csv", "prompt\n" + "x" * 200_000 + "\n"))
    assert len(record["prompt"]) == 200_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"a\.csv is empty"),
        ("prompt\n", r"a\.csv has column names but no rows"),
        ("prompt,prompt\nx,y\n", r"a\.csv:1: the columns .* must have names"),
        ("prompt,\nx,y\n", r"a\.csv:1: the columns"),
        ("prompt,b\nx\n", r"a\.csv:2: the row has 1 cells for 2 columns"),
        ('prompt\n"x\n', r"a\.csv:2: the row cannot be read"),
        (b"prompt\nx\xff\n", r"a\.csv:2: `prompt` is not UTF-8"),
        ("prompt,response,rating\nx,y,good\n", r"csv:2: `rating` must be a f"),
        ("prompt,responses\nx,[1\n", r"csv:2: `responses` is not valid JSON"),
    ],
)
def test_bad_tables(write, content, message):
    with pytest.raises(DataError, match=message):
        list(load(write("a.csv", content)))


def test_bad_lines_are_skipped_and_counted(write):
    lines = [
        '{"prompt": "good"}',
        "{",
        '{"prompt": "half \\ud83d"}',
        '{"prompt": "also good"}',
        b'{"prompt": "\xff"}',
    ]
    content = b"\n".join(
        x if isinstance(x, bytes) else x.encode() for x in lines
    )
    records = load(write("a.jsonl", content), skip_bad=True)
    with pytest.warns(UserWarning, match=r"skipped 3 bad .*a\.jsonl:2: the li"):
        assert [r["prompt"] for r in records] == ["good", "also good"]
    assert records.skipped == 3
    with pytest.raises(DataError, match=r"a\.jsonl:2: the line is not valid"):
        list(load(write("a.jsonl", content)))


def test_bad_rows_of_a_table_are_skipped(write):
    records = load(write("a.csv", "prompt,b\nx\ny,z\n"), skip_bad=True)
    with pytest.warns(UserWarning, match="skipped 1 bad"):
        assert [record["prompt"] for record in records] == ["y"]


def test_nothing_but_bad_records(write):
    records = load(write("a.jsonl", "{\n"), skip_bad=True)
    with pytest.raises(DataError, match=r"no records that can be used: .*:1"):
        list(records)


def test_cut_gzip(write):
    path = write("a.csv.gz", "prompt\n" + "text\n" * 1000)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(DataError, match="not a complete gzip file"):
        list(load(path))
