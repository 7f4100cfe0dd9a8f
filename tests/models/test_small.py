"""`small_policy`: a language model from nothing."""

import numpy as np
import pytest

import tfrlhf
from tests import small

TEXTS = ["The sky is blue.", "天空是蓝色的。"] * 20


def test_it_reads_and_writes_what_it_was_made_from():
    policy = tfrlhf.small_policy(
        TEXTS, vocabulary_size=300, layers=2, width=16, context_length=32
    )
    tokenizer = policy.need_tokenizer()
    assert tokenizer.decode(tokenizer.encode(TEXTS[1])) == TEXTS[1]
    ids = np.asarray([tokenizer.encode("The sky is")], "int32")
    log_probs = np.asarray(policy.log_probs(ids, np.ones_like(ids)))
    # It knows nothing: every token is about as likely.
    np.testing.assert_allclose(
        log_probs[:, 1:], -np.log(tokenizer.vocabulary_size), atol=0.5
    )
    assert policy.context_length == 32


def test_it_takes_a_tokenizer():
    tokenizer = small.tokenizer()
    policy = tfrlhf.small_policy(tokenizer=tokenizer, layers=1, width=16)
    assert policy.need_tokenizer() is tokenizer


@pytest.mark.parametrize("both", [False, True])
def test_it_wants_texts_or_a_tokenizer(both):
    given = {"texts": TEXTS, "tokenizer": small.tokenizer()} if both else {}
    with pytest.raises(ValueError, match="one of them"):
        tfrlhf.small_policy(**given)


def test_it_takes_no_single_string():
    with pytest.raises(ValueError, match="not a string"):
        tfrlhf.small_policy("The sky is blue.")


@pytest.mark.parametrize(
    "wrong", [{"layers": 0}, {"width": 0}, {"width": 18}, {"context_length": 1}]
)
def test_it_says_what_size_is_wrong(wrong):
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=f"`{name}` must .* {value}"):
        tfrlhf.small_policy(tokenizer=small.tokenizer(), **wrong)
