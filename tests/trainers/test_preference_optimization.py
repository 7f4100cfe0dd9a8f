"""Direct preference optimisation against NumPy, on policies that are tables."""

import functools

import keras
import numpy as np
import pytest

import tfrlhf
from tests import references
from tests import small
from tests.learning import exact
from tests.learning import tables
from tfrlhf import data
from tfrlhf import losses
from tfrlhf.trainers import preference_metrics
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings

TABLE, REFERENCE = tables.other_table(4), tables.other_table(3)
# Prompt, responses with their ranks, weight. Ragged, tied, one absent.
RECORDS = [
    ("始", {"我爱你。": 0, "你。": 1, "爱爱。": 1}, 1.0),
    ("始我", {"爱。": 1, "你你我。": 0}, 2.5),
    ("始爱", {"。": 2, "你我。": 0, "我。": 1}, 0.5),
]
RATED = [
    ("始", "我爱你。", 1.0, 1.0),
    ("始我", "爱。", 0.0, 2.5),
    ("始", "你。", 1.0, 0.5),
    ("始爱", "你我。", 0.0, 1.5),
]
LOSSES = {
    "dpo": (losses.DPOLoss(0.3), "dpo_loss", (0.3, 0.0)),
    "cdpo": (losses.DPOLoss(0.3, 0.2), "dpo_loss", (0.3, 0.2)),
    "robust": (
        losses.RobustDPOLoss(0.3, 0.2),
        "robust_dpo_loss",
        (0.3, 0.2),
    ),
    "ipo": (losses.IPOLoss(0.4), "ipo_loss", (0.4,)),
    "simpo": (losses.SimPOLoss(2.0, 0.7), "simpo_loss", (2.0, 0.7)),
    "orpo": (losses.ORPOLoss(0.3), "orpo_loss", (0.3,)),
}
KTO = losses.KTOLoss(0.5, 1.5, 0.6)


def rows(texts, width=8):
    """(prompt, response) to ids and masks [B, S]."""
    arrays = np.zeros([3, len(texts), width], np.int32)
    for row, (prompt, response) in enumerate(texts):
        start, stop = len(prompt), len(prompt) + len(response)
        arrays[0, row, :stop] = tables.ids(prompt + response)
        arrays[1, row, :stop] = 1
        arrays[2, row, start:stop] = 1
    return arrays


def preferences(records=RECORDS, candidates=3):
    arrays = np.zeros([3, len(records), candidates, 8], np.int32)
    ranks = np.full([len(records), candidates], -1, np.int32)
    for row, (prompt, responses, _) in enumerate(records):
        texts = [(prompt, response) for response in responses]
        arrays[:, row, : len(texts)] = rows(texts)
        ranks[row, : len(texts)] = list(responses.values())
    weights = np.array([weight for *_, weight in records], np.float32)
    return Preferences(*arrays, ranks, weights, np.zeros_like(weights))


def ratings(records=RATED):
    arrays = rows([record[:2] for record in records])
    numbers = np.array([record[2:] for record in records], np.float32).T
    return Ratings(*arrays, *numbers)


def compiled(loss, table=TABLE, reference=REFERENCE, **settings):
    dpo = tfrlhf.DPO(tables.policy(table), tables.policy(reference))
    settings = {
        "optimizer": keras.optimizers.SGD(1.0),
        "clip_norm": None,
        "run_eagerly": True,
    } | settings
    dpo.compile(loss=loss, **settings)
    return dpo


def log_prob(table, prompt, response):
    """Of a whole response."""
    chances = exact.probabilities(table)
    ids = tables.ids(prompt + response)
    return sum(
        np.log(chances[ids[t - 1], ids[t]])
        for t in range(len(prompt), len(ids))
    )


def read(table, mean):
    """Log-probabilities [B, K]; absent ones are never read."""
    out = np.full([len(RECORDS), 3], np.nan)
    for row, (prompt, responses, _) in enumerate(RECORDS):
        for k, response in enumerate(responses):
            out[row, k] = log_prob(table, prompt, response)
            out[row, k] /= len(response) if mean else 1
    return out


def replica(name, table, sft_weight=0.0):
    """Sum of weight times loss, over the sum of the weights."""
    loss, function, numbers = LOSSES[name]
    mean = loss.mean_over_tokens
    arrays = [read(table, mean)]
    if loss.needs_reference:
        arrays.append(read(REFERENCE, mean))

    def of_pair(*pair):
        return getattr(references, function)(*pair, *numbers)

    batch = preferences()
    terms = references.mean_over_pairs(of_pair, batch.ranks, *arrays)
    for row, ranks in enumerate(batch.ranks):
        best = np.flatnonzero(ranks == 0)
        terms[row] -= sft_weight * read(table, True)[row, best].mean()
    return np.average(terms, weights=batch.weight)


def gradient(function, table, step=1e-5):
    """Central differences of a number, by every entry of the table."""
    out = np.zeros(table.shape)
    for place in np.ndindex(*table.shape):
        above, below = table.copy(), table.copy()
        above[place] += step
        below[place] -= step
        out[place] = (function(above) - function(below)) / (2 * step)
    return out


