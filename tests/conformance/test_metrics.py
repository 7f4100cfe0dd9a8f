"""Every metric of docs/metrics.md once more, on a ragged batch, by loops."""

import math
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import references
from tests import small
from tests.conformance import support
from tests.conftest import ROOT
from tests.modes import normal
from tests.references_models import softmax
from tfrlhf import losses

KL_WEIGHT = 0.3
LOSS = losses.PPOLoss(
    clip=(0.1, 0.3), value_clip=0.1, value_weight=0.25, entropy_weight=0.02
)
EXAMPLES = [
    {"prompt": "The park", "response": " is large; the trees are old."},
    {"prompt": "12", "response": " trees"},
]
RANKINGS = [
    {"prompt": "The park", "responses": [" is old", " is", " was large"]},
    {"prompt": "12", "responses": [" trees", " old"], "weight": 2.5},
]
RATINGS = [
    {"prompt": "The park", "response": " is old", "rating": 0.5},
    {"prompt": "12", "response": " trees", "rating": -1.5, "weight": 2.0},
]


def documented(section):
    """The names in the tables of the sections that begin with `section`."""
    text = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    parts = [p for p in re.split(r"^## ", text, flags=re.M)[1:]]
    rows = [
        line.split("|")[1]
        for part in parts
        if part.startswith(section)
        for line in part.splitlines()
        if line.startswith("| `")
    ]
    return {name for row in rows for name in re.findall("`([^`]+)`", row)}


def mean(numbers):
    return sum(numbers) / len(numbers)


def variance(numbers):
    return mean([(x - mean(numbers)) ** 2 for x in numbers])


@pytest.fixture(scope="module")
def iteration():
    """A ragged iteration far from its reference, that changes no weight."""
    tf.config.run_functions_eagerly(True)
    policy = support.policy(eos_id=support.a_likely_token())
    trainer = support.ppo(
        policy,
        value=support.value_model(policy),
        reference=support.policy(seed=5),
        optimizer=keras.optimizers.SGD(0.0),
        loss=LOSS,
        advantage=tfrlhf.GAE(0.9, 0.8, whiten=False),
        kl=tfrlhf.FixedKL(KL_WEIGHT),
    )
    logs = support.iterate(trainer, batch_size=6)
    tf.config.run_functions_eagerly(False)
    return trainer, logs, trainer.last_iteration.rollout


def tokens(rollout):
    """The (row, position) of every response token."""
    mask = rollout.response_mask.numpy()
    return [[(r, t) for t in np.flatnonzero(row)] for r, row in enumerate(mask)]


# trl#6803, trl#6809: a metric was logged that nobody had described, or over
# more than it said.
def test_every_metric_is_documented_and_every_documented_one_is_logged(
    iteration,
):
    assert set(iteration[1]) == documented("PPO")


# trl#6803, trl#6809 (unmasked), ppo_trainer.md:43 (the sign of the KL in
# rlhf_reward), trl's `num_eos_tokens` (of one rank).
def test_metrics_of_the_rollout(iteration):
    _, logs, rollout = iteration
    rows = tokens(rollout)
    assert len({len(row) for row in rows}) > 1
    scores = rollout.scores.numpy().tolist()
    log_probs, ref_log_probs, sampled = (
        x.numpy().astype(np.float64)
        for x in (
            rollout.log_probs,
            rollout.ref_log_probs,
            rollout.sampler_log_probs,
        )
    )
    kl = mean([sum(log_probs[i] - ref_log_probs[i] for i in r) for r in rows])
    assert abs(kl) > 0.5
    expected = {
        "objective/scores": mean(scores),
        "objective/scores_deviation": math.sqrt(variance(scores)),
        "objective/kl": kl,
        "objective/kl_weight": KL_WEIGHT,
        "objective/reward": mean(scores) - KL_WEIGHT * kl,
        "length/mean": mean([len(row) for row in rows]),
        "length/finished": mean(rollout.finished.numpy().tolist()),
        "sampler/log_prob_gap": max(
            abs(sampled[i] - log_probs[i]) for row in rows for i in row
        ),
    }
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, abs=2e-5), name


def returns_of(rollout):
    """Advantages and returns by the recursion, and the mask."""
    mask = rollout.response_mask.numpy()
    rewards = references.token_rewards(
        rollout.scores.numpy(),
        rollout.log_probs.numpy(),
        rollout.ref_log_probs.numpy(),
        mask,
        KL_WEIGHT,
    )
    return *references.gae(
        rewards, rollout.values.numpy(), mask, 0.9, 0.8
    ), mask


