"""Every algorithm without a value model, two steps of it in NumPy loops."""

import dataclasses
import math

import keras
import numpy as np
import pytest

import tfrlhf
from tests.learning import tables
from tfrlhf import losses

RATE = 3.0
GROUP = 4


def graded(prompts, responses):
    """How much of the sentence is there, less a bit for every character."""
    return [
        sum(a == b for a, b in zip(r, tables.SENTENCE, strict=False))
        - 0.1 * len(r)
        for r in responses
    ]


@dataclasses.dataclass
class Variant:
    """What an algorithm is made of, for the loops below."""

    trainer: type
    advantages: callable
    settings: dict = dataclasses.field(default_factory=dict)
    reward_kl: float = 0.0
    loss_kl: float = 0.0
    level: str = "token"
    mean_over: str = "tokens"
    low: float = 0.2
    high: float = 0.2
    dual: float = math.inf


def in_groups(of_group):
    """Applies a function of a group's sums to all groups."""

    def estimate(rewards):
        sums = [sum(r) for r in rewards]
        found = []
        for start in range(0, len(sums), GROUP):
            found += of_group(sums[start : start + GROUP])
        return [[a] * len(r) for a, r in zip(found, rewards, strict=True)]

    return estimate


def standardised(sums):
    mean = sum(sums) / len(sums)
    variance = sum((s - mean) ** 2 for s in sums) / len(sums)
    return [(s - mean) / (math.sqrt(variance) + 1e-4) for s in sums]


def centred(sums):
    return [s - sum(sums) / len(sums) for s in sums]


def against_others(sums):
    return [s - (sum(sums) - s) / (len(sums) - 1) for s in sums]


def whitened_returns(rewards):
    returns = [[sum(r[t:]) for t in range(len(r))] for r in rewards]
    flat = [x for row in returns for x in row]
    mean = sum(flat) / len(flat)
    variance = sum((x - mean) ** 2 for x in flat) / len(flat)
    return [
        [(x - mean) / math.sqrt(variance + 1e-8) for x in row]
        for row in returns
    ]


def reward_weights(rewards):
    return [[max(sum(r), 0.0)] * len(r) for r in rewards]


def advantage_weights(rewards):
    sums = [sum(r) for r in rewards]
    mean = sum(sums) / len(sums)
    return [
        [min(math.exp((s - mean) / 0.5), 3.0)] * len(r)
        for s, r in zip(sums, rewards, strict=True)
    ]


def group(**settings):
    return {"advantage": tfrlhf.GroupRelative(GROUP, **settings)}


VARIANTS = {
    "REINFORCE++": Variant(
        tfrlhf.REINFORCEPlusPlus,
        whitened_returns,
        {"kl": tfrlhf.FixedKL(0.1)},
        reward_kl=0.1,
    ),
    "RLOO": Variant(
        tfrlhf.RLOO,
        in_groups(against_others),
        {"kl": tfrlhf.FixedKL(0.1)},
        reward_kl=0.1,
    ),
    "GRPO": Variant(
        tfrlhf.GRPO,
        in_groups(standardised),
        group(),
        loss_kl=0.04,
        mean_over="responses",
    ),
    "Dr. GRPO": Variant(
        tfrlhf.GRPO,
        in_groups(centred),
        group(scale=False) | {"loss": losses.PPOLoss(mean_over="limit")},
        mean_over="limit",
    ),
    "DAPO": Variant(
        tfrlhf.GRPO,
        in_groups(standardised),
        group() | {"loss": losses.PPOLoss(clip=(0.02, 0.05))},
        low=0.02,
        high=0.05,
    ),
    "GSPO": Variant(
        tfrlhf.GRPO,
        in_groups(standardised),
        group()
        | {
            "loss": losses.PPOLoss(
                clip=0.05, level="sequence", mean_over="responses"
            )
        },
        level="sequence",
        mean_over="responses",
        low=0.05,
        high=0.05,
    ),
    "dual clip": Variant(
        tfrlhf.GRPO,
        in_groups(standardised),
        group() | {"loss": losses.PPOLoss(clip=0.5, dual_clip=1.05)},
        low=0.5,
        high=0.5,
        dual=1.05,
    ),
    "reward-weighted": Variant(
        tfrlhf.RewardWeightedRegression,
        reward_weights,
        {"kl": tfrlhf.FixedKL(0.0)},
    ),
    "advantage-weighted": Variant(
        tfrlhf.AdvantageWeightedRegression,
        advantage_weights,
        {
            "kl": tfrlhf.FixedKL(0.0),
            "advantage": tfrlhf.AdvantageWeighted(0.5, limit=3.0),
        },
    ),
}


