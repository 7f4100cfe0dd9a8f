"""One step of PPO against the same step written out plainly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.modes import normal
from tfrlhf import losses
from tfrlhf.models import trainable
from tfrlhf.types import Experience

TEMPERATURE, RATE, CLIP_NORM = 0.7, 0.5, 0.3
# Three tokens, none, six; a prompt of two, six and one.
MASK = np.array(
    [
        [0, 0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
    ],
    np.int32,
)
LENGTHS = [5, 6, 7]
SAMPLER = tfrlhf.Sampler(temperature=TEMPERATURE, max_new_tokens=6)
LOSS = losses.PPOLoss(value_weight=0.5, entropy_weight=2.0)


def models():
    """A policy and a value model, equal at every call."""
    policy = small.gpt2_policy(seed=1, sharpness=4.0)
    value = tfrlhf.ValueModel.from_policy(policy)
    value.head.kernel.assign(normal(3, 32, 1))
    return policy, value


def experience(policy, value):
    """Experience near the models, with NaN wherever the mask is 0."""
    vocabulary = small.tokenizer().vocabulary_size
    ids = np.random.default_rng(0).integers(0, vocabulary, MASK.shape)
    ids = tf.constant(ids, tf.int32)
    padding_mask = tf.constant(np.arange(8) < np.array(LENGTHS)[:, None])
    padding_mask = tf.cast(padding_mask, tf.int32)
    shape = MASK.shape
    old_log_probs = policy.log_probs(ids, padding_mask, TEMPERATURE)
    old_values = value.call(ids, padding_mask)
    floats = [
        old_log_probs + 0.2 * normal(4, *shape),
        old_values + 0.2 * normal(5, *shape),
        normal(6, *shape),
        old_values + normal(7, *shape),
        old_log_probs,
    ]
    hidden = [tf.where(MASK > 0, x, np.nan) for x in floats]
    return Experience(ids, padding_mask, tf.constant(MASK), *hidden)


def plain_step(policy, value, batch):
    """Makes the step on the models and returns its loss and gradient norm."""
    mask = MASK[:, 1:].astype(np.float32)
    old_log_probs, old_values, advantages, returns = (
        np.where(MASK > 0, x, 0)[:, 1:] for x in batch[3:7]
    )
    inputs = {
        "token_ids": batch.token_ids,
        "padding_mask": batch.padding_mask,
    }
    variables = [v.value for v in policy.trainable_variables]
    variables += [v.value for v in value.trainable_variables]
    with tf.GradientTape() as tape:
        logits = policy.model(inputs, training=False)[:, :-1]
        every = tf.nn.log_softmax(logits / TEMPERATURE)
        log_probs = tf.gather(every, batch.token_ids[:, 1:], batch_dims=2)
        ratio = tf.exp((log_probs - old_log_probs) * mask)
        policy_loss = tf.maximum(
            -advantages * ratio,
            -advantages * tf.clip_by_value(ratio, 0.8, 1.2),
        )
        hidden = value.backbone(inputs, training=False)
        values = value.head(hidden)[:, :-1, 0]
        near = tf.clip_by_value(values, old_values - 0.2, old_values + 0.2)
        value_loss = 0.5 * tf.maximum(
            (values - returns) ** 2, (near - returns) ** 2
        )
        entropy = -tf.reduce_sum(tf.exp(every) * every, axis=-1)
        terms = policy_loss + 0.5 * value_loss - 2.0 * entropy
        loss = tf.reduce_sum(terms * mask) / mask.sum()
    gradients = [
        tf.convert_to_tensor(g) for g in tape.gradient(loss, variables)
    ]
    norm = np.sqrt(sum(float(tf.reduce_sum(g**2)) for g in gradients))
    for variable, gradient in zip(variables, gradients, strict=True):
        variable.assign_sub(RATE * min(1.0, CLIP_NORM / norm) * gradient)
    return float(loss), norm


@pytest.fixture(scope="module")
def expected():
    """Weights, loss and gradient norm of the plain step."""
    policy, value = models()
    before = small.weights(policy) + small.weights(value)
    loss, norm = plain_step(policy, value, experience(policy, value))
    assert norm > CLIP_NORM
    after = small.weights(policy) + small.weights(value)
    moved = max(np.abs(a - b).max() for a, b in zip(after, before, strict=True))
    assert moved > 0.01
    return after, loss, norm


# 4 micro-batches leave one without rows; a batch size of 4 pads one row.
@pytest.mark.parametrize(
    ("micro_batches", "batch_size", "traced"),
    [(1, 1, False), (2, 1, True), (4, 4, False)],
)
def test_a_step_equals_the_plain_formula(
    expected, micro_batches, batch_size, traced, request
):
    if not traced:
        request.getfixturevalue("eagerly")
    policy, value = models()
    batch = experience(policy, value)
    ppo = tfrlhf.PPO(policy, lambda prompts, responses: [], value)
    ppo.compile(
        keras.optimizers.SGD(RATE),
        LOSS,
        sampler=SAMPLER,
        update_epochs=1,
        micro_batches=micro_batches,
        clip_norm=CLIP_NORM,
        jit_compile=False,
    )
    logs = ppo.update(batch, batch_size)
    weights, loss, norm = expected
    assert float(logs["loss/total"]) == pytest.approx(loss, abs=1e-5)
    assert float(logs["gradient_norm"]) == pytest.approx(norm, rel=1e-5)
    received = small.weights(policy) + small.weights(value)
    for now, wanted in zip(received, weights, strict=True):
        np.testing.assert_allclose(now, wanted, atol=1e-5)


def test_losses_of_few_weights_are_computed_at_the_same_time(monkeypatch):
    policy, value = models()
    batch = experience(policy, value)

    def step(micro_batches=1):
        ppo = tfrlhf.PPO(policy, lambda p, r: [0.0], value)
        ppo.compile("sgd", LOSS, sampler=SAMPLER, micro_batches=micro_batches)
        found, _ = ppo.gradients_and_sums(batch, tf.constant(9.0))
        return found, bool(ppo._awaited(found))

    expected, waits = step()
    assert not waits
    # Whoever asks for less memory gets it.
    assert step(micro_batches=2)[1]
    monkeypatch.setattr(trainable, "AT_A_TIME", 0)
    received, waits = step()
    assert waits
    for one, other in zip(received, expected, strict=True):
        np.testing.assert_array_equal(one, other)
