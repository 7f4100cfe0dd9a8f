import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.models.test_adapters import ALL
from tests.models.test_adapters import IDS
from tests.models.test_adapters import MASK
from tests.models.test_adapters import POLICIES
from tests.models.test_adapters import trained
from tfrlhf.models.packing import within_segments


def gradients(policy, jit):
    variables = [v.value for v in policy.trainable_variables]

    @tf.function(jit_compile=jit)
    def compute():
        with tf.GradientTape() as tape:
            log_probs = policy.log_probs(IDS, MASK)
            loss = tf.reduce_sum(tf.cast(MASK, tf.float32) * log_probs)
        return loss, [
            tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)
        ]

    return compute()


@pytest.mark.parametrize(
    ("family", "lora", "jit"),
    [("gpt2", False, False), ("gpt2", True, True), ("llama", True, False)],
)
def test_gradients_are_the_same(family, lora, jit):
    policy = POLICIES[family](sharpness=4.0)
    if lora:
        policy.enable_lora(2, targets=ALL[family])
        trained(policy.adapter)
    loss, expected = gradients(policy, jit)
    policy.enable_remat()
    policy.enable_remat()
    again, received = gradients(policy, jit)
    assert float(again) == pytest.approx(float(loss), rel=1e-5)
    for gradient, wanted in zip(received, expected, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(wanted))))
        np.testing.assert_allclose(gradient, wanted, atol=2e-5 * scale)
    assert max(float(tf.norm(g)) for g in expected) > 0.1


def test_gradients_stay_within_segments():
    policy = small.gpt2_policy(sharpness=4.0)
    variables = [v.value for v in policy.trainable_variables]
    segments = tf.constant([[1] * 3 + [2] * (IDS.shape[1] - 3)] * len(IDS))
    found = []
    for _ in range(2):
        with tf.GradientTape() as tape:
            with within_segments(policy.trunk, segments):
                loss = tf.reduce_sum(policy.log_probs(IDS, MASK))
        gradients = tape.gradient(loss, variables)
        found.append([tf.convert_to_tensor(x) for x in gradients])
        policy.enable_remat()
    for expected, received in zip(*found, strict=True):
        scale = max(1.0, float(tf.reduce_max(tf.abs(expected))))
        np.testing.assert_allclose(received, expected, atol=2e-5 * scale)


def test_the_layers_are_computed_twice():
    policy = small.gpt2_policy()
    layer = policy.trunk.transformer_layers[0]
    plain, calls = layer._self_attention_layer.call, []

    def counted(*args, **kwargs):
        calls.append(1)
        return plain(*args, **kwargs)

    object.__setattr__(layer._self_attention_layer, "call", counted)
    for expected in (1, 2):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(policy.log_probs(IDS, MASK))
        tape.gradient(loss, [layer.trainable_weights[0].value])
        assert len(calls) == expected
        calls.clear()
        policy.enable_remat()


def test_a_run_learns_the_same():
    weights = []
    for remat in (False, True):
        policy = small.gpt2_policy(sharpness=4.0)
        value = tfrlhf.ValueModel.from_policy(policy)
        if remat:
            policy.enable_remat()
            value.enable_remat()
        ppo = tfrlhf.PPO(
            policy,
            lambda p, responses: [float(len(r)) for r in responses],
            value,
        )
        ppo.compile(
            keras.optimizers.SGD(0.1),
            sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
            jit_compile=False,
        )
        ppo.fit(["The park", "公园"] * 2, batch_size=2, verbose=0)
        weights.append(small.weights(policy) + small.weights(value))
    for now, wanted in zip(*weights, strict=True):
        np.testing.assert_allclose(now, wanted, atol=1e-5)


def test_generation_goes_on_as_before():
    policy = small.llama_policy(sharpness=4.0)
    greedy = tfrlhf.Sampler(temperature=0)
    before = policy.generate("The park", 12, greedy)
    policy.enable_remat()
    assert policy.generate("The park", 12, greedy) == before


def test_what_cannot_be_rematerialised():
    with pytest.raises(ValueError, match="drops out at 0.5: build the model"):
        small.gpt2_policy(dropout=0.5).enable_remat()
    dense = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="Only KerasHub's transformers"):
        tfrlhf.Policy(dense).enable_remat()


def test_reward_models_too():
    reward = small.reward_model(sharpness=4.0)
    before = reward.score(IDS, MASK)
    reward.enable_remat()
    np.testing.assert_allclose(reward.score(IDS, MASK), before, atol=1e-6)
