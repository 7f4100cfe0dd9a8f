"""Sums over what counts, divided once by how much of it there is."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import references
from tests import small
from tests.conformance import support
from tests.modes import HIDDEN
from tests.modes import MASK
from tests.modes import normal
from tfrlhf import data
from tfrlhf import rollout
from tfrlhf.trainers import replicas
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Rollout

NAN = np.float32("nan")


def compressed(x):
    """The rows of MASK with what it hides deleted, 0 to the right."""
    out = np.zeros(MASK.shape, x.dtype)
    for row, counts in enumerate(MASK > 0):
        out[row, : counts.sum()] = x[row, counts]
    return out


# miles#1827, ROLL#447, DeepSpeedExamples#672: the value of a masked token (100
# in ROLL's case) went into the advantages of the tokens before it.
@pytest.mark.parametrize("garbage", [100.0, NAN])
def test_advantages_over_gaps_are_those_of_the_sequence_without(garbage):
    rewards, values = normal(1, *MASK.shape), normal(2, *MASK.shape)
    for estimator in (
        tfrlhf.GAE(0.9, 0.8),
        tfrlhf.GAE(1.0, 0.95, whiten=False),
        tfrlhf.MovingBaseline(discount=0.9),
    ):
        given = estimator(
            np.where(HIDDEN, garbage, rewards),
            np.where(HIDDEN, garbage, values),
            tf.constant(MASK),
        )
        if isinstance(estimator, tfrlhf.MovingBaseline):
            estimator = tfrlhf.MovingBaseline(discount=0.9)
        wanted = estimator(
            compressed(rewards), compressed(values), compressed(MASK)
        )
        for received, expected in zip(given, wanted, strict=True):
            received = compressed(received.numpy())
            np.testing.assert_allclose(received, expected, atol=1e-5)


def of_experience(hidden):
    """Experience near the models of a trainer, `hidden` under the mask."""
    policy = support.policy()
    trainer = support.ppo(policy, value=support.value_model(policy))
    ids = np.random.default_rng(0).integers(0, 290, MASK.shape)
    ids = tf.constant(ids, tf.int32)
    padding_mask = tf.ones_like(ids)
    log_probs = policy.log_probs(ids, padding_mask, support.TEMPERATURE)
    values = trainer.value.call(ids, padding_mask)
    floats = [
        log_probs + 0.2 * normal(4, *MASK.shape),
        values + 0.2 * normal(5, *MASK.shape),
        normal(6, *MASK.shape),
        values + normal(7, *MASK.shape),
        log_probs,
    ]
    floats = [tf.where(HIDDEN, hidden, x) for x in floats]
    return trainer, Experience(ids, padding_mask, tf.constant(MASK), *floats)


# OpenRLHF#1240 (NaN·0 is NaN), SkyRL#1305, DeepSpeedExamples#316, #1239,
# AReaL#1346: what the mask hides was averaged in, or poisoned the gradient.
def test_nan_in_every_masked_slot_changes_no_update(eagerly):
    outcomes = []
    for hidden in (0.0, NAN):
        trainer, experience = of_experience(hidden)
        logs = trainer.update(experience)
        outcomes.append(
            ({n: float(x) for n, x in logs.items()}, support.weights(trainer))
        )
    (clean, weights), (poisoned, poisoned_weights) = outcomes
    assert clean["gradient_norm"] > 0.01
    assert clean == poisoned
    support.assert_close(poisoned_weights, weights, 0.0)


def of_rollout(hidden):
    floats = [
        np.where(HIDDEN, hidden, normal(seed, *MASK.shape)).astype(np.float32)
        for seed in range(5)
    ]
    scores = np.where(MASK.any(axis=1), normal(9, len(MASK)), hidden)
    ids = tf.zeros(MASK.shape, tf.int32)
    return Rollout(
        ids,
        tf.ones_like(ids),
        tf.constant(MASK),
        tf.constant([1, 0, 1, 0]),
        *floats[:4],
        tf.constant(scores, tf.float32),
        floats[4],
    )


# trlX (statistics counted pads), OpenRLHF#1239: the same on the way there.
@pytest.mark.parametrize(
    "estimator",
    [
        tfrlhf.GAE(),
        tfrlhf.GAE(0.9, whiten_rewards=True, unbiased=True),
        tfrlhf.MovingBaseline(),
    ],
)
def test_nan_in_every_masked_slot_changes_no_experience(estimator):
    outcomes = []
    for hidden in (0.0, NAN):
        seen = of_rollout(hidden)
        rewards = rollout.rollout_rewards(seen, 0.2, "k3", clip=1.5)
        made = rollout.make_experience(seen, rewards, estimator)
        metrics = rollout.rollout_metrics(seen, 0.2)
        metrics |= rollout.value_metrics(made)
        outcomes.append((metrics, [rewards, made.advantages, made.returns]))
        if isinstance(estimator, tfrlhf.MovingBaseline):
            estimator = tfrlhf.MovingBaseline()
    (clean, made), (poisoned, poisoned_made) = outcomes
    assert {n: float(x) for n, x in clean.items()} == {
        n: float(x) for n, x in poisoned.items()
    }
    support.assert_close(poisoned_made, made, 0.0)


# slime#2235, miles#3229: whitened over the wrong group. trlX: over pads too.
def test_rows_that_are_absent_do_not_move_the_whitening():
    estimator = tfrlhf.GAE(whiten_rewards=True)
    made = []
    for seen in (
        of_rollout(0.0),
        replicas.with_absent_rows(of_rollout(0.0), 9),
    ):
        rewards = rollout.rollout_rewards(seen, 0.2)
        made.append(rollout.make_experience(seen, rewards, estimator))
    plain, padded = made
    np.testing.assert_allclose(
        padded.advantages[: len(MASK)], plain.advantages, atol=1e-5
    )
    assert not np.any(padded.advantages[len(MASK) :])
    advantages = plain.advantages.numpy()[MASK > 0]
    assert advantages.mean() == pytest.approx(0.0, abs=1e-5)
    assert advantages.std() == pytest.approx(1.0, abs=1e-5)


# slime#1369, slime#2356, torchtune's rewards.py:177: `shift_mean` the wrong
# way round left advantages with mean 1.44, 94 % of them positive.
def test_whitening_shifts_the_advantages_and_not_the_rewards():
    rewards = tf.constant([[-0.1, 0.05, -0.02, 1.0]])
    values, mask = tf.constant([[0.5, 0.4, 0.3, 0.2]]), tf.ones([1, 4], "int32")
    _, returns = tfrlhf.GAE(decay=1.0, whiten_rewards=True)(
        rewards, values, mask
    )
    # Undiscounted, the first return is the sum: 4 times the mean, kept.
    assert float(returns[0, 0]) == pytest.approx(0.93, abs=1e-5)
    advantages, _ = tfrlhf.GAE()(rewards, values, mask)
    np.testing.assert_allclose(
        advantages, [[-1.486305, -0.141742, 0.34204, 1.286007]], atol=1e-5
    )


# trl#2596: whitened per rank, minibatch or micro-batch, so that the cut of the
# batch showed. Here all rows of an iteration are whitened at once.
def test_minibatches_share_the_whitening_of_the_rollout(eagerly):
    seen = []

    def estimator(rewards, values, mask):
        seen.append(mask.numpy().any(axis=1).sum())
        return tfrlhf.GAE()(rewards, values, mask)

    policy = support.policy()
    trainer = support.ppo(
        policy,
        value=support.value_model(policy),
        advantage=estimator,
        minibatches=2,
        micro_batches=2,
    )
    support.iterate(trainer)
    assert seen == [len(support.PROMPTS)]


def token_losses(*rows):
    """A policy, and examples whose tokens have these losses at first."""
    losses = sorted({loss for row in rows for loss in row})
    # Token n + 1 has the nth loss after every token, token 0 the rest.
    chances = np.exp(-np.array(losses, np.float64))
    logits = np.log([1.0 - chances.sum(), *chances])
    table = np.tile(logits, [len(logits), 1])
    policy = tfrlhf.Policy(support.table_model(table))
    width = 1 + max(map(len, rows))
    ids = np.zeros([len(rows), width], np.int32)
    mask = np.zeros_like(ids)
    for index, row in enumerate(rows):
        ids[index, 1 : 1 + len(row)] = [1 + losses.index(x) for x in row]
        mask[index, 1 : 1 + len(row)] = 1
    return policy, Examples(ids, np.ones_like(ids), mask)


# torchtune#1875, transformers#35203, verl#3332, mlx-lm#1413, prime-rl#583,
# open-instruct#1161, verl#593, trl#3138, trl#3256, NeMo-RL#3656: the mean of
# the rows' (or micro-batches') means is 2.0, of the rows' sums 3.5.
@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_the_loss_is_the_mean_over_all_tokens(micro_batches):
    policy, examples = token_losses([1.0, 1.0, 1.0, 1.0], [3.0])
    sft = tfrlhf.SFT(policy)
    sft.compile(
        keras.optimizers.SGD(1.0),
        clip_norm=None,
        micro_batches=micro_batches,
        run_eagerly=True,
    )
    before = policy.trainable_variables[0].numpy().copy()
    logs = sft.train_step(Examples(*map(tf.constant, examples)))
    assert float(logs["loss"]) == pytest.approx(1.4, abs=1e-5)
    # The gradient of the logits, row by row of the table: p - 1[token], summed
    # over the tokens that follow the row's, divided by 5 tokens.
    chance = np.exp(before[0]) / np.exp(before[0]).sum()
    expected = np.zeros_like(before, np.float64)
    for ids, mask in zip(examples.token_ids, examples.loss_mask, strict=True):
        for t in np.flatnonzero(mask):
            expected[ids[t - 1]] += chance
            expected[ids[t - 1], ids[t]] -= 1.0
    step = before - policy.trainable_variables[0].numpy()
    np.testing.assert_allclose(step, expected / 5, atol=1e-6)


# torchtune#1875 and the others, for PPO: a step on a ragged batch.
def test_micro_batches_make_the_same_step_of_ppo(eagerly):
    outcomes = []
    for micro_batches in (1, 3):
        trainer, experience = of_experience(NAN)
        trainer.micro_batches = micro_batches
        logs = trainer.update(experience)
        outcomes.append(
            ({n: float(x) for n, x in logs.items()}, support.weights(trainer))
        )
    (logs, weights), (cut_logs, cut_weights) = outcomes
    assert cut_logs == pytest.approx(logs, abs=1e-5)
    support.assert_close(cut_weights, weights)


# DeepSpeedExamples#316: the reward model's loss read pads.
def test_pads_and_absent_candidates_do_not_teach_a_reward_model():
    records = [
        {"prompt": "The park", "responses": [" is old", " is", " was large"]},
        {"prompt": "12", "responses": [" trees", " old"]},
    ]
    outcomes = []
    for fill in (0, 77):
        reward = small.reward_model(sharpness=4.0)
        made = data.preferences(records, small.tokenizer(), small.CONTEXT)
        ids = np.where(made.padding_mask > 0, made.token_ids, fill)
        reward.compile(
            keras.optimizers.SGD(0.5), clip_norm=None, run_eagerly=True
        )
        batch = made._replace(token_ids=ids)
        logs = reward.train_step(type(made)(*map(tf.constant, batch)))
        logs = {n: float(x) for n, x in logs.items()}
        outcomes.append((logs, small.weights(reward)))
        scores = reward.score(
            ids.reshape(6, -1), made.padding_mask.reshape(6, -1)
        )
        assert np.isfinite(scores).all()
    (logs, weights), (other_logs, other_weights) = outcomes
    assert logs == pytest.approx(other_logs, abs=1e-6)
    support.assert_close(other_weights, weights)


# The formula of the step on the ragged batch, written out as loops.
def test_the_logged_loss_is_the_sum_over_tokens_by_their_number(eagerly):
    trainer, experience = of_experience(NAN)
    logs = trainer.update(experience)
    again, _ = of_experience(NAN)
    log_probs = again.policy.log_probs(
        experience.token_ids, experience.padding_mask, support.TEMPERATURE
    ).numpy()
    values = again.value.call(experience.token_ids, experience.padding_mask)
    old_log_probs, old_values, advantages, returns = (
        x.numpy() for x in experience[3:7]
    )
    policy_loss = references.clipped_policy_loss(
        log_probs, old_log_probs, advantages, MASK, 0.2, 0.2
    )
    value_loss = references.clipped_value_loss(
        values.numpy(), old_values, returns, MASK
    )
    total = (policy_loss + 0.1 * value_loss).sum() / MASK.sum()
    assert float(logs["loss/total"]) == pytest.approx(total, abs=1e-5)
