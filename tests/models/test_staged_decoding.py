"""Fewer rows to the end: the completions of one loop."""

import functools

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.tables import TableModel
from tfrlhf import Policy
from tfrlhf import Sampler
from tfrlhf.models import decode_loop
from tfrlhf.models import staged_decoding
from tfrlhf.models.sampler import uniform_draws
from tfrlhf.types import Prompts

# Of the vocabulary of small models; each may end a response.
SIXTH = tuple(range(0, small.tokenizer().vocabulary_size, 6))
compiled = functools.partial(tf.function, autograph=False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for module in (decode_loop, staged_decoding):
        monkeypatch.setattr(module, "SPARED", 48)


def prompts(rows, width=5, smallest=1):
    numbers = np.random.default_rng(0)
    ids = numbers.integers(8, 16, [rows, width])
    mask = np.arange(width) < numbers.integers(smallest, width + 1, [rows, 1])
    return Prompts(tf.constant(ids, tf.int32), tf.constant(mask, tf.int32))


def seeing_rows(policy, sampler):
    """A decoder, and the rows of each stage that it runs."""
    decoder = policy.decoder(sampler, compiled)
    stage, seen = decoder.stage, []

    def noting(begin, draws):
        seen.append(int(draws.shape[0]))
        return stage(begin, draws)

    decoder.stage = noting
    return decoder, seen


def assert_same(found, expected):
    for received, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(received, wanted, rtol=0, atol=1e-5)


def in_one_loop(policy, given, draws, sampler):
    return compiled(lambda *x: policy.decode(*x, sampler))(given, draws)


def test_every_row_gets_its_own_tokens():
    # Sixteen tokens, all as likely, one of which ends a response.
    policy = Policy(TableModel(np.zeros([16, 16])))
    sampler = Sampler(stop_token_ids=(3,))
    draws = uniform_draws((1, 2), 64, 60)
    given = prompts(64)
    decoder, seen = seeing_rows(policy, sampler)
    found = decoder(given, draws)
    assert seen == [64, 16, 4]
    for row in range(64):
        length = int(tf.reduce_sum(given.padding_mask[row]))
        expected = np.floor(16 * draws[row].numpy()).astype(int)
        if (expected == 3).any():
            expected = expected[: np.argmax(expected == 3) + 1]
        end = length + len(expected)
        np.testing.assert_array_equal(
            found.token_ids[row, length:end], expected
        )
        assert int(tf.reduce_sum(found.padding_mask[row])) == end
        assert int(found.finished[row]) == (3 in expected)
    assert_same(found, in_one_loop(policy, given, draws, sampler))


def gemma3_policy():
    keras.utils.set_random_seed(5)
    backbone = keras_hub.models.Gemma3Backbone(
        vocabulary_size=small.tokenizer().vocabulary_size,
        image_size=16,
        num_layers=2,
        num_query_heads=2,
        num_key_value_heads=1,
        hidden_dim=16,
        intermediate_dim=32,
        head_dim=8,
        vision_encoder=None,
    )
    return Policy(keras_hub.models.Gemma3CausalLM(None, backbone))


@pytest.mark.parametrize(
    "family", [small.gpt2_policy, small.llama_policy, gemma3_policy]
)
def test_a_cache_goes_on_with_its_rows(family):
    policy = family()
    sampler = Sampler(stop_token_ids=SIXTH)
    draws = uniform_draws((3, 4), 16, 24)
    decoder, seen = seeing_rows(policy, sampler)
    found = decoder(prompts(16), draws)
    assert seen == [16, 4]
    assert_same(found, in_one_loop(policy, prompts(16), draws, sampler))


def test_several_responses_to_a_prompt():
    policy = small.gpt2_policy()
    sampler = Sampler(stop_token_ids=SIXTH)
    draws = uniform_draws((5, 6), 16, 24)
    decoder, seen = seeing_rows(policy, sampler)
    found = decoder(prompts(4), draws)
    assert seen == [16, 4]
    assert_same(found, in_one_loop(policy, prompts(4), draws, sampler))


@pytest.mark.parametrize(
    ("rows", "tokens"), [(12, 24), (16, 3)], ids=["few rows", "few tokens"]
)
def test_one_stage_where_more_would_not_pay(rows, tokens):
    policy = Policy(TableModel(np.zeros([16, 16])))
    sampler = Sampler(stop_token_ids=tuple(range(8)))
    decoder, seen = seeing_rows(policy, sampler)
    decoder(prompts(rows), uniform_draws((7, 8), rows, tokens))
    assert seen == [rows]


def test_a_graph_has_one_stage():
    policy = Policy(TableModel(np.zeros([16, 16])))
    sampler = Sampler(stop_token_ids=(3,))
    draws = uniform_draws((1, 2), 16, 30)
    decoder, seen = seeing_rows(policy, sampler)
    found = tf.function(decoder)(prompts(16), draws)
    assert seen == []
    assert_same(found, in_one_loop(policy, prompts(16), draws, sampler))
