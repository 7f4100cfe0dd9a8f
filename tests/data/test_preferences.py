import numpy as np
import pytest

from tfrlhf.data import DataError
from tfrlhf.data import preferences

BOS, EOS = 2, 1
PAIR = {"prompt": "x", "chosen": "y", "rejected": "z"}
LIST = {"prompt": "x", "responses": ["y", "z", "w"]}


def test_pairs(tokenizer, ids):
    result = preferences(
        [
            PAIR,
            {"prompt": "xx", "chosen": "", "rejected": "yz"}
            | {"weight": 2, "margin": 0.5},
        ],
        tokenizer,
        max_length=5,
    )
    assert type(result).__name__ == "Preferences"
    np.testing.assert_array_equal(
        result.token_ids,
        [
            [[*ids("xy"), EOS, 0, 0], [*ids("xz"), EOS, 0, 0]],
            [[*ids("xx"), EOS, 0, 0], [*ids("xxyz"), EOS]],
        ],
    )
    np.testing.assert_array_equal(
        result.padding_mask,
        [
            [[1, 1, 1, 0, 0], [1, 1, 1, 0, 0]],
            [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]],
        ],
    )
    np.testing.assert_array_equal(
        result.response_mask,
        [
            [[0, 1, 1, 0, 0], [0, 1, 1, 0, 0]],
            [[0, 0, 1, 0, 0], [0, 0, 1, 1, 1]],
        ],
    )
    np.testing.assert_array_equal(result.ranks, [[0, 1], [0, 1]])
    np.testing.assert_array_equal(result.weight, [1, 2])
    np.testing.assert_array_equal(result.margin, [0, 0.5])
    assert {array.dtype for array in result[:4]} == {np.dtype(np.int32)}
    assert result.weight.dtype == result.margin.dtype == np.float32


def test_absent_candidates_are_padding_with_rank_minus_one(tokenizer, ids):
    result = preferences([PAIR, LIST], tokenizer, max_length=8)
    assert result.token_ids.shape == (2, 3, 8)
    np.testing.assert_array_equal(result.ranks, [[0, 1, -1], [0, 1, 2]])
    assert not result.token_ids[0, 2].any()
    assert not result.padding_mask[0, 2].any()
    assert not result.response_mask[0, 2].any()
    assert list(result.token_ids[1, 2, :3]) == [*ids("xw"), EOS]


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [([2, 0, 1], [2, 0, 1]), ([1, 1, 3], [0, 0, 1]), ([5, 9, 5], [0, 1, 0])],
)
def test_ranks_may_tie_and_are_renumbered(tokenizer, ranks, expected):
    result = preferences([LIST | {"ranks": ranks}], tokenizer, max_length=8)
    np.testing.assert_array_equal(result.ranks, [expected])


def test_equal_responses_may_tie(tokenizer):
    record = {"prompt": "x", "responses": ["y", "y", "z"], "ranks": [0, 0, 1]}
    result = preferences([record], tokenizer, max_length=8)
    np.testing.assert_array_equal(result.ranks, [[0, 0, 1]])


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "chosen": "y"}, "the field `rejected` is missing"),
        ({"prompt": "x"}, "the field `chosen` is missing"),
        (PAIR | {"prompt": "\n"}, "`prompt` is blank"),
        (PAIR | {"prompt": 1}, "`prompt` must be a string, not 1"),
        (PAIR | {"chosen": None}, "`chosen` must be a string, not None"),
        (PAIR | {"weight": float("nan")}, "`weight` must be a finite number"),
        (PAIR | {"margin": -1}, "`margin` must not be negative"),
        (
            PAIR | {"rejected": "y"},
            "`chosen` and `rejected` are the same text: correct",
        ),
        (
            PAIR | {"rejected": "z" * 7},
            "`prompt` and `rejected` are 9 tokens long with EOS, more than "
            "max_length=8: ",
        ),
        (
            LIST | {"responses": ["y"]},
            r"`responses` must be a list of two or more strings, not \['y'\]",
        ),
        (LIST | {"responses": "yz"}, "`responses` must be a list of two"),
        (LIST | {"responses": ["y", 1]}, r"`responses\[1\]` must be a string"),
        (
            LIST | {"responses": ["y", "z", "y"]},
            r"`responses\[0\]` and `responses\[2\]` are the same text",
        ),
        (
            LIST | {"responses": ["y", "z" * 8]},
            r"`prompt` and `responses\[1\]` are 10 tokens",
        ),
        (
            LIST | {"ranks": [0, 1]},
            r"`ranks` must be a list of 3 whole numbers, .*, not \[0, 1\]",
        ),
        (LIST | {"ranks": 1}, "`ranks` must be a list of 3 whole numbers"),
        (
            LIST | {"ranks": [0, 1, -1]},
            r"`ranks` must hold whole numbers from 0 \(best\), not -1: ",
        ),
        (
            LIST | {"ranks": [0, 1, 1.5]},
            r"`ranks` must hold whole numbers .* not 1\.5",
        ),
        (
            LIST | {"ranks": [0, 1, True]},
            "`ranks` must hold whole numbers .* not True",
        ),
        (LIST | {"ranks": [1, 1, 1]}, "`ranks` are all equal"),
    ],
)
def test_bad_records(tokenizer, record, message):
    with pytest.raises(DataError, match="^record 1: " + message):
        preferences([PAIR, record], tokenizer, max_length=8)


