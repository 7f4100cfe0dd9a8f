import numpy as np
import pytest

from tfrlhf.data import DataError
from tfrlhf.data import ratings

EOS = 1
GOOD = {"prompt": "x", "response": "y", "rating": 1}


def test_ratings_on_any_scale(tokenizer, ids):
    result = ratings(
        [
            {"prompt": "x", "response": "yz", "rating": -2.5},
            {"prompt": "x", "response": "", "rating": 80, "weight": 0.25},
            GOOD | {"rating": np.float32(3)},
        ],
        tokenizer,
        max_length=4,
    )
    assert type(result).__name__ == "Ratings"
    np.testing.assert_array_equal(
        result.token_ids,
        [[*ids("xyz"), EOS], [*ids("x"), EOS, 0, 0], [*ids("xy"), EOS, 0]],
    )
    np.testing.assert_array_equal(
        result.padding_mask, [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]]
    )
    np.testing.assert_array_equal(
        result.response_mask, [[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 0]]
    )
    np.testing.assert_array_equal(result.rating, [-2.5, 80, 3])
    np.testing.assert_array_equal(result.weight, [1, 0.25, 1])
    assert result.rating.dtype == result.weight.dtype == np.float32
    assert result.token_ids.dtype == np.int32


@pytest.mark.parametrize(
    "value", ["5", None, True, float("nan"), float("inf"), 10**400, 1e39]
)
def test_rating_must_be_a_finite_number(tokenizer, value):
    message = "record 0: `rating` must be a finite number, not "
    with pytest.raises(DataError, match=message):
        ratings([GOOD | {"rating": value}], tokenizer, max_length=8)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "x", "response": "y"}, "the field `rating` is missing"),
        (GOOD | {"weight": "a"}, "`weight` must be a finite number, not 'a'"),
        (GOOD | {"weight": -1}, "`weight` must not be negative, not -1.0"),
        (GOOD | {"prompt": " "}, "`prompt` is blank"),
        (GOOD | {"response": 1}, "`response` must be a string, not 1"),
        (
            GOOD | {"response": "y" * 8},
            "`prompt` and `response` are 10 tokens",
        ),
    ],
)
def test_bad_records(tokenizer, record, message):
    with pytest.raises(DataError, match="record 0: " + message):
        ratings([record], tokenizer, max_length=8)


def test_tokenizer_without_eos(endless_tokenizer):
    with pytest.raises(ValueError, match="no end-of-sequence token"):
        ratings([GOOD], endless_tokenizer, max_length=8)
