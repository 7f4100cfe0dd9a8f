import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tests.modes import HIDDEN
from tests.modes import MASK
from tests.modes import normal
from tfrlhf import losses
from tfrlhf.trainers.learner_metrics import policy_metrics
from tfrlhf.trainers.learner_metrics import value_metrics
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput

ADVANTAGES = [[-1.486305, -0.141742, 0.34204, 1.286007]]


def batch_of(mask, old_log_probs, old_values, advantages, returns):
    return Experience(
        token_ids=tf.zeros_like(mask),
        padding_mask=tf.ones_like(mask),
        response_mask=tf.constant(mask),
        old_log_probs=tf.constant(old_log_probs, tf.float32),
        old_values=tf.constant(old_values, tf.float32),
        advantages=tf.constant(advantages, tf.float32),
        returns=tf.constant(returns, tf.float32),
        ref_log_probs=tf.constant(old_log_probs, tf.float32),
    )


def learner_metrics(loss, batch, output):
    return policy_metrics(loss, batch, output) | value_metrics(
        loss, batch, output.values
    )


def test_golden():
    batch = batch_of(
        np.ones([1, 4], np.int32),
        [[-1.2, -1.7, -0.9, -1.2]],
        [[0.5, 0.4, 0.3, 0.2]],
        ADVANTAGES,
        [[0.8301, 0.958, 0.94, 1.0]],
    )
    output = PolicyOutput(
        tf.constant([[-1.0, -2.0, -0.5, -1.2]]),
        tf.constant([[0.9, 0.35, 0.1, 0.25]]),
        tf.zeros([1, 4]),
    )
    loss = losses.PPOLoss(clip=0.2, value_clip=0.2, value_weight=0.1)
    means = {
        name: float(tf.reduce_mean(x))
        for name, x in learner_metrics(loss, batch, output).items()
    }
    assert means["loss/policy"] == pytest.approx(0.058079, abs=1e-6)
    assert means["policy/clipfrac"] == 0.5
    assert means["policy/approx_kl"] == pytest.approx(0.03625, abs=1e-6)
    assert means["loss/value"] == pytest.approx(0.206836, abs=1e-6)
    total = float(tf.reduce_mean(loss(batch, output)))
    assert total == pytest.approx(0.078762, abs=1e-6)


@pytest.mark.parametrize("clip", [0.2, (0.1, 0.3)])
def test_ragged_with_nan_in_the_masked_slots(clip):
    low, high = clip if isinstance(clip, tuple) else (clip, clip)
    arrays = [0.4 * normal(seed, *MASK.shape) for seed in range(7)]
    new, old, values, old_values, advantages, returns, entropy = (
        np.where(HIDDEN, np.nan, array).astype(np.float32) for array in arrays
    )
    batch = batch_of(MASK, old, old_values, advantages, returns)
    output = PolicyOutput(*map(tf.constant, (new, values, entropy)))
    received = learner_metrics(losses.PPOLoss(clip=clip), batch, output)

    ratio = np.exp(new - old)
    unclipped = 0.5 * (values - returns) ** 2
    value_loss = references.clipped_value_loss(
        values, old_values, returns, MASK
    )
    with np.errstate(invalid="ignore"):
        outside = ((ratio > 1 + high) & (advantages > 0)) | (
            (ratio < 1 - low) & (advantages < 0)
        )
    expected = {
        "loss/policy": references.clipped_policy_loss(
            new, old, advantages, MASK, low, high
        ),
        "policy/clipfrac": np.where(HIDDEN, 0, outside),
        "policy/approx_kl": np.where(HIDDEN, 0, (new - old) ** 2 / 2),
        "policy/entropy": np.where(HIDDEN, 0, entropy),
        "loss/value": value_loss,
        "value/clipfrac": np.where(HIDDEN, 0, value_loss > unclipped + 1e-6),
    }
    assert set(received) == set(expected)
    assert 0 < expected["policy/clipfrac"].sum() < MASK.sum()
    assert 0 < expected["value/clipfrac"].sum() < MASK.sum()
    for name, value in expected.items():
        np.testing.assert_allclose(
            received[name], value, rtol=1e-5, atol=1e-6, err_msg=name
        )