def log_softmax(row):
    largest = max(row)
    total = sum(math.exp(x - largest) for x in row)
    return [x - largest - math.log(total) for x in row]


def log_probs(table, response):
    found, state = [], 0
    for token in response:
        found.append(log_softmax(table[state])[token])
        state = token
    return found


def slopes(variant, new, old, ref, advantages, share):
    """How the loss of a response changes with each log-probability."""
    count = len(new)
    ratios = [math.exp(n - o) for n, o in zip(new, old, strict=True)]
    if variant.level == "sequence":
        change = sum(n - o for n, o in zip(new, old, strict=True)) / count
        ratios = [math.exp(change)] * count
    found = []
    for ratio, advantage in zip(ratios, advantages, strict=True):
        low, high = 1.0 - variant.low, 1.0 + variant.high
        plain = -advantage * ratio
        clipped = -advantage * min(max(ratio, low), high)
        is_flat = clipped > plain or (
            advantage < 0.0 and plain > -advantage * variant.dual
        )
        found.append(0.0 if is_flat else plain)
    if variant.level == "sequence":
        found = [sum(found) / count] * count
    return [
        share * (slope + variant.loss_kl * (1.0 - math.exp(r - n)))
        for slope, n, r in zip(found, new, ref, strict=True)
    ]


def two_steps(variant, table, reference, responses, scores, beside=None):
    """The table after two passes over the responses.

    `beside` is the gradient of another loss, of (table, step).
    """
    table = np.array(table, np.float64)
    old = [log_probs(table, response) for response in responses]
    ref = [log_probs(reference, response) for response in responses]
    rewards = []
    for o, r, score in zip(old, ref, scores, strict=True):
        row = [-variant.reward_kl * (a - b) for a, b in zip(o, r, strict=True)]
        row[-1] += score
        rewards.append(row)
    advantages = variant.advantages(rewards)
    tokens = sum(len(response) for response in responses)
    for step in range(2):
        gradient = np.zeros_like(table)
        for i, response in enumerate(responses):
            share = {
                "tokens": 1.0 / tokens,
                "responses": 1.0 / (len(responses) * len(response)),
                "limit": 1.0 / (len(responses) * tables.LIMIT),
            }[variant.mean_over]
            new = log_probs(table, response)
            weights = slopes(variant, new, old[i], ref[i], advantages[i], share)
            state = 0
            for token, weight in zip(response, weights, strict=True):
                gradient[state] -= weight * np.exp(log_softmax(table[state]))
                gradient[state, token] += weight
                state = token
        if beside:
            gradient += beside(table, step)
        table -= RATE * gradient
    return table


