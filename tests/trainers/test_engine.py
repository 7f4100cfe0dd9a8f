import random

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.texts import BILINGUAL
from tests.trainers.conftest import BATCH
from tests.trainers.conftest import PROMPTS
from tests.trainers.conftest import letters
from tests.trainers.conftest import variables
from tfrlhf import rollout
from tfrlhf.trainers.engine import trimmed
from tfrlhf.types import Completions
from tfrlhf.types import Prompts

SAMPLER = tfrlhf.Sampler(temperature=0.7, max_new_tokens=6)


def assert_same(received, expected):
    for now, wanted in zip(received, expected, strict=True):
        np.testing.assert_array_equal(now, wanted)


def test_evaluate_repeats_and_changes_nothing(ppo):
    def global_draws():
        return (
            random.random(),
            np.random.rand(),
            float(tf.random.uniform([])),
            float(keras.random.uniform([])),
        )

    keras.utils.set_random_seed(3)
    expected_draws = global_draws()
    before, last = variables(ppo), ppo.last_iteration
    keras.utils.set_random_seed(3)
    first = ppo.evaluate(PROMPTS, batch_size=BATCH)
    assert global_draws() == expected_draws
    assert_same(variables(ppo), before)
    assert ppo.last_iteration is last
    assert ppo.evaluate(PROMPTS, batch_size=BATCH) == first
    assert set(first) == {
        "objective/scores",
        "objective/kl",
        "length/mean",
        "length/finished",
    }
    other = ppo.evaluate(PROMPTS, batch_size=BATCH, seed=1)
    assert other["objective/scores"] != first["objective/scores"]


def test_evaluate_weighs_every_prompt_the_same(ppo, monkeypatch):
    monkeypatch.setattr(ppo, "reward", lambda prompts, responses, n: n)
    records = [{"prompt": p, "n": i} for i, p in enumerate(PROMPTS[:6])]
    measured = ppo.evaluate(records, batch_size=BATCH)
    assert measured["objective/scores"] == pytest.approx(2.5)
    assert 1.0 <= measured["length/mean"] <= 6.0


def test_evaluate_before_compile():
    with pytest.raises(ValueError, match="compile"):
        tfrlhf.PPO(small.gpt2_policy(), letters).evaluate(PROMPTS)


def test_a_rollout_follows_from_seed_and_row(ppo):
    whole = ppo.rollout(PROMPTS[:BATCH], 5, BATCH)
    assert_same(ppo.rollout(PROMPTS[:BATCH], (5, 0), BATCH), whole)
    part = ppo.rollout(PROMPTS[: BATCH - 1], 5, BATCH)
    assert_same(part, [x[: BATCH - 1] for x in whole])
    ids = ppo.policy.encode_prompts(PROMPTS[:BATCH], 6)
    assert isinstance(ids, Prompts)
    assert_same(ppo.rollout(ids, 5, BATCH), whole)
    other = ppo.rollout(PROMPTS[:BATCH], (5, 1), BATCH)
    assert np.any(other.token_ids != whole.token_ids)


def test_completions_lose_columns_that_no_row_uses():
    rows = tf.tile(tf.range(40)[None, :], [2, 1])
    completions = Completions(
        rows, tf.cast(rows < 17, tf.int32), rows, tf.ones([2]), rows
    )
    cut = trimmed(completions, bucket=16)
    assert [x.shape for x in cut] == [(2, 32), (2, 32), (2, 32), (2,), (2, 32)]
    assert trimmed(completions, bucket=64).token_ids.shape == (2, 40)


