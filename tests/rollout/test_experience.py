import numpy as np
import pytest
import tensorflow as tf

from tfrlhf import rollout
from tfrlhf.types import Rollout

NAN = float("nan")
KL_WEIGHT = 0.1


def ragged(hidden):
    """Two tokens, none, three; `hidden` wherever the mask is 0."""
    x = hidden
    return Rollout(
        token_ids=tf.zeros([3, 5], tf.int32),
        padding_mask=tf.constant(
            [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
        ),
        response_mask=tf.constant(
            [[0, 1, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]
        ),
        finished=tf.constant([1, 1, 0]),
        sampler_log_probs=tf.constant(
            [[x, -1, -2.25, x, x], [x] * 5, [x, x, -0.5, -0.25, -1]]
        ),
        log_probs=tf.constant(
            [[x, -1, -2.0, x, x], [x] * 5, [x, x, -0.5, -0.25, -1]]
        ),
        ref_log_probs=tf.constant(
            [[x, -1.5, -1, x, x], [x] * 5, [x, x, -1, -0.25, -2]]
        ),
        values=tf.constant([[x, 0.5, 0.25, x, x], [x] * 5, [x, x, 1, 2, 2.5]]),
        scores=tf.constant([1.0, x, 3.0]),
        step_rewards=tf.constant(
            [[x, 0.0, 0.0, x, x], [x] * 5, [x, x, 0.0, 0.0, 0.0]]
        ),
    )


def experience(hidden, advantage=None):
    advantage = advantage or rollout.GAE(decay=1.0, whiten=False)
    return made_of(ragged(hidden), advantage)


def made_of(given, advantage, has_values=True):
    rewards = rollout.rollout_rewards(given, KL_WEIGHT)
    return rollout.make_experience(given, rewards, advantage, has_values)


@pytest.mark.parametrize("hidden", [0.0, NAN])
def test_experience_of_a_ragged_rollout(hidden):
    made = experience(hidden)
    # Rewards -0.05, 1.1 and -0.05, 0, 2.9.
    np.testing.assert_allclose(
        made.advantages,
        [[0, 0.55, 0.85, 0, 0], [0] * 5, [0, 0, 1.85, 0.9, 0.4]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(
        made.returns,
        [[0, 1.05, 1.1, 0, 0], [0] * 5, [0, 0, 2.85, 2.9, 2.9]],
        rtol=1e-6,
    )
    given = ragged(hidden)
    for received, expected in (
        (made.token_ids, given.token_ids),
        (made.padding_mask, given.padding_mask),
        (made.response_mask, given.response_mask),
        (made.old_log_probs, given.log_probs),
        (made.old_values, given.values),
    ):
        np.testing.assert_array_equal(received, expected)


@pytest.mark.parametrize("hidden", [0.0, NAN])
def test_rollout_metrics(hidden):
    metrics = rollout.rollout_metrics(ragged(hidden), KL_WEIGHT)
    expected = {
        "objective/scores": 2.0,
        "objective/scores_deviation": 1.0,
        "objective/kl": 0.5,
        "objective/kl_weight": 0.1,
        "objective/reward": 1.95,
        "length/mean": 2.5,
        "length/finished": 0.5,
        "sampler/log_prob_gap": 0.25,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-6), name


@pytest.mark.parametrize("hidden", [0.0, NAN])
def test_value_metrics(hidden):
    metrics = rollout.value_metrics(experience(hidden))
    expected = {
        "value/mean": 1.25,
        "value/explained_variance": 1.0 - 0.2554 / 0.7854,
        "returns/mean": 2.16,
        "returns/deviation": 0.7854**0.5,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert float(metrics[name]) == pytest.approx(value, rel=1e-5), name


def test_explained_variance_is_0_where_returns_do_not_vary():
    made = experience(0.0)
    constant = made._replace(returns=tf.ones_like(made.returns))
    metrics = rollout.value_metrics(constant)
    assert float(metrics["value/explained_variance"]) == 0.0


def test_a_batch_without_any_response_is_all_zeros():
    empty = ragged(NAN)
    empty = empty._replace(response_mask=tf.zeros_like(empty.response_mask))
    metrics = rollout.rollout_metrics(empty, KL_WEIGHT)
    made = made_of(empty, rollout.GAE())
    metrics |= rollout.value_metrics(made)
    metrics.pop("objective/kl_weight")
    assert {name: float(x) for name, x in metrics.items()} == dict.fromkeys(
        metrics, 0.0
    )
    np.testing.assert_array_equal(made.advantages, np.zeros([3, 5]))


def test_an_estimator_without_values_is_given_none():
    seen = []

    def rewards_themselves(rewards, values, mask):
        seen.append(values)
        return rewards, rewards

    made = made_of(ragged(NAN), rewards_themselves, has_values=False)
    assert seen == [None]
    np.testing.assert_allclose(
        made.advantages,
        [[0, -0.05, 1.1, 0, 0], [0] * 5, [0, 0, -0.05, 0, 2.9]],
        rtol=1e-6,
    )


def test_the_kind_and_the_limit_of_the_penalty():
    rewards = rollout.rollout_rewards(ragged(NAN), 1.0, "k2", clip=0.4)
    # Log-ratios 0.5, -1 and 0.5, 0, 1: k2 is half their square.
    np.testing.assert_allclose(
        rewards,
        [[0, -0.125, 0.6, 0, 0], [0] * 5, [0, 0, -0.125, 0, 2.6]],
        rtol=1e-6,
    )


def test_sequence_kl_is_summed_over_the_response():
    given = ragged(NAN)
    kl = rollout.sequence_kl(
        given.log_probs, given.ref_log_probs, given.response_mask
    )
    np.testing.assert_allclose(kl, [-0.5, 0.0, 1.5], rtol=1e-6)
