"""What a policy learns from preferences, where the answer is known."""

import keras
import numpy as np
import pytest

import tfrlhf
from tests.learning import exact
from tests.learning import tables
from tests.learning.test_policy_gradient import TABLE
from tfrlhf import data
from tfrlhf import losses
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings

CHOSEN, REJECTED = "我爱你。", "爱我。"
BETA = 0.5


def rows(responses):
    """Ids and masks [B, S] of responses to the start."""
    arrays = np.zeros([3, len(responses), 8], np.int32)
    for row, response in enumerate(responses):
        length = 1 + len(response)
        arrays[0, row, :length] = tables.ids(tables.START + response)
        arrays[1, row, :length] = 1
        arrays[2, row, 1:length] = 1
    return arrays


def pairs(texts, weights=None):
    """(better, worse) to `Preferences`."""
    flat = rows([text for pair in texts for text in pair])
    ranks = np.tile(np.int32([0, 1]), [len(texts), 1])
    weights = np.ones(len(texts)) if weights is None else weights
    weights = np.array(weights, np.float32)
    arrays = flat.reshape(3, len(texts), 2, -1)
    return Preferences(*arrays, ranks, weights, np.zeros_like(weights))


def rated(responses, ratings):
    weights = np.ones(len(ratings), np.float32)
    return Ratings(*rows(responses), np.float32(ratings), weights)


def trained(loss, carrier, steps, rate=1.0):
    """A policy after steps of plain gradient descent on everything."""
    dpo = tfrlhf.DPO(tables.policy(TABLE))
    dpo.compile(
        keras.optimizers.SGD(rate), loss, clip_norm=None, jit_compile=False
    )
    batch = data.batches(dpo.as_carrier(carrier), len(carrier.weight))
    dpo.fit(batch.repeat(steps), verbose=0)
    return dpo


def log_ratio(dpo, response, mean=False):
    """Of the policy to the start, whole or a token."""
    ids = tables.ids(response)
    chances = [
        exact.probability(table, 0, ids)
        for table in (tables.table_of(dpo.policy), TABLE)
    ]
    return np.log(chances[0] / chances[1]) / (len(ids) if mean else 1)


def margin(dpo, mean=False):
    return log_ratio(dpo, CHOSEN, mean) - log_ratio(dpo, REJECTED, mean)


def judged(share):
    """The two responses, judged the other way round in a share of cases."""
    both = [(CHOSEN, REJECTED), (REJECTED, CHOSEN)]
    return pairs(both, [1.0 - share, share])


ONE = pairs([(CHOSEN, REJECTED)])
# What was trained, on what, and β times the margin that is then the best.
OPTIMA = {
    "cdpo": (losses.DPOLoss(BETA, 0.2), ONE, np.log(0.8 / 0.2)),
    "dpo of divided judges": (losses.DPOLoss(BETA), judged(0.3), np.log(7 / 3)),
    # Of 30 % that judge the other way round 10 % are taken to be wrong.
    "robust dpo of divided judges": (
        losses.RobustDPOLoss(BETA, 0.1),
        judged(0.3),
        np.log(0.6 / 0.2),
    ),
}


@pytest.mark.parametrize("name", OPTIMA)
def test_the_margin_is_the_analytic_optimum(name):
    loss, carrier, expected = OPTIMA[name]
    dpo = trained(loss, carrier, 150, rate=4.0)
    assert BETA * margin(dpo) == pytest.approx(expected, rel=1e-3)
    assert log_ratio(dpo, CHOSEN) > 0 > log_ratio(dpo, REJECTED)


@pytest.mark.parametrize("beta", [0.5, 0.25])
def test_the_margin_of_ipo_is_half_of_one_over_beta(beta):
    dpo = trained(losses.IPOLoss(beta), ONE, 100)
    assert margin(dpo, mean=True) == pytest.approx(0.5 / beta, rel=1e-3)


def test_divided_judges_leave_ipo_between_them():
    """Least squares: the mean of ±1 / (2β)."""
    dpo = trained(losses.IPOLoss(BETA), judged(0.25), 100)
    expected = (0.75 - 0.25) * 0.5 / BETA
    assert margin(dpo, mean=True) == pytest.approx(expected, rel=1e-3)


def sampled(seed, count):
    """Pairs of responses of the start; the more 爱 the better."""
    every = tables.episodes(TABLE)
    chances = np.array([e.probability for e in every])
    draw = np.random.default_rng(seed).choice(
        len(every), [count * 3, 2], p=chances / chances.sum()
    )
    texts = [
        ["".join(tables.LETTERS[i] for i in every[k].token_ids) for k in pair]
        for pair in draw
    ]
    ordered = [sorted(t, key=lambda x: -x.count("爱")) for t in texts]
    return [(a, b) for a, b in ordered if a.count("爱") > b.count("爱")][:count]


# The rate is in proportion to how flat a loss is.
LEARNT = {
    "dpo": (losses.DPOLoss(0.2), 8.0),
    "ipo": (losses.IPOLoss(0.5), 0.5),
    "simpo": (losses.SimPOLoss(), 0.5),
    "orpo": (losses.ORPOLoss(1.0), 0.5),
}


@pytest.mark.parametrize("name", LEARNT)
def test_a_preference_is_learnt(name):
    """It shows in pairs never seen, and in what the policy says."""
    loss, rate = LEARNT[name]
    held_out = pairs(sampled(2, 64))
    dpo = trained(loss, pairs(sampled(1, 64)), 200, rate)
    before, after = (
        sum(e.probability * e.token_ids.count(2) for e in tables.episodes(t))
        for t in (TABLE, tables.table_of(dpo.policy))
    )
    measured = dpo.evaluate(held_out, batch_size=64)
    assert after > 1.3 * before
    if loss.needs_reference:
        assert measured["accuracy"] > 0.95


def test_single_judgements_are_learnt():
    texts = [text for pair in sampled(1, 32) for text in pair]
    carrier = rated(texts, [1, 0] * 32)
    dpo = trained(losses.KTOLoss(0.5), carrier, 200, rate=4.0)
    changes = np.array([log_ratio(dpo, text) for text in texts])
    assert changes[::2].mean() > 0.3 > 0 > -0.3 > changes[1::2].mean()
    assert dpo.evaluate(carrier, batch_size=64)["accuracy"] > 0.9