def completed(pairs):
    """Completions with the ids of pairs of text; True where cut by length."""
    tokenizer = small.tokenizer()
    rows = []
    for prompt, response, cut in pairs:
        prompt, response, _ = tokenizer.encode_pair(prompt, response)
        end = [] if cut else [tokenizer.eos_id]
        rows.append((prompt, response + end))
    width = 32
    ids = np.full([len(rows), width], tokenizer.pad_id, np.int32)
    padding_mask, response_mask = np.zeros_like(ids), np.zeros_like(ids)
    for i, (prompt, response) in enumerate(rows):
        length = len(prompt) + len(response)
        ids[i, :length] = prompt + response
        padding_mask[i, :length] = 1
        response_mask[i, len(prompt) : length] = 1
    finished = np.array([not cut for _, _, cut in pairs], np.int32)
    floats = np.zeros(ids.shape, np.float32)
    return Completions(
        *map(tf.constant, (ids, padding_mask, response_mask, finished, floats))
    )


PAIRS = [
    ("The weather", " is fine today.", False),
    ("The park", " is large; the trees", True),
    ("公园", "很大，树很老。", False),
    ("12", "34", True),
]


def engine(reward):
    ppo = tfrlhf.PPO(small.gpt2_policy(), reward)
    ppo.compile(keras.optimizers.SGD(), sampler=SAMPLER, jit_compile=False)
    return ppo


@pytest.mark.parametrize("reads_ids", [True, False])
def test_a_reward_model_scores_ids_as_it_scores_text(reads_ids):
    reward = small.reward_model(sharpness=4.0)
    if not reads_ids:
        texts = [*BILINGUAL, "Another tokenizer."]
        reward.tokenizer = tfrlhf.Tokenizer.train(texts, 290)
    ppo = engine(reward)
    assert ppo.reward_reads_ids is reads_ids
    prompts, responses, _ = zip(*PAIRS, strict=True)
    records = [{"prompt": prompt} for prompt in prompts]
    scores = ppo.score(records, list(responses), completed(PAIRS), BATCH)
    expected = reward.score(list(prompts), list(responses))
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert np.std(expected) > 0.05


def test_an_empty_response_scores_0(ppo, monkeypatch):
    monkeypatch.setattr(ppo, "reward", lambda prompts, responses: [3.0] * 2)
    pairs = [PAIRS[0], ("The park", "", True)]
    records = [{"prompt": prompt} for prompt, _, _ in pairs]
    scores = ppo.score(records, [" is fine today.", ""], completed(pairs))
    np.testing.assert_array_equal(scores, [3.0, 0.0])


def test_reward_model_and_reference_are_frozen(eagerly):
    policy = small.llama_policy(sharpness=4.0)
    reward = small.reward_model(sharpness=4.0)
    value = tfrlhf.ValueModel.from_reward(reward)
    ppo = tfrlhf.PPO(policy, reward, value)
    before = small.weights(reward), small.weights(ppo.reference)
    policy_before = small.weights(policy)
    ppo.compile(
        keras.optimizers.SGD(0.5),
        sampler=SAMPLER,
        update_epochs=1,
        jit_compile=False,
    )
    logs = ppo.fit(PROMPTS[:BATCH], batch_size=BATCH, verbose=0).history
    assert_same(small.weights(reward), before[0])
    assert_same(small.weights(ppo.reference), before[1])
    assert np.any(small.weights(policy)[0] != policy_before[0])
    trained = {id(v) for v in ppo.learner_variables()}
    frozen = reward.weights + ppo.reference.weights
    assert not trained & {id(v) for v in frozen}
    scores = ppo.last_iteration.rollout.scores
    expected = reward.call(
        *rollout.with_end(ppo.last_iteration.rollout, small.tokenizer().eos_id)
    )
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    assert logs["objective/scores"] == [
        pytest.approx(float(np.mean(scores)), abs=1e-5)
    ]


def test_a_rollout_that_fills_the_context_is_scored(eagerly):
    ppo = engine(small.reward_model())
    prompt = "park " * 50
    length = len(small.tokenizer().encode(prompt))
    assert 48 < length <= small.CONTEXT - 6
    completions = ppo.rollout([prompt], seed=0)
    responses = ppo.policy.decode_responses(completions)
    scores = ppo.score([{"prompt": prompt}], responses, completions)
    assert np.isfinite(scores).all()
