"""A head on features that do not train: w·φ(s, a) has known solutions."""

import keras
import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.learning import tables
from tfrlhf import data
from tfrlhf import losses
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings

TOKENS, FEATURES, ROWS = 20, 3, 64


@pytest.fixture
def features():
    """φ of a sequence is that of its last token."""
    return np.random.default_rng(0).normal(size=[TOKENS, FEATURES])


@pytest.fixture
def model(features):
    backbone = tables.model(features)
    backbone.trainable = False
    return tfrlhf.RewardModel(backbone)


def fit(model, loss, carrier):
    model.compile(keras.optimizers.SGD(0.3, momentum=0.8), loss, clip_norm=None)
    model.fit(data.batches(carrier, ROWS).repeat(80), verbose=0)
    return np.append(model.head.kernel, model.head.bias)


def rated(token_ids, rating, weight):
    ids = token_ids[:, None].astype(np.int32)
    mask = np.ones_like(ids)
    return Ratings(
        ids, mask, mask, rating.astype(np.float32), weight.astype(np.float32)
    )


@pytest.mark.parametrize("weighted", [False, True])
def test_ratings_give_the_weighted_least_squares_solution(
    model, features, weighted
):
    token_ids = np.random.default_rng(1).integers(0, TOKENS, ROWS)
    # One annotator, of every other record, rates the other way round.
    odd = np.arange(ROWS) % 2 == 1
    rating = 1.0 + 4.0 * ((features[token_ids, 0] > 0) ^ odd)
    judged = [{"annotator": "contrary" if o else "other"} for o in odd]
    trust = {"contrary": 0.1 if weighted else 1.0, "other": 1.0}
    weight = np.array(
        [r["weight"] for r in data.weight_annotators(judged, trust)]
    )
    found = fit(
        model, losses.ScoreRegression(), rated(token_ids, rating, weight)
    )
    x = np.column_stack([features[token_ids], np.ones(ROWS)])
    root = np.sqrt(weight)
    wanted = np.linalg.lstsq(x * root[:, None], rating * root, rcond=None)[0]
    np.testing.assert_allclose(found, wanted, atol=1e-3)
    # The weights decide who is believed.
    assert bool(wanted[0] > 0.8) is weighted


def newton(x, target, weight):
    """Logistic regression of `target` on the rows of x."""
    found = np.zeros(x.shape[1])
    for _ in range(30):
        chance = 1 / (1 + np.exp(-x @ found))
        slope = x.T @ (weight * (chance - target))
        curve = (x * (weight * chance * (1 - chance))[:, None]).T @ x
        found -= np.linalg.solve(curve, slope)
    return found


def test_chances_give_the_logistic_solution(model, features):
    draw = np.random.default_rng(2)
    token_ids = draw.integers(0, TOKENS, ROWS)
    rating, weight = draw.random([2, ROWS])
    found = fit(
        model, losses.ScoreCrossEntropy(), rated(token_ids, rating, weight)
    )
    x = np.column_stack([features[token_ids], np.ones(ROWS)])
    np.testing.assert_allclose(found, newton(x, rating, weight), atol=1e-3)


def test_pairs_give_the_bradley_terry_solution(model, features):
    draw = np.random.default_rng(3)
    token_ids = draw.integers(0, TOKENS, [ROWS, 2, 1]).astype(np.int32)
    weight = draw.random(ROWS).astype(np.float32)
    mask = np.ones_like(token_ids)
    ranks = np.tile(np.int32([0, 1]), [ROWS, 1])
    bias = np.asarray(model.head.bias).copy()
    found = fit(
        model,
        losses.PairwiseRanking(),
        Preferences(token_ids, mask, mask, ranks, weight, 0.0 * weight),
    )
    chosen, rejected = (
        features[token_ids[:, 0, 0]],
        features[token_ids[:, 1, 0]],
    )
    wanted = newton(chosen - rejected, np.ones(ROWS), weight)
    np.testing.assert_allclose(found[:-1], wanted, atol=1e-3)
    # A comparison says nothing of the offset.
    np.testing.assert_allclose(found[-1:], bias, atol=1e-5)


def test_a_frozen_backbone_keeps_its_bits():
    model = small.reward_model(sharpness=6.0)
    model.backbone.trainable = False
    before = small.weights(model.backbone)
    head = np.asarray(model.head.kernel).copy()
    records = [
        {"prompt": f"The park {n}", "chosen": " fine", "rejected": " old"}
        for n in range(8)
    ]
    model.compile(keras.optimizers.Adam(3e-2))
    assert len(model.learner_variables()) == 2
    history = model.fit(records, batch_size=8, epochs=15, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    assert not np.array_equal(model.head.kernel, head)
    for now, then in zip(small.weights(model.backbone), before, strict=True):
        np.testing.assert_array_equal(now, then)