def test_metrics_of_the_values(iteration):
    trainer, logs, rollout = iteration
    _, returns, _ = returns_of(rollout)
    places = [i for row in tokens(rollout) for i in row]
    values = rollout.values.numpy()
    seen = trainer.value.call(rollout.token_ids, rollout.padding_mask)
    mask = rollout.response_mask > 0
    np.testing.assert_allclose(values, np.where(mask, seen, 0.0), atol=1e-5)
    assert np.std(values) > 0.1
    targets = [returns[i] for i in places]
    errors = [returns[i] - values[i] for i in places]
    expected = {
        "value/mean": mean([values[i] for i in places]),
        "value/explained_variance": 1 - variance(errors) / variance(targets),
        "returns/mean": mean(targets),
        "returns/deviation": math.sqrt(variance(targets)),
    }
    for name, value in expected.items():
        assert logs[name] == pytest.approx(value, rel=1e-4, abs=1e-5), name


def distributions(policy, ids, mask, temperature):
    """The probabilities from which each token was drawn, [B, S - 1, V]."""
    logits = policy.call(ids, mask).numpy().astype(np.float64)[:, :-1]
    return np.apply_along_axis(softmax, -1, logits / temperature)


# trl#2022, trl#2023, trl#2496, trl#5289, trl#6121: an "entropy" that was
# negative or no entropy. TRL: approxkl included the padding.
@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_metrics_of_the_update(iteration, eagerly, noise):
    trainer, logs, rollout = iteration
    advantages, returns, mask = returns_of(rollout)
    hidden = mask == 0
    old_log_probs, old_values = (
        np.where(hidden, np.nan, x + noise * normal(seed, *mask.shape))
        for seed, x in ((1, rollout.log_probs), (2, rollout.values))
    )
    if noise:
        given = support.experience(trainer, rollout, KL_WEIGHT)
        logs = trainer.update(
            given._replace(
                old_log_probs=tf.constant(old_log_probs, tf.float32),
                old_values=tf.constant(old_values, tf.float32),
            )
        )
    log_probs, values = rollout.log_probs.numpy(), rollout.values.numpy()
    policy_loss = references.clipped_policy_loss(
        log_probs, old_log_probs, advantages, mask, 0.1, 0.3
    )
    value_loss = references.clipped_value_loss(
        values, old_values, returns, mask, 0.1
    )
    chances = distributions(
        trainer.policy,
        rollout.token_ids,
        rollout.padding_mask,
        support.TEMPERATURE,
    )
    entropy = -(chances * np.log(chances)).sum(axis=-1)
    totals = dict.fromkeys(("clipped", "values", "kl", "entropy"), 0.0)
    places = [i for row in tokens(rollout) for i in row]
    for row, t in places:
        i = (row, t)
        change = float(log_probs[i] - old_log_probs[i])
        ratio, advantage = math.exp(change), advantages[i]
        clipped = min(max(ratio, 0.9), 1.3)
        totals["clipped"] += -advantage * clipped > -advantage * ratio + 1e-7
        error = (values[i] - returns[i]) ** 2 / 2
        totals["values"] += value_loss[i] > error + 1e-7
        totals["kl"] += change**2 / 2
        totals["entropy"] += entropy[row, t - 1]
    count = len(places)
    parts = {
        "loss/policy": policy_loss.sum() / count,
        "loss/value": value_loss.sum() / count,
        "policy/clipfrac": totals["clipped"] / count,
        "policy/approx_kl": totals["kl"] / count,
        "policy/entropy": totals["entropy"] / count,
        "value/clipfrac": totals["values"] / count,
    }
    parts["loss/total"] = (
        parts["loss/policy"]
        + 0.25 * parts["loss/value"]
        - 0.02 * parts["policy/entropy"]
    )
    if noise:
        assert 0 < parts["policy/clipfrac"] < 1
        assert 0 < parts["value/clipfrac"] < 1
    for name, value in parts.items():
        assert float(logs[name]) == pytest.approx(value, abs=3e-5), name