def trained(variant, beside=None, **settings):
    policy = tables.policy()
    reference = tables.policy(
        0.5 * (tables.start_table() + tables.other_table(3))
    )
    trainer = variant.trainer(policy, graded, reference)
    trainer.compile(
        keras.optimizers.SGD(RATE),
        **{
            "sampler": tables.SAMPLER,
            "update_epochs": 2,
            "clip_norm": None,
            "jit_compile": False,
        }
        | variant.settings
        | settings,
    )
    size = trainer.group_size
    prompts = [tables.START] * (24 // size)
    trainer.fit(prompts, batch_size=24, verbose=0, **beside or {})
    return trainer


def expected_table(variant, trainer, beside=None):
    """What the loops make of the responses that a trainer sampled."""
    rollout = trainer.last_iteration.rollout
    rows = rollout.token_ids.numpy()
    mask = rollout.response_mask.numpy() > 0
    responses = [row[m].tolist() for row, m in zip(rows, mask, strict=True)]
    assert len(responses) == 24
    assert len({tuple(r) for r in responses}) > 4
    return two_steps(
        variant,
        tables.start_table(),
        tables.table_of(trainer.reference),
        responses,
        rollout.scores.numpy().tolist(),
        beside,
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_two_steps_are_those_of_the_loops(name):
    variant = VARIANTS[name]
    trainer = trained(variant)
    expected = expected_table(variant, trainer)
    received = tables.table_of(trainer.policy)
    assert np.abs(expected - tables.start_table()).max() > 0.02
    np.testing.assert_allclose(received, expected, atol=2e-5)


@pytest.mark.parametrize("name", ["GRPO", "Dr. GRPO", "GSPO"])
def test_micro_batches_and_minibatches_do_not_change_the_mean(name):
    whole = tables.table_of(trained(VARIANTS[name]).policy)
    parts = tables.table_of(trained(VARIANTS[name], micro_batches=5).policy)
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_a_group_shares_its_prompt_and_not_its_draws():
    trainer = trained(VARIANTS["GRPO"])
    prompts = [tables.START, tables.START + "我"]
    completions = trainer.rollout(prompts, 0, responses=3)
    rows = completions.token_ids.numpy()
    assert rows.shape[0] == 6
    prompt = (completions.padding_mask - completions.response_mask).numpy()
    assert prompt.sum(axis=1).tolist() == [1, 1, 1, 2, 2, 2]
    assert len({tuple(row) for row in rows[:3].tolist()}) > 1


def test_rows_that_make_no_groups():
    trainer = tfrlhf.GRPO(tables.policy(), graded)
    trainer.compile("sgd", sampler=tables.SAMPLER, jit_compile=False)
    with pytest.raises(ValueError, match="10, which makes no whole groups"):
        trainer.fit([tables.START], batch_size=10, verbose=0)


def test_a_frozen_policy_lets_the_values_warm_up():
    policy = tables.policy()
    value = tables.value()
    ppo = tfrlhf.PPO(policy, graded, value)
    policy.trainable = False
    ppo.compile(
        keras.optimizers.SGD(1.0), sampler=tables.SAMPLER, jit_compile=False
    )
    ppo.fit([tables.START] * 8, batch_size=8, verbose=0)
    np.testing.assert_array_equal(
        tables.table_of(policy), np.float32(tables.start_table())
    )
    assert np.abs(value.head.kernel.numpy()).max() > 0.01
    policy.trainable = True
    ppo.compile(
        keras.optimizers.SGD(1.0), sampler=tables.SAMPLER, jit_compile=False
    )
    ppo.fit([tables.START] * 8, batch_size=8, verbose=0)
    moved = tables.table_of(policy) - tables.start_table()
    assert np.abs(moved).max() > 1e-3


def test_the_passes_end_where_the_policy_went_too_far():
    def steps(stop):
        trainer = trained(
            VARIANTS["RLOO"],
            kl=tfrlhf.FixedKL(0.1, stop=stop),
            update_epochs=4,
        )
        return int(trainer.optimizer.iterations.numpy())

    # The first step is taken from the policy that sampled.
    assert [steps(None), steps(1e3), steps(1e-9)] == [4, 4, 2]


def test_the_kl_of_the_loss_is_logged():
    trainer = trained(VARIANTS["GRPO"], update_epochs=1)
    rollout = trainer.last_iteration.rollout
    mask = rollout.response_mask.numpy() > 0
    change = (rollout.log_probs - rollout.ref_log_probs).numpy()[mask]
    k3 = np.exp(-change) - 1.0 + change
    logged = trainer.history.history["loss/kl"][0]
    assert logged == pytest.approx(k3.mean(), rel=1e-5)
    assert logged > 0.01
    assert "loss/kl" not in trained(VARIANTS["RLOO"]).history.history
