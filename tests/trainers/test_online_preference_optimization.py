import keras
import numpy as np
import pytest

import tfrlhf
from tests.learning import exact
from tests.learning import tables
from tfrlhf import losses
from tfrlhf.trainers import online_preference_optimization
from tfrlhf.types import Preferences
from tfrlhf.types import Rollout

PROMPTS = ["始", "始我", "始爱"]


def lengths(prompts, responses):
    return [float(len(response)) for response in responses]


def compiled(loss=None, reward=lengths, **settings):
    online = tfrlhf.OnlineDPO(tables.policy(), reward)
    settings = {
        "optimizer": keras.optimizers.SGD(1.0),
        "sampler": tables.SAMPLER,
        "clip_norm": None,
        "jit_compile": False,
    } | settings
    online.compile(settings.pop("optimizer"), loss, **settings)
    return online


UNTRACED = pytest.mark.filterwarnings("ignore:Even though the `tf.config.exp")


@UNTRACED
def test_an_iteration_is_a_step_of_dpo_on_pairs_of_its_samples(eagerly):
    online = compiled(losses.DPOLoss(0.3))
    logs = online.fit(PROMPTS, batch_size=8, verbose=0).history
    prompts, responses, rollout = online.last_iteration
    # Room for four prompts, the fourth is padding.
    assert prompts[::2] == prompts[1::2]
    assert sorted(set(prompts)) == sorted(PROMPTS)
    scores = np.array(lengths(prompts, responses))
    np.testing.assert_array_equal(rollout.scores, scores)
    assert logs["objective/scores"][0] == pytest.approx(scores.mean())
    first, second = scores[::2], scores[1::2]
    assert (first != second).any()
    ranks = np.stack([first < second, second < first], 1).astype(np.int32)
    arrays = [np.asarray(x).reshape(3, 2, -1) for x in rollout[:3]]
    dpo = tfrlhf.DPO(tables.policy())
    dpo.compile(
        keras.optimizers.SGD(1.0),
        losses.DPOLoss(0.3),
        clip_norm=None,
        run_eagerly=True,
    )
    floats = np.ones(3, np.float32), np.zeros(3, np.float32)
    expected = dpo.fit(Preferences(*arrays, ranks, *floats), verbose=0).history
    np.testing.assert_allclose(
        tables.table_of(online.policy), tables.table_of(dpo.policy), atol=1e-6
    )
    for name, x in expected.items():
        assert logs[name] == pytest.approx(x, abs=1e-5), name


@UNTRACED
def test_equal_scores_teach_nothing(eagerly):
    online = compiled(reward=lambda prompts, responses: [1.0] * len(prompts))
    before = tables.table_of(online.policy)
    online.fit(PROMPTS, batch_size=6, verbose=0)
    np.testing.assert_array_equal(tables.table_of(online.policy), before)


def test_it_learns_the_sentence():
    online = compiled(
        losses.DPOLoss(0.2),
        tables.said_it,
        optimizer=keras.optimizers.Adam(0.1),
    )
    online.fit(["始"] * 64, batch_size=128, epochs=25, verbose=0)
    chance = exact.probability(
        tables.table_of(online.policy), 0, tables.ids(tables.SENTENCE)
    )
    assert chance > 0.9


def test_an_empty_response_is_in_no_pair():
    mask = np.array([[0, 1], [0, 0], [0, 1], [0, 1], [0, 1], [0, 1]], np.int32)
    nothing = np.zeros(6)
    scores = np.array([-1.0, 0.0, 2.0, 1.0, 0.5, 0.5])
    seen = Rollout(*[mask] * 3, *[nothing] * 5, scores, mask)
    made = online_preference_optimization.compared(seen)
    assert made.ranks.tolist() == [[1, -1], [0, 1], [0, 0]]
    assert made.token_ids.shape == (3, 2, 2)


def test_single_responses_are_refused():
    with pytest.raises(ValueError, match="KTOLoss learns from single respons"):
        compiled(losses.KTOLoss())