def assert_step(dpo, carrier, function, tolerance=1e-5):
    """One step of plain gradient descent is the replica's gradient."""
    logs = dpo.fit(carrier, batch_size=8, verbose=0).history
    assert logs["loss"][0] == pytest.approx(function(TABLE), rel=1e-5)
    moved = TABLE - tables.table_of(dpo.policy)
    expected = gradient(function, TABLE)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(moved, expected, atol=tolerance)
    return logs


@pytest.mark.parametrize("name", LOSSES)
def test_an_update_is_the_replicas(name):
    function = functools.partial(replica, name)
    assert_step(compiled(LOSSES[name][0]), preferences(), function)


def test_an_update_in_parts_and_with_imitation_is_the_replicas():
    dpo = compiled(LOSSES["ipo"][0], micro_batches=2, sft_weight=0.5)
    function = functools.partial(replica, "ipo", sft_weight=0.5)
    assert_step(dpo, preferences(), function)


def kl_of(table, records=RATED):
    """Mean log-ratio of each prompt with the next other prompt's response."""
    others = [1, 2, 3, 0]
    ratios = [
        log_prob(table, records[i][0], records[j][1])
        - log_prob(REFERENCE, records[i][0], records[j][1])
        for i, j in enumerate(others)
    ]
    return np.average(ratios, weights=[record[3] for record in records])


def kto_replica(table):
    read = [
        [log_prob(t, *record[:2]) for record in RATED]
        for t in (table, REFERENCE)
    ]
    good, weight = np.transpose([record[2:] for record in RATED])
    kl = np.full(len(RATED), kl_of(TABLE))
    terms = references.kto_loss(*read, good, kl, 0.5, 1.5, 0.6)
    return np.average(terms, weights=weight)


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_an_update_of_kto_is_the_replicas(micro_batches):
    assert kl_of(TABLE) > 0.1
    dpo = compiled(KTO, micro_batches=micro_batches)
    logs = assert_step(dpo, ratings(), kto_replica)
    assert logs["kl"][0] == pytest.approx(kl_of(TABLE), rel=1e-5)


@pytest.mark.parametrize("name", ["dpo", "ipo", "simpo"])
def test_metrics_are_means_over_pairs(name):
    loss = LOSSES[name][0]
    measured = compiled(loss).evaluate(preferences(), batch_size=2)
    sums = [read(TABLE, False), read(TABLE, loss.mean_over_tokens)]
    reference = read(REFERENCE, loss.mean_over_tokens)
    rewards = loss.beta * (sums[1] - reference * loss.needs_reference)
    totals = dict.fromkeys(measured, 0.0)
    count = 0.0
    for row, (_, responses, weight) in enumerate(RECORDS):
        ranks = list(responses.values())
        for i, j in np.ndindex(len(ranks), len(ranks)):
            if ranks[i] < ranks[j]:
                count += weight
                better, worse = rewards[row, i], rewards[row, j]
                for key, x in (
                    ("accuracy", better > worse),
                    ("rewards/chosen", better),
                    ("rewards/rejected", worse),
                    ("rewards/margin", better - worse),
                    ("log_probs/chosen", sums[0][row, i]),
                    ("log_probs/rejected", sums[0][row, j]),
                ):
                    totals[key] += weight * x
    expected = {key: x / count for key, x in totals.items()}
    expected["loss"] = replica(name, TABLE)
    assert measured == pytest.approx(expected, rel=1e-5)


def test_metrics_of_single_responses():
    measured = compiled(KTO).evaluate(ratings(), batch_size=8)
    policy, reference = (
        np.array([log_prob(t, *record[:2]) for record in RATED])
        for t in (TABLE, REFERENCE)
    )
    good, weight = np.transpose([record[2:] for record in RATED])
    rewards = 0.5 * (policy - reference)
    right = (rewards > 0.5 * kl_of(TABLE)) == (good == 1)
    goods, bads = weight * good, weight * (1 - good)
    expected = {
        "loss": kto_replica(TABLE),
        "accuracy": np.average(right, weights=weight),
        "rewards/chosen": np.average(rewards, weights=goods),
        "rewards/rejected": np.average(rewards, weights=bads),
        "kl": kl_of(TABLE),
        "log_probs/chosen": np.average(policy, weights=goods),
        "log_probs/rejected": np.average(policy, weights=bads),
    }
    assert 0 < expected["accuracy"] < 1
    assert measured == pytest.approx(expected, rel=1e-5)


def test_a_response_is_called_good_above_the_kl():
    rewards, ratings = np.float32([[0.2, 0.5, 0.2, 0.3], [1, 1, 0, 0]])
    threshold, weight = np.full(4, 0.3, np.float32), np.ones(4, np.float32)
    metrics = preference_metrics.rating_metrics(
        rewards, rewards, threshold, ratings, weight
    )
    # One of two good ones, one bad one, and half of one on the line.
    right, count = metrics["accuracy"]
    assert (float(right), float(count)) == (2.5, 4.0)


