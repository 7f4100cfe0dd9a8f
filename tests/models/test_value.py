"""The value model: which hidden state a value reads, and where it starts."""

import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.tables import counting
from tfrlhf import Policy
from tfrlhf import ValueModel

TOKEN_IDS = np.array([[5, 6, 7, 8, 0], [1, 2, 0, 0, 0]], np.int32)
PADDING_MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)
INPUTS = {"token_ids": TOKEN_IDS, "padding_mask": PADDING_MASK}


def test_a_value_reads_the_state_before_its_token():
    value = ValueModel.from_policy(small.gpt2_policy(sharpness=6.0))
    kernel = np.random.default_rng(0).normal(size=[32, 1])
    value.head.kernel.assign(kernel)
    value.head.bias.assign([0.5])
    values = value(TOKEN_IDS, PADDING_MASK).numpy()
    hidden = np.asarray(value.backbone(INPUTS))
    assert values.shape == TOKEN_IDS.shape and values.dtype == np.float32
    np.testing.assert_array_equal(values[:, 0], 0.0)
    for row, t in np.ndindex(2, 4):
        expected = hidden[row, t] @ kernel[:, 0] + 0.5
        assert values[row, t + 1] == pytest.approx(expected, abs=1e-4)


def test_from_policy_is_0_everywhere():
    policy = small.gpt2_policy(sharpness=6.0)
    value = ValueModel.from_policy(policy)
    np.testing.assert_array_equal(value(TOKEN_IDS, PADDING_MASK), 0.0)
    assert not value.shares_trunk
    shared = {id(v) for v in value.variables} & {
        id(v) for v in policy.variables
    }
    assert not shared
    for ours, theirs in zip(
        value.backbone.weights, policy.weights, strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_from_reward_equals_the_normalised_score_after_the_last_token():
    reward = small.reward_model(sharpness=6.0)
    reward.head.bias.assign([0.3])
    reward.normalize(["a", "b", "c"], ["park", "old trees", "好"])
    value = ValueModel.from_reward(reward)
    values = value(TOKEN_IDS, PADDING_MASK).numpy()
    scores = reward.score(TOKEN_IDS, PADDING_MASK)
    np.testing.assert_allclose(values[[0, 1], [4, 2]], scores, atol=1e-5)
    before = small.weights(reward)
    for variable in value.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    for one, other in zip(before, small.weights(reward), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_shared_trunk_is_the_policys_own():
    policy = small.gpt2_policy(sharpness=6.0)
    value = ValueModel.from_policy(policy, share_trunk=True)
    assert value.shares_trunk
    assert value.backbone is policy.model.backbone
    value.head.kernel.assign(np.ones([32, 1]) / 32)
    hidden = policy.hidden_states(TOKEN_IDS, PADDING_MASK)
    np.testing.assert_allclose(
        value.from_hidden(hidden),
        value(TOKEN_IDS, PADDING_MASK),
        rtol=0,
        atol=1e-5,
    )


def test_from_policy_needs_a_backbone():
    with pytest.raises(ValueError, match="TableModel.*no backbone"):
        ValueModel.from_policy(Policy(counting(9)))
