"""Whose log-probabilities a rollout has: the policy's, or the sampler's."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.trainers.conftest import BATCH
from tests.trainers.conftest import PROMPTS
from tests.trainers.conftest import letters

SAMPLER = tfrlhf.Sampler(temperature=0.7, max_new_tokens=6)


def trainer(policy=None, sampler=SAMPLER, share_trunk=False, jit="auto"):
    policy = policy or small.gpt2_policy(sharpness=4.0)
    value = tfrlhf.ValueModel.from_policy(policy, share_trunk)
    made = tfrlhf.PPO(policy, letters, value)
    made.compile("adam", sampler=sampler, jit_compile=jit)
    return made


@pytest.fixture(scope="module")
def ppo():
    return trainer()


def test_a_trusted_sampler_is_believed_but_for_one_row(ppo):
    sampled = ppo.rollout(PROMPTS[:BATCH], 1, BATCH)
    scores = tf.zeros([BATCH])
    seen = ppo.collect(sampled, scores, BATCH)
    wrong = sampled._replace(sampler_log_probs=sampled.sampler_log_probs - 1.0)
    believed = ppo.collect(wrong, scores, BATCH, trust_sampler=True)
    mask = sampled.response_mask.numpy() > 0
    np.testing.assert_allclose(
        believed.log_probs[0], seen.log_probs[0], atol=1e-5
    )
    np.testing.assert_array_equal(
        believed.log_probs[1:],
        np.where(mask, wrong.sampler_log_probs, 0.0)[1:],
    )
    # That row tells of a sampler that is wrong.
    gap = tfrlhf.rollout.sampler_gap(believed)
    assert float(gap) == pytest.approx(1.0, abs=1e-4)
    for name in ("ref_log_probs", "values"):
        np.testing.assert_allclose(
            getattr(believed, name), getattr(seen, name), atol=1e-6
        )


def test_training_is_as_without(monkeypatch):
    def learned(trust):
        keras.utils.set_random_seed(1)
        if not trust:
            monkeypatch.setattr(tfrlhf.PPO, "sampler_tells", False)
        ppo = trainer()
        assert ppo.sampler_tells is trust
        logs = ppo.fit(PROMPTS, batch_size=BATCH, verbose=0).history
        monkeypatch.undo()
        return logs, small.weights(ppo.policy)

    (logs, weights), (plain_logs, plain_weights) = learned(True), learned(False)
    assert logs["objective/kl"][-1] == pytest.approx(
        plain_logs["objective/kl"][-1], abs=1e-3
    )
    assert logs["sampler/log_prob_gap"][-1] < 1e-4
    for received, expected in zip(weights, plain_weights, strict=True):
        # Adam takes rounding for a direction where a gradient is 0.
        gap = np.abs(received - expected)
        assert np.median(gap) < 1e-5
        assert gap.max() < 5e-3


def test_some_samplers_are_not_trusted(ppo):
    assert ppo.sampler_tells
    short = small.gpt2_policy()
    for layer in short.model._flatten_layers():
        layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
    with pytest.warns(UserWarning, match="top_p"):
        cut = trainer(sampler=tfrlhf.Sampler(top_p=0.5, max_new_tokens=6))
    # One pass serves policy and value, so that nothing would be spared.
    others = cut, trainer(short), trainer(share_trunk=True), trainer(jit=True)
    assert not any(other.sampler_tells for other in others)
