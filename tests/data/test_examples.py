import numpy as np
import pytest

from tfrlhf.data import DataError
from tfrlhf.data import examples

EOS, AB = 1, 3


def test_response_and_eos_are_learnt(tokenizer, ids):
    result = examples(
        [
            {"prompt": "xy", "response": "z"},
            {"prompt": "x", "response": "yzz"},
        ],
        tokenizer,
        max_length=5,
    )
    assert type(result).__name__ == "Examples"
    np.testing.assert_array_equal(
        result.token_ids, [[*ids("xyz"), EOS, 0], [*ids("xyzz"), EOS]]
    )
    np.testing.assert_array_equal(
        result.padding_mask, [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    )
    np.testing.assert_array_equal(
        result.loss_mask, [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1]]
    )
    assert {array.dtype for array in result} == {np.dtype(np.int32)}


def test_width_is_a_multiple_of_16(tokenizer):
    records = [{"prompt": "x", "response": "y" * 31}]
    assert examples(records, tokenizer, 100).token_ids.shape == (1, 48)
    assert examples(records, tokenizer, 40).token_ids.shape == (1, 40)


def test_bos_is_in_front_of_the_prompt_only(bos_tokenizer, ids):
    result = examples([{"prompt": "x", "response": "y"}], bos_tokenizer, 4)
    np.testing.assert_array_equal(result.token_ids, [[2, *ids("xy"), EOS]])


def test_parts_that_do_not_join_are_tokenised_apart(tokenizer, ids):
    result = examples([{"prompt": "a", "response": "bab"}], tokenizer, 4)
    np.testing.assert_array_equal(result.token_ids, [[*ids("ab"), AB, EOS]])
    np.testing.assert_array_equal(result.loss_mask, [[0, 1, 1, 1]])


GOOD = {"prompt": "x", "response": "y"}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"response": "y"}, "record 1: the field `prompt` is missing"),
        ({"prompt": "x"}, "record 1: the field `response` is missing"),
        (GOOD | {"prompt": ""}, "record 1: `prompt` is blank"),
        (GOOD | {"prompt": 1}, "record 1: `prompt` must be a string, not 1"),
        (GOOD | {"response": " "}, "record 1: `response` is blank"),
        (GOOD | {"response": []}, r"record 1: `response` must be .*not \[\]"),
        (
            {"prompt": "xxx", "response": "yyyyy"},
            "record 1: `prompt` and `response` are 9 tokens long with EOS, "
            "more than max_length=8: shorten",
        ),
        ("text", "record 1 must be a dict of fields, not 'text'"),
    ],
)
def test_bad_records(tokenizer, record, message):
    with pytest.raises(DataError, match=message):
        examples([GOOD, record], tokenizer, max_length=8)


def test_a_record_from_a_file_is_named_by_its_line(tokenizer):
    record = {"prompt": "", "response": "y", "_where": "a.jsonl:7"}
    with pytest.raises(DataError, match=r"^a\.jsonl:7: `prompt` is blank"):
        examples([record], tokenizer, max_length=8)


def test_no_records(tokenizer):
    with pytest.raises(DataError, match="`records` is empty"):
        examples([], tokenizer, max_length=8)


def test_bad_arguments(tokenizer, endless_tokenizer):
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        examples([GOOD], endless_tokenizer, max_length=8)
    with pytest.raises(ValueError, match="`max_length` must be at least 3"):
        examples([GOOD], tokenizer, max_length=2)