# trl#3961: `grad_norm` was 0. It is the norm of what moves the weights, before
# clipping.
def test_the_gradient_norm_is_that_of_the_step(iteration, eagerly):
    trainer, logs, rollout = iteration
    before = support.weights(trainer)
    trainer.optimizer.learning_rate = 0.5
    for clip_norm in (None, 0.05):
        trainer.clip_norm = clip_norm
        given = support.experience(trainer, rollout, KL_WEIGHT)
        again = trainer.update(given)
        norm = float(again["gradient_norm"])
        assert norm == pytest.approx(logs["gradient_norm"], rel=1e-4)
        moved = math.sqrt(
            sum(
                float(np.sum((a - b).astype(np.float64) ** 2))
                for a, b in zip(support.weights(trainer), before, strict=True)
            )
        )
        expected = 0.5 * (norm if clip_norm is None else clip_norm)
        assert moved == pytest.approx(expected, rel=1e-3)
        for variable, value in zip(
            trainer.learner_variables(), before, strict=True
        ):
            variable.assign(value)
    trainer.optimizer.learning_rate = 0.0


# LMH's and TRL's update metrics were the last minibatch's, or a mean of means.
def test_metrics_are_means_over_the_tokens_of_all_minibatches(
    iteration, eagerly
):
    trainer, logs, rollout = iteration
    trainer.minibatches, trainer.update_epochs = 3, 2
    given = support.experience(trainer, rollout, KL_WEIGHT)
    cut = trainer.update(given)
    trainer.minibatches, trainer.update_epochs = 1, 1
    for name in trainer.metric_names:
        assert float(cut[name]) == pytest.approx(logs[name], abs=1e-5), name


def always_end():
    """A policy that expects EOS, which fills the rows too, everywhere."""
    size = small.tokenizer().vocabulary_size
    logits = np.random.default_rng(1).normal(size=[size, size])
    logits[:, 0] = 4.0
    model = support.table_model(logits)
    return tfrlhf.Policy(model, small.tokenizer(), small.CONTEXT)


@pytest.mark.parametrize("make", [support.policy, always_end])
def test_metrics_of_supervised_training(make):
    policy = make()
    sft = tfrlhf.SFT(policy)
    sft.compile(keras.optimizers.SGD(0.0), run_eagerly=True)
    measured = sft.evaluate(EXAMPLES, batch_size=1)
    nats, right = [], []
    for example in EXAMPLES:
        prompt, response, _ = small.tokenizer().encode_pair(*example.values())
        ids = np.array([[*prompt, *response, 0]], np.int32)
        chances = distributions(policy, ids, np.ones_like(ids), 1.0)[0]
        for t in range(len(prompt), ids.shape[1]):
            nats.append(-math.log(chances[t - 1, ids[0, t]]))
            right.append(chances[t - 1].argmax() == ids[0, t])
    assert documented("SFT") == set(measured)
    assert measured["loss"] == pytest.approx(mean(nats), rel=1e-5)
    assert measured["accuracy"] == pytest.approx(mean(right))
    assert sum(right) == (2 if make is always_end else 0)


def test_metrics_of_the_reward_model():
    reward = small.reward_model(sharpness=4.0)
    seen = set()
    for loss, records in (
        (losses.PairwiseRanking(), RANKINGS),
        (losses.ScoreRegression(), RATINGS),
    ):
        reward.compile(keras.optimizers.SGD(0.0), loss, run_eagerly=True)
        measured = reward.evaluate(records, batch_size=1)
        expected = (
            of_pairs(reward)
            if "responses" in records[0]
            else of_ratings(reward)
        )
        # What a batch does not have stays at 0.
        assert set(measured) <= documented("Reward model")
        for name, value in expected.items():
            assert measured[name] == pytest.approx(value, abs=1e-5), name
        seen |= set(expected)
    assert seen == documented("Reward model")


def of_pairs(reward):
    """Loss by rows and their weights; accuracy and margin by pairs."""
    sums = np.zeros(5)
    for record in RANKINGS:
        weight = record.get("weight", 1.0)
        scores = reward.score(
            [record["prompt"]] * len(record["responses"]), record["responses"]
        )
        margins = [
            float(a - b) for n, a in enumerate(scores) for b in scores[n + 1 :]
        ]
        sums += weight * np.array(
            [
                mean([math.log1p(math.exp(-m)) for m in margins]),
                1.0,
                sum(m > 0 for m in margins),
                sum(margins),
                len(margins),
            ]
        )
    return {
        "loss": sums[0] / sums[1],
        "accuracy": sums[2] / sums[4],
        "margin": sums[3] / sums[4],
    }


def of_ratings(reward):
    errors, weights = [], []
    for record in RATINGS:
        (score,) = reward.score([record["prompt"]], [record["response"]])
        errors.append(abs(float(score) - record["rating"]))
        weights.append(record.get("weight", 1.0))
    return {
        "error": np.average(errors, weights=weights),
        "loss": np.average(np.square(errors), weights=weights),
    }
