import numpy as np
import pytest

from tfrlhf.data import DataError
from tfrlhf.data import batches_by_length
from tfrlhf.data import encode_prompts


def test_ragged_prompts_are_padded_on_the_right(tokenizer):
    prompts = encode_prompts(["xyz", "x"], tokenizer, max_length=8, bucket=4)
    assert type(prompts).__name__ == "Prompts"
    np.testing.assert_array_equal(
        prompts.token_ids, [[120, 121, 122, 0], [120, 0, 0, 0]]
    )
    np.testing.assert_array_equal(
        prompts.padding_mask, [[1, 1, 1, 0], [1, 0, 0, 0]]
    )
    assert prompts.token_ids.dtype == prompts.padding_mask.dtype == np.int32


def test_bos_counts_and_stays(bos_tokenizer):
    prompts = encode_prompts(["xy"], bos_tokenizer, max_length=3)
    np.testing.assert_array_equal(prompts.token_ids, [[2, 120, 121]])


@pytest.mark.parametrize(
    ("length", "width"), [(1, 4), (4, 4), (5, 8), (9, 10), (10, 10)]
)
def test_width_is_a_multiple_of_the_bucket(tokenizer, length, width):
    texts = ["x" * length]
    prompts = encode_prompts(texts, tokenizer, max_length=10, bucket=4)
    assert prompts.token_ids.shape == (1, width)


def test_batches_by_length_are_short_first_and_no_wider_than_needed(tokenizer):
    lengths = [40, 3, 70, 3, 33, 1]
    prompts = encode_prompts(["x" * n for n in lengths], tokenizer, 128)
    assert prompts.token_ids.shape == (6, 96)
    parts = list(batches_by_length(prompts, 2))
    assert [rows.tolist() for rows, _ in parts] == [[5, 1], [3, 4], [0, 2]]
    assert [x.token_ids.shape[1] for _, x in parts] == [32, 64, 96]
    for rows, part in parts:
        masks = np.asarray(part.padding_mask)
        assert masks.sum(axis=1).tolist() == [lengths[i] for i in rows]
        assert ((np.asarray(part.token_ids) == 120) == masks).all()


def test_batches_by_length_keep_what_belongs_to_a_prompt_together(tokenizer):
    prompts = encode_prompts(["xxx", "x", "xx"], tokenizer, 8)
    parts = batches_by_length(prompts, 4, each=2)
    assert [rows.tolist() for rows, _ in parts] == [[1, 1, 2, 2], [0, 0]]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("hello", "`texts` must be a list of strings, not the string 'hello'"),
        ([], "`texts` is empty"),
        (["a", 1], "prompt 1: `prompt` must be a string, not 1"),
        (["a", " "], "prompt 1: `prompt` is blank"),
        (
            ["x" * 9],
            "prompt 0: `prompt` is 9 tokens long, more than max_length=8: ",
        ),
    ],
)
def test_bad_prompts(tokenizer, texts, message):
    with pytest.raises(DataError, match=message):
        encode_prompts(texts, tokenizer, max_length=8)


def test_prompt_without_tokens(tokenizer):
    tokenizer.encode = lambda text: []
    with pytest.raises(DataError, match="prompt 0: `prompt` has no tokens"):
        encode_prompts(["a"], tokenizer, max_length=8)


def test_bad_arguments(tokenizer):
    with pytest.raises(ValueError, match="`max_length` must be at least 1"):
        encode_prompts(["a"], tokenizer, max_length=0)
    with pytest.raises(ValueError, match="`bucket` must be at least 1, not 0"):
        encode_prompts(["a"], tokenizer, max_length=8, bucket=0)
