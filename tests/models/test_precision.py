"""Half precision for the arithmetic, eight bits for what does not train."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.models.test_adapters import IDS
from tests.models.test_adapters import MASK

EXAMPLES = [
    {"prompt": f"The {word}", "response": " is large and fine."}
    for word in ("park", "weather", "tree", "old house")
]


def policy_of(dtype):
    """The small GPT-2 of tests/small.py in another dtype."""
    plain = small.gpt2_policy(sharpness=4.0)
    config = plain.trunk.get_config()
    config["dtype"] = keras.DTypePolicy(dtype)
    backbone = keras_hub.models.GPT2Backbone.from_config(config)
    for new, old in zip(backbone.weights, plain.trunk.weights, strict=True):
        new.assign(tf.cast(old, new.dtype))
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return tfrlhf.Policy(model, small.tokenizer(), small.CONTEXT)


def learning_curve(dtype):
    policy = policy_of(dtype)
    sft = tfrlhf.SFT(policy)
    sft.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    history = sft.fit(EXAMPLES, batch_size=4, epochs=12, verbose=0).history
    return policy, history["loss"]


def test_mixed_bfloat16_learns_as_float32_does():
    _, expected = learning_curve("float32")
    policy, losses = learning_curve("mixed_bfloat16")
    assert expected[-1] < expected[0] - 2.0
    np.testing.assert_allclose(losses, expected, atol=0.1)
    assert {w.dtype for w in policy.weights} == {"float32"}
    hidden = policy.trunk({"token_ids": IDS, "padding_mask": MASK})
    assert hidden.dtype == tf.bfloat16
    assert policy.log_probs(IDS, MASK).dtype == tf.float32


def test_mixed_bfloat16_in_ppo():
    policy = policy_of("mixed_bfloat16")
    value = tfrlhf.ValueModel.from_policy(policy)
    ppo = tfrlhf.PPO(
        policy, lambda p, texts: [float(len(t)) for t in texts], value
    )
    ppo.compile(
        keras.optimizers.Adam(1e-3),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        jit_compile=False,
    )
    (kl,) = ppo.fit(["The park"] * 4, verbose=0).history["objective/kl"]
    assert kl == 0.0
    rollout = ppo.last_iteration.rollout
    assert rollout.log_probs.dtype == rollout.values.dtype == tf.float32


def test_mixed_bfloat16_samples_in_float32_on_processors():
    exact, policy = policy_of("float32"), policy_of("mixed_bfloat16")
    prompts = tfrlhf.types.Prompts(IDS, MASK)
    found = [p.generate(prompts, 6, seed=1) for p in (policy, exact)]
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-5)
    # And nowhere else.
    hidden = policy.trunk({"token_ids": IDS, "padding_mask": MASK})
    assert hidden.dtype == tf.bfloat16


@pytest.mark.parametrize("kind", ["sft", "ppo"])
def test_adam_refuses_weights_that_it_would_never_move(kind):
    policy = policy_of("bfloat16")
    adam = keras.optimizers.Adam(1e-2)
    with pytest.raises(ValueError, match="would never move: load the model"):
        if kind == "sft":
            tfrlhf.SFT(policy).compile(adam)
        else:
            tfrlhf.REINFORCE(policy, lambda p, r: [0.0]).compile(
                adam, sampler=tfrlhf.Sampler(max_new_tokens=4)
            )
    tfrlhf.SFT(policy).compile(keras.optimizers.Adam(1e-2, beta_2=0.99))
    tfrlhf.SFT(policy).compile("sgd")


def test_a_reference_and_a_reward_model_of_8_bits():
    policy = small.gpt2_policy(sharpness=4.0)
    reference = tfrlhf.frozen_copy(policy)
    reward = small.reward_model(sharpness=4.0)
    expected = reference.log_probs(IDS, MASK), reward.score(IDS, MASK)
    reference.quantize("int8")
    reward.quantize("int8")
    kinds = {w.dtype for w in reference.weights}
    assert "int8" in kinds
    received = reference.log_probs(IDS, MASK), reward.score(IDS, MASK)
    real = MASK.numpy() > 0
    np.testing.assert_allclose(
        received[0].numpy()[real], expected[0].numpy()[real], atol=0.15
    )
    np.testing.assert_allclose(received[1], expected[1], atol=0.15)
    ppo = tfrlhf.PPO(
        policy, reward, tfrlhf.ValueModel.from_policy(policy), reference
    )
    ppo.compile(
        "sgd",
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        jit_compile=False,
    )
    (kl,) = ppo.fit(["The park"] * 4, verbose=0).history["objective/kl"]
    assert 0.0 < abs(kl) < 0.5


def scores_beside(reference):
    """The learning curve for a letter, held back by a KL to `reference`."""
    policy = small.gpt2_policy(sharpness=4.0)
    trainer = tfrlhf.REINFORCE(
        policy,
        lambda prompts, responses: [r.count("e") / 6 for r in responses],
        reference,
    )
    trainer.compile(
        keras.optimizers.Adam(4e-3),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        kl=tfrlhf.FixedKL(0.1),
        jit_compile=False,
    )
    history = trainer.fit(
        ["The park"] * 512, batch_size=512, epochs=15, verbose=0
    )
    return np.array(history.history["objective/scores"])


def test_a_policy_learns_the_same_beside_8_bits():
    policy = small.gpt2_policy(sharpness=4.0)
    expected = scores_beside(tfrlhf.frozen_copy(policy))
    reference = tfrlhf.frozen_copy(policy)
    reference.quantize("int8")
    received = scores_beside(reference)
    assert expected[-1] > expected[0] + 0.3
    # Two standard errors of a difference of means over 512 responses.
    np.testing.assert_allclose(received, expected, atol=0.04)