def test_texts_are_read_as_the_carrier_is():
    dpo = tfrlhf.DPO(small.gpt2_policy(sharpness=4.0))
    dpo.compile("sgd", run_eagerly=True)
    records = [
        {"prompt": "The park", "chosen": " is large", "rejected": " no"},
        {"prompt": "12", "chosen": " trees", "rejected": " is"},
    ]
    policy = dpo.policy
    length = policy.context_length
    carrier = data.preferences(records, policy.tokenizer, length)
    measured = dpo.evaluate(records)
    assert measured == dpo.evaluate(carrier)
    assert measured["loss"] == pytest.approx(np.log(2.0), rel=1e-5)
    assert measured["accuracy"] == 0.5
    rated = [
        {"prompt": r["prompt"], "response": r["chosen"], "rating": n}
        for n, r in enumerate(records)
    ]
    dpo.compile("sgd", losses.KTOLoss(), run_eagerly=True)
    assert dpo.evaluate(rated)["loss"] == pytest.approx(0.5, rel=1e-5)


def written(carrier):
    """The texts of a carrier's sequences, [B, K]."""
    return [
        [
            "".join(tables.LETTERS[i] for i in ids[mask > 0])
            for ids, mask in zip(*row, strict=True)
        ]
        for row in zip(carrier.token_ids, carrier.padding_mask, strict=True)
    ]


def test_the_other_response_is_to_another_prompt():
    texts = [("始", "我。"), ("始", "爱。"), ("始我", "你。")]
    carrier = compiled(KTO).as_carrier(
        ratings([(*text, 1.0, 1.0) for text in texts])
    )
    others = [row[1] for row in written(carrier)]
    assert others == ["始你。", "始你。", "始我我。"]
    same = compiled(KTO).as_carrier(
        ratings([(*text, 1.0, 1.0) for text in texts[:2]])
    )
    assert [row[1] for row in written(same)] == ["始爱。", "始我。"]


def test_a_response_to_another_prompt_is_cut_to_the_context():
    policy = tables.policy(TABLE)
    policy.context_length = 4
    dpo = tfrlhf.DPO(policy, tables.policy(REFERENCE))
    dpo.compile("sgd", KTO, run_eagerly=True)
    texts = [("始我", "爱。"), ("始", "你爱。")]
    carrier = dpo.as_carrier(ratings([(*text, 1.0, 1.0) for text in texts]))
    assert written(carrier) == [
        ["始我爱。", "始我你爱"],
        ["始你爱。", "始爱。"],
    ]
    responses = carrier.response_mask.sum(axis=-1).tolist()
    assert responses == [[2, 2], [3, 2]]


def test_settings_reach_the_step():
    dpo = tfrlhf.DPO(tables.policy(TABLE), tables.policy(REFERENCE))
    dpo.compile("sgd", micro_batches=2, clip_norm=0.5, jit_compile=True)
    assert (dpo.micro_batches, dpo.clip_norm, dpo.xla) == (2, 0.5, True)
    assert dpo.objective.get_config() == losses.DPOLoss().get_config()
    dpo.compile("adam", losses.IPOLoss(), run_eagerly=True)
    assert dpo.run_eagerly and isinstance(dpo.optimizer, keras.optimizers.Adam)
    assert isinstance(dpo.objective, losses.IPOLoss)


def test_batches_of_the_carrier_train_too():
    dpo = compiled(losses.DPOLoss(0.3))
    carrier = dpo.as_carrier(preferences())
    dpo.fit(data.batches(carrier, 8), verbose=0)
    expected = gradient(functools.partial(replica, "dpo"), TABLE)
    moved = TABLE - tables.table_of(dpo.policy)
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def test_wrong_data_is_refused():
    dpo = compiled(losses.DPOLoss())
    with pytest.raises(ValueError, match="DPOLoss learns from comparisons"):
        dpo.as_carrier(ratings())
    with pytest.raises(ValueError, match="ReferencedPreferences, not of Prefe"):
        dpo.fit(data.batches(preferences(), 2), verbose=0)
    dpo = compiled(KTO)
    with pytest.raises(ValueError, match="KTOLoss learns from ratings"):
        dpo.as_carrier(preferences())
    with pytest.raises(ValueError, match="record 1 has 3.5"):
        dpo.as_carrier(ratings([RATED[0], (*RATED[1][:2], 3.5, 1.0)]))
    with pytest.raises(ValueError, match="give two records or more"):
        dpo.as_carrier(ratings(RATED[:1]))


def test_wrong_settings_are_refused():
    dpo = tfrlhf.DPO(tables.policy(TABLE))
    with pytest.raises(ValueError, match="has no `beta`. Give one of"):
        dpo.compile("sgd", losses.PairwiseRanking())
    with pytest.raises(ValueError, match="`sft_weight` must be at least"):
        dpo.compile("sgd", sft_weight=-1.0)
    with pytest.raises(ValueError, match="must call `compile"):
        tfrlhf.DPO(tables.policy(TABLE)).evaluate(preferences())
