"""A response tokenised without its prompt has the ids it has after it."""

import json
import random

import pytest
import tokenizers
from tokenizers import pre_tokenizers

import tfrlhf
from tests.texts import ADVERSARIAL
from tests.texts import BILINGUAL
from tfrlhf.models import word_ends

PIECES = [*"ab1 ?'\n\t.:的。é😁", "\u0301", "\u00a0", "\r\n", "'s", " x", "12"]


def byte_level(pattern=None, **options):
    """A tokenizer with many merges across spaces, signs and line breaks."""
    learnt = tfrlhf.Tokenizer.train([*BILINGUAL, *ADVERSARIAL], 600)
    backend = tokenizers.Tokenizer.from_str(learnt.to_json())
    if pattern is not None:
        split = pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated")
        last = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        backend.pre_tokenizer = pre_tokenizers.Sequence([split, last])
    elif options:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(**options)
    return tfrlhf.Tokenizer(backend, bos_id=None, eos_id=0, pad_id=0)


def texts():
    draw = random.Random(1)
    made = [
        "".join(draw.choices(PIECES, k=draw.randint(1, 8))) for _ in range(3000)
    ]
    return [*ADVERSARIAL, *made]


@pytest.mark.parametrize(
    "pattern", [None, word_ends.GPT2, word_ends.LLAMA3, word_ends.QWEN2]
)
def test_joined_ids_are_those_of_the_whole(pattern):
    tokenizer = byte_level(pattern)
    draw = random.Random(2)
    some, tested = texts()[:400], 0
    for prompt in texts():
        response = draw.choice([" ", "", "  ", " \n"]) + draw.choice(some)
        if tokenizer.joins(prompt, response):
            tested += 1
            whole = tokenizer.encode(prompt + response)
            apart = tokenizer.encode(prompt) + tokenizer.encode(response)
            assert whole == apart, (prompt, response)
    assert tested > 1000


@pytest.mark.parametrize("pattern", [None, word_ends.GPT2])
def test_a_sign_and_a_letter_are_two_words(pattern):
    tokenizer = byte_level(pattern)
    draw = random.Random(3)
    some, tested = texts()[:400], 0
    for prompt in texts():
        prompt += draw.choice(["", *"?.:)'。，"])
        response = draw.choice([*"sa1B中", "ll", "'s", "é"]) + draw.choice(some)
        if tokenizer.joins(prompt, response):
            tested += 1
            whole = tokenizer.encode(prompt + response)
            apart = tokenizer.encode(prompt) + tokenizer.encode(response)
            assert whole == apart, (prompt, response)
    assert tested > 1000


def test_a_sign_and_a_letter_that_may_be_one_word():
    tokenizer = byte_level()
    assert tokenizer.joins("x?", "y")
    assert not tokenizer.joins("x'", "s")
    # Inside <|endoftext|>.
    assert not tokenizer.joins("<|", "endoftext|>")
    assert tokenizer.joins("<|", "x")
    for pattern in (word_ends.LLAMA3, word_ends.QWEN2):
        assert not byte_level(pattern).joins("x?", "y")


def test_parts_between_added_tokens_have_ids_of_their_own():
    tokenizer = byte_level()
    eos = "<|endoftext|>"
    draw = random.Random(4)
    some = texts()[:1500]
    made = [
        draw.choice(["", " ", eos]).join(draw.choices([*some, eos], k=6))
        for _ in range(500)
    ]
    cuts = word_ends.find_cuts(tokenizer._backend)
    assert cuts is not None
    assert word_ends.cut(f"a{eos}{eos} b", cuts) == [f"a{eos}", eos, " b"]
    expected = [tokenizer.encode(text) for text in made]
    assert tokenizer.encode_many(made, opening=False) == expected


@pytest.mark.parametrize(
    ("tokens", "certain"),
    [
        (["<a>", "<b>"], True),
        (["<a>", "><b"], False),
        (["<a>", "<a>b"], False),
        (["<a>", "x<a>y"], False),
        (["aba"], False),
        (["<a b>"], False),
    ],
)
def test_added_tokens_that_overlap_are_no_cuts(tokens, certain):
    tokenizer = byte_level()
    tokenizer._backend.add_special_tokens(tokens)
    assert (word_ends.find_cuts(tokenizer._backend) is not None) == certain


def test_where_it_is_not_certain():
    tokenizer = byte_level()
    assert tokenizer.joins("x:", " y")
    assert not tokenizer.joins("x: ", " y")
    assert not tokenizer.joins("x", "y")
    assert not tokenizer.joins("", " y")
    assert not byte_level(r"\w+").joins("x:", " y")
    assert not byte_level(add_prefix_space=True).joins("x:", " y")
    assert not byte_level(use_regex=False).joins("x:", " y")


def test_added_tokens_that_reach_over_a_space():
    for options in ({"lstrip": True}, {"single_word": True}):
        tokenizer = byte_level()
        state = json.loads(tokenizer.to_json())
        backend = tokenizers.Tokenizer.from_str(json.dumps(state))
        backend.add_tokens([tokenizers.AddedToken("<m>", **options)])
        assert not word_ends.splits_at_spaces(backend)


def test_real_tokenizers(gpt2_directory, stories_directory):
    assert tfrlhf.Tokenizer.from_directory(gpt2_directory).joins("x:", " y")
    stories = tfrlhf.Tokenizer.from_directory(stories_directory)
    assert not stories.joins("x:", " y")
