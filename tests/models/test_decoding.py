"""The decode loop against hand-worked completions and against full passes."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.tables import TableModel
from tests.models.tables import counting
from tfrlhf.models.decoding import decode
from tfrlhf.types import Prompts

GREEDY = {"temperature": 0}
EVERYTHING = tuple(range(300))


def prompts(*rows, width):
    token_ids = np.zeros([len(rows), width], np.int32)
    padding_mask = np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        padding_mask[index, : len(row)] = 1
    return Prompts(tf.constant(token_ids), tf.constant(padding_mask))


def run(model, given, draws, **settings):
    """Decodes in a graph, without XLA, which compiles slower."""
    function = tf.function(
        lambda given, draws: decode(model, given, draws, **settings),
        autograph=False,
    )
    return function(given, tf.constant(draws, tf.float32))


@pytest.fixture(scope="module")
def hand_worked():
    """Stops at 7, which stands in a prompt too; 9 fills; 4 new tokens."""
    given = prompts([5], [1, 2], [7, 3], [6], [2, 7, 7], width=3)
    return run(
        counting(12),
        given,
        np.zeros([5, 4]),
        stop_token_ids=(7, 11),
        pad_id=9,
        **GREEDY,
    )


def test_responses_continue_in_place(hand_worked):
    np.testing.assert_array_equal(
        hand_worked.token_ids,
        [
            [5, 6, 7, 9, 9, 9, 9],
            [1, 2, 3, 4, 5, 6, 9],
            [7, 3, 4, 5, 6, 7, 9],
            [6, 7, 9, 9, 9, 9, 9],
            [2, 7, 7, 8, 9, 10, 11],
        ],
    )


def test_masks_end_after_the_stop_token(hand_worked):
    np.testing.assert_array_equal(
        hand_worked.response_mask,
        [
            [0, 1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 1, 1, 0],
            [0, 0, 1, 1, 1, 1, 0],
            [0, 1, 0, 0, 0, 0, 0],
            [0, 0, 0, 1, 1, 1, 1],
        ],
    )
    prompt_lengths = np.array([1, 2, 2, 1, 3])
    np.testing.assert_array_equal(
        hand_worked.padding_mask,
        hand_worked.response_mask.numpy()
        + (np.arange(7) < prompt_lengths[:, None]),
    )


def test_only_a_stop_token_of_the_response_finishes(hand_worked):
    np.testing.assert_array_equal(hand_worked.finished, [1, 0, 1, 1, 1])


def test_log_probs_are_0_outside_the_response(hand_worked):
    outside = hand_worked.response_mask.numpy() == 0
    assert (hand_worked.sampler_log_probs.numpy()[outside] == 0).all()
    # Logits 2 for the successor, 1 for token 0, 0 for ten others.
    expected = 2 - np.log(np.exp(2) + np.exp(1) + 10)
    np.testing.assert_allclose(
        hand_worked.sampler_log_probs.numpy()[~outside], expected, atol=1e-5
    )


def test_dtypes(hand_worked):
    dtypes = [x.dtype.name for x in hand_worked]
    assert dtypes == ["int32"] * 4 + ["float32"]


def test_the_nth_draw_of_a_row_chooses_its_nth_token():
    # Four tokens, all as likely: token = floor(4 × draw).
    draws = np.random.default_rng(0).random([3, 6])
    given = prompts([0], [1, 2, 3], [2, 2], width=4)
    out = run(TableModel(np.zeros([4, 4])), given, draws)
    for row, length in enumerate([1, 3, 2]):
        response = out.token_ids[row, length : length + 6]
        np.testing.assert_array_equal(response, np.floor(4 * draws[row]))
    responding = out.response_mask.numpy() == 1
    assert responding.sum() == 18 and not out.finished.numpy().any()
    np.testing.assert_allclose(
        out.sampler_log_probs.numpy()[responding], -np.log(4), atol=1e-6
    )


def test_ids_under_padding_are_not_read():
    given = prompts([5], [1, 2], width=3)
    dirty = Prompts(
        tf.where(given.padding_mask == 1, given.token_ids, 7),
        given.padding_mask,
    )
    settings = {"stop_token_ids": (7,), "pad_id": 0} | GREEDY
    clean_out = run(counting(12), given, np.zeros([2, 2]), **settings)
    dirty_out = run(counting(12), dirty, np.zeros([2, 2]), **settings)
    for clean, other in zip(clean_out, dirty_out, strict=True):
        np.testing.assert_array_equal(clean, other)


def test_full_passes_end_when_every_row_has_stopped():
    model = counting(300)
    given = prompts([5, 6, 7, 8, 9], [1, 2, 3], width=8)
    settings = {"stop_token_ids": EVERYTHING} | GREEDY
    out = run(model, given, np.zeros([2, 40]), **settings)
    # From the 4th token on, the end of the shorter prompt, to the 6th.
    assert model.calls.numpy() == 3
    np.testing.assert_array_equal(out.finished, [1, 1])
    np.testing.assert_array_equal(tf.reduce_sum(out.response_mask, 1), [1, 1])


class CountingGPT2(keras_hub.models.GPT2CausalLM):
    """Counts its cached steps, the pass over the prompt included."""

    def __init__(self, backbone):
        super().__init__(backbone=backbone, preprocessor=None)
        self.calls = tf.Variable(0)

    def call_with_cache(self, token_ids, cache, cache_update_index):
        self.calls.assign_add(1)
        return super().call_with_cache(token_ids, cache, cache_update_index)


def test_cached_steps_end_when_every_row_has_stopped():
    model = CountingGPT2(small.gpt2_backbone())
    given = prompts([5, 6, 7, 8, 9], [1, 2, 3], width=8)
    settings = {"stop_token_ids": EVERYTHING} | GREEDY
    out = run(model, given, np.zeros([2, 40]), **settings)
    assert model.calls.numpy() == 1 + 3
    np.testing.assert_array_equal(out.finished, [1, 1])


def test_without_a_cache_the_same_tokens():
    policy = small.gpt2_policy(sharpness=6.0)
    plain = keras.Model(policy.model.input, policy.model.output)
    given = prompts([5, 6, 7, 8], [1, 2], width=4)
    draws = np.random.default_rng(1).random([2, 6])
    cached = run(policy.model, given, draws, temperature=0.8)
    passes = run(plain, given, draws, temperature=0.8)
    np.testing.assert_array_equal(cached.token_ids, passes.token_ids)
    np.testing.assert_allclose(
        cached.sampler_log_probs, passes.sampler_log_probs, rtol=0, atol=1e-5
    )


def test_the_sampler_of_the_model_stays_its_own():
    policy = small.gpt2_policy()
    before = policy.model.sampler
    run(policy.model, prompts([1], width=1), np.zeros([1, 1]))
    assert policy.model.sampler is before


@pytest.mark.parametrize("family", [small.gpt2_policy, small.llama_policy])
def test_a_prompt_continued_several_times_is_read_once(family):
    policy = family(sharpness=4.0)
    one = prompts([5, 6, 7], [8], [9, 4], width=3)
    each = Prompts(*(tf.repeat(x, 2, axis=0) for x in one))
    draws = np.random.default_rng(0).random([6, 5])
    settings = {"stop_token_ids": (2,)}
    function = tf.function(
        lambda given, draws: decode(policy.model, given, draws, **settings),
        autograph=False,
        jit_compile=True,
    )
    draws = tf.constant(draws, tf.float32)
    for received, expected in zip(
        function(one, draws), function(each, draws), strict=True
    ):
        np.testing.assert_allclose(received, expected, atol=1e-5)