def rows(result):
    """The ids of each candidate without padding, prompt apart."""
    ids = zip(
        result.token_ids.reshape(-1, result.token_ids.shape[-1]),
        result.padding_mask.reshape(-1, result.token_ids.shape[-1]),
        result.response_mask.reshape(-1, result.token_ids.shape[-1]),
        strict=True,
    )
    return [
        (
            list(row[(mask == 1) & (response == 0)]),
            list(row[response == 1]),
        )
        for row, mask, response in ids
    ]


def test_truncation_keeps_the_end_of_the_prompt_for_both(tokenizer, ids):
    record = {"prompt": "uvwx", "chosen": "y", "rejected": "zzz"}
    result = preferences([record], tokenizer, max_length=6, truncate=True)
    assert rows(result) == [
        (ids("wx"), [*ids("y"), EOS]),
        (ids("wx"), [*ids("zzz"), EOS]),
    ]


def test_truncation_leaves_what_fits(tokenizer, ids):
    record = {"prompt": "uvwx", "chosen": "y", "rejected": "z"}
    result = preferences([record], tokenizer, max_length=6, truncate=True)
    assert rows(result) == [
        (ids("uvwx"), [*ids("y"), EOS]),
        (ids("uvwx"), [*ids("z"), EOS]),
    ]


def test_truncation_keeps_bos(bos_tokenizer, ids):
    record = {"prompt": "uvwx", "chosen": "y", "rejected": "zz"}
    result = preferences([record], bos_tokenizer, max_length=6, truncate=True)
    assert rows(result) == [
        ([BOS, *ids("wx")], [*ids("y"), EOS]),
        ([BOS, *ids("wx")], [*ids("zz"), EOS]),
    ]


def test_a_response_that_does_not_fit_loses_its_end_and_eos(
    tokenizer, bos_tokenizer, ids
):
    record = {"prompt": "uvwx", "chosen": "y", "rejected": "abcdefgh"}
    result = preferences([record], tokenizer, max_length=5, truncate=True)
    assert rows(result) == [
        (ids("x"), [*ids("y"), EOS]),
        (ids("x"), [3, *ids("cde")]),
    ]
    result = preferences([record], bos_tokenizer, max_length=5, truncate=True)
    assert rows(result) == [
        ([BOS, *ids("x")], [*ids("y"), EOS]),
        ([BOS, *ids("x")], [3, *ids("cd")]),
    ]


def test_pairs_that_differ_only_behind_the_cut_are_refused(tokenizer):
    record = {"prompt": "x", "chosen": "yyyyyya", "rejected": "yyyyyyz"}
    message = (
        "record 0: `chosen` and `rejected` become the same 4 tokens with "
        "max_length=5: raise max_length"
    )
    with pytest.raises(DataError, match=message):
        preferences([record], tokenizer, max_length=5, truncate=True)


def test_skip_bad_counts_and_gives_the_first_reason(tokenizer):
    bad = [PAIR | {"rejected": "y"}, PAIR | {"prompt": ""}]
    message = (
        "^skipped 2 bad records of 3, the first because record 0: `chosen` "
        "and `rejected` are the same text"
    )
    with pytest.warns(UserWarning, match=message) as caught:
        result = preferences(
            [bad[0], PAIR, bad[1]], tokenizer, max_length=8, skip_bad=True
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert result.token_ids.shape == (1, 2, 8)
    with pytest.raises(DataError, match="all of the 2 records are bad, the"):
        preferences(bad, tokenizer, max_length=8, skip_bad=True)


def test_no_records(tokenizer):
    with pytest.raises(DataError, match="`records` is empty"):
        preferences([], tokenizer, max_length=8, skip_bad=True)


def test_tokenizer_without_eos_is_not_skipped(endless_tokenizer):
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        preferences([PAIR], endless_tokenizer, max_length=8, skip_bad=True)
