"""Runs of like length, fewer rows to the end: the completions of one loop."""

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
from tfrlhf.models import decoder
from tfrlhf.models.sampler import uniform_draws
from tfrlhf.types import Prompts

# Of the vocabulary of small models; each may end a response.
SIXTH = tuple(range(0, small.tokenizer().vocabulary_size, 6))
compiled = functools.partial(tf.function, autograph=False)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(decoder, "SPARED", 1)


def prompts(rows, width=5, smallest=1):
    numbers = np.random.default_rng(0)
    ids = numbers.integers(8, 16, [rows, width])
    mask = np.arange(width) < numbers.integers(smallest, width + 1, [rows, 1])
    return Prompts(tf.constant(ids, tf.int32), tf.constant(mask, tf.int32))


def seeing_rows(policy, sampler):
    """A decoder, and the rows of each stage that it runs."""
    found = policy.decoder(sampler, compiled)
    stage, seen = found.stage, []

    def noting(begin, draws, head):
        seen.append(int(draws.shape[0]))
        return stage(begin, draws, head)

    found.stage = noting
    return found, seen


def assert_same(found, expected):
    for received, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(received, wanted, rtol=0, atol=1e-5)


def in_one_loop(policy, given, draws, sampler):
    return compiled(lambda *x: policy.decode(*x, sampler))(given, draws)


def sixteen_tokens():
    """All as likely, so that a draw is sixteen times its token."""
    return Policy(TableModel(np.zeros([16, 16])))


def assert_worked_by_hand(found, given, draws):
    """Token 3 ends a response."""
    each = len(draws) // len(given.token_ids)
    for row in range(len(draws)):
        length = int(tf.reduce_sum(given.padding_mask[row // each]))
        np.testing.assert_array_equal(
            found.token_ids[row, :length],
            given.token_ids[row // each, :length],
        )
        expected = np.floor(16 * draws[row].numpy()).astype(int)
        if (expected == 3).any():
            expected = expected[: np.argmax(expected == 3) + 1]
        end = length + len(expected)
        np.testing.assert_array_equal(
            found.token_ids[row, length:end], expected
        )
        assert int(tf.reduce_sum(found.padding_mask[row])) == end
        assert int(found.finished[row]) == (3 in expected)


def test_every_row_gets_its_own_tokens():
    policy, sampler = sixteen_tokens(), Sampler(stop_token_ids=(3,))
    given, draws = prompts(64), uniform_draws((1, 2), 64, 60)
    decode, seen = seeing_rows(policy, sampler)
    found = decode(given, draws)
    assert seen == [64, 16, 4]
    assert_worked_by_hand(found, given, draws)
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
    ("family", "count"),
    [
        (small.gpt2_policy, 16),
        (small.llama_policy, 16),
        (gemma3_policy, 16),
        # Four responses to a prompt.
        (small.gpt2_policy, 4),
    ],
)
def test_a_cache_goes_on_with_its_rows(family, count):
    policy, sampler = family(), Sampler(stop_token_ids=SIXTH)
    given, draws = prompts(count), uniform_draws((3, 4), 16, 24)
    decode, seen = seeing_rows(policy, sampler)
    found = decode(given, draws)
    assert seen == [16, 4]
    assert_same(found, in_one_loop(policy, given, draws, sampler))


@pytest.mark.parametrize(
    ("rows", "spared"), [(12, 1), (64, 1e15)], ids=["few rows", "a small model"]
)
def test_one_stage_where_more_would_not_pay(rows, spared, monkeypatch):
    monkeypatch.setattr(decoder, "SPARED", spared)
    policy = sixteen_tokens()
    sampler = Sampler(stop_token_ids=tuple(range(8)))
    decode, seen = seeing_rows(policy, sampler)
    decode(prompts(rows, width=90), uniform_draws((7, 8), rows, 24))
    assert seen == [rows]


@pytest.mark.parametrize("place", ["graph", "GPU"])
def test_one_loop_in_a_graph_and_on_a_gpu(place, monkeypatch):
    policy = sixteen_tokens()
    sampler = Sampler(stop_token_ids=(3,))
    draws = uniform_draws((1, 2), 16, 30)
    decode, seen = seeing_rows(policy, sampler)
    monkeypatch.setattr(decoder, "_on_gpu", lambda: place == "GPU")
    run = tf.function(decode) if place == "graph" else decode
    found = run(prompts(16), draws)
    assert seen == []
    assert_same(found, in_one_loop(policy, prompts(16), draws, sampler))


@pytest.mark.parametrize("each", [1, 2])
def test_prompts_of_all_lengths_are_read_in_runs(each):
    policy, sampler = sixteen_tokens(), Sampler(stop_token_ids=(3,))
    given = prompts(100 // each, width=90)
    draws = uniform_draws((9, each), 100, 6)
    decode, seen = seeing_rows(policy, sampler)
    found = decode(given, draws)
    # The last one is filled up.
    assert [rows for rows in seen if rows == 16] == 7 * [16]
    assert_worked_by_hand(found, given, draws)
    assert_same(found, in_one_loop(policy, given, draws, sampler))


def test_prompts_of_like_length_stay_together():
    policy, sampler = sixteen_tokens(), Sampler(stop_token_ids=())
    decode, seen = seeing_rows(policy, sampler)
    decode(prompts(64, width=90, smallest=84), uniform_draws((1, 1), 64, 6))
    assert seen[0] == 64


def test_a_cache_is_read_in_runs():
    policy, sampler = small.gpt2_policy(), Sampler(stop_token_ids=SIXTH)
    given, draws = prompts(32, width=40), uniform_draws((2, 2), 32, 4)
    decode, seen = seeing_rows(policy, sampler)
    found = decode(given, draws)
    assert seen[0] == 16
    assert_same(found, in_one_loop(policy, given, draws, sampler))
