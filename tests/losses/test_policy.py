import functools

import keras
import numpy as np
import pytest

from tests import references
from tests.modes import HIDDEN
from tests.modes import MASK
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import losses
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput

LOG_PROBS, OLD_LOG_PROBS, ADVANTAGES = (
    0.3 * normal(seed, *MASK.shape) - (seed < 32) for seed in (30, 31, 32)
)
VALUES, OLD_VALUES, RETURNS, ENTROPY = (
    normal(seed, *MASK.shape) for seed in (33, 34, 35, 36)
)

GOLDEN_LOG_PROBS = np.array([[-1.0, -2.0, -0.5, -1.2]], np.float32)
GOLDEN_OLD = np.array([[-1.2, -1.7, -0.9, -1.2]], np.float32)
GOLDEN_ADVANTAGES = np.array(
    [[-1.486305, -0.141742, 0.34204, 1.286007]], np.float32
)
GOLDEN_VALUES = np.array([[0.9, 0.35, 0.1, 0.25]], np.float32)
GOLDEN_OLD_VALUES = np.array([[0.5, 0.4, 0.3, 0.2]], np.float32)
GOLDEN_RETURNS = np.array([[0.8301, 0.958, 0.94, 1.0]], np.float32)
ONES = np.ones([1, 4], np.int32)

CLIPS = {
    "usual": ({}, {"low": 0.2, "high": 0.2}),
    "lopsided": ({"clip": (0.1, 0.4)}, {"low": 0.1, "high": 0.4}),
    "dual": (
        {"clip": 0.5, "dual_clip": 1.1},
        {"low": 0.5, "high": 0.5, "dual": 1.1},
    ),
    "sequence": (
        {"clip": 0.05, "level": "sequence"},
        {"low": 0.05, "high": 0.05, "level": "sequence"},
    ),
}


@pytest.mark.parametrize("name", CLIPS)
def test_agrees_with_reference(evaluate, name):
    ours, theirs = CLIPS[name]
    assert_agrees(
        evaluate,
        functools.partial(losses.clipped_policy_loss, **ours),
        functools.partial(references.clipped_policy_loss, **theirs),
        LOG_PROBS,
        OLD_LOG_PROBS,
        ADVANTAGES,
        MASK,
        hidden=[HIDDEN, HIDDEN, HIDDEN, None],
    )


def test_golden(evaluate):
    loss = evaluate(
        losses.clipped_policy_loss,
        GOLDEN_LOG_PROBS,
        GOLDEN_OLD,
        GOLDEN_ADVANTAGES,
        ONES,
    ).values[0]
    np.testing.assert_allclose(np.mean(loss), 0.058079, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss"),
    [
        (1.5, 1.0, -1.3),  # a good token, already likelier: nothing to gain
        (0.5, 1.0, -0.5),  # a good token, less likely: pull it back
        (1.5, -1.0, 1.5),  # a bad token, likelier: push it down
        (0.5, -1.0, 0.9),  # a bad token, already less likely
    ],
)
def test_each_side_of_the_clip(ratio, advantage, loss):
    received = losses.clipped_policy_loss(
        [[float(np.log(ratio))]], [[0.0]], [[advantage]], [[1]], (0.1, 0.3)
    )
    np.testing.assert_allclose(received, [[loss]], rtol=1e-5)


def ppo_loss(loss, *arrays):
    """Calls the class with tensors in one flat list."""
    log_probs, values, entropy, mask, old_log_probs, old_values, *rest = arrays
    return loss(
        Experience(
            mask, mask, mask, old_log_probs, old_values, *rest, log_probs
        ),
        PolicyOutput(log_probs, values, entropy),
    )


def whole_reference(
    log_probs, values, entropy, mask, old_log_probs, old_values, *rest
):
    advantages, returns = rest
    policy = references.clipped_policy_loss(
        log_probs, old_log_probs, advantages, mask, 0.2, 0.3
    )
    value = references.clipped_value_loss(
        values, old_values, returns, mask, 0.5
    )
    return policy + 0.25 * value - 0.01 * np.where(mask, entropy, 0.0)


whole = functools.partial(
    ppo_loss,
    losses.PPOLoss(
        clip=(0.2, 0.3), value_clip=0.5, value_weight=0.25, entropy_weight=0.01
    ),
)


def test_ppo_loss_agrees_with_reference(evaluate):
    assert_agrees(
        evaluate,
        whole,
        whole_reference,
        LOG_PROBS,
        VALUES,
        ENTROPY,
        MASK,
        OLD_LOG_PROBS,
        OLD_VALUES,
        ADVANTAGES,
        RETURNS,
        hidden=[HIDDEN] * 3 + [None] + [HIDDEN] * 4,
    )


GOLDEN_ARRAYS = (
    GOLDEN_LOG_PROBS,
    GOLDEN_VALUES,
    np.zeros([1, 4], np.float32),
    ONES,
    GOLDEN_OLD,
    GOLDEN_OLD_VALUES,
    GOLDEN_ADVANTAGES,
    GOLDEN_RETURNS,
)
by_default = functools.partial(ppo_loss, losses.PPOLoss())


def golden_ppo(loss):
    return np.mean(ppo_loss(loss, *GOLDEN_ARRAYS))


def test_ppo_loss_golden(evaluate):
    loss = evaluate(by_default, *GOLDEN_ARRAYS).values[0]
    np.testing.assert_allclose(np.mean(loss), 0.078762, rtol=0, atol=1e-6)


def test_terms_of_weight_zero_are_left_out():
    loss = losses.PPOLoss(value_weight=0.0)
    received = ppo_loss(
        loss,
        GOLDEN_LOG_PROBS,
        np.full([1, 4], np.nan, np.float32),
        np.full([1, 4], np.nan, np.float32),
        ONES,
        GOLDEN_OLD,
        GOLDEN_OLD_VALUES,
        GOLDEN_ADVANTAGES,
        GOLDEN_RETURNS,
    )
    np.testing.assert_allclose(np.mean(received), 0.058079, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "changed",
    [
        {"clip": 0.01},
        {"value_clip": 0.01},
        {"value_clip": None},
        {"value_weight": 0.5},
        {"clip": (0.2, 0.5)},
    ],
)
def test_every_option_changes_the_loss(changed):
    assert abs(golden_ppo(losses.PPOLoss(**changed)) - 0.078762) > 1e-4


@pytest.mark.parametrize("clip", [0.3, (0.2, 0.28)])
@pytest.mark.parametrize("value_clip", [0.4, None])
def test_ppo_loss_round_trip(clip, value_clip):
    loss = losses.PPOLoss(
        clip,
        value_clip,
        0.5,
        0.01,
        3.0,
        "sequence",
        "limit",
        0.04,
        "k2",
        "mine",
    )
    assert list(loss.get_config().values()) == [
        clip,
        value_clip,
        0.5,
        0.01,
        3.0,
        "sequence",
        "limit",
        0.04,
        "k2",
        "mine",
    ]
    again = losses.PPOLoss.from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    saved = keras.saving.serialize_keras_object(loss)
    assert saved["registered_name"] == "tfrlhf>PPOLoss"
    loaded = keras.saving.deserialize_keras_object(saved)
    assert loaded.get_config() == loss.get_config()
    assert loaded.reduction == "none"


def test_wrong_input_is_refused():
    row, mask = [[0.5, 1.0]], [[1, 1]]
    for arguments, message in [
        (([[0, 1]], row, row, mask), "`log_probs` must be float32"),
        ((row, [[0, 1]], row, mask), "`old_log_probs` must be float32"),
        ((row, row, [[0, 1]], mask), "`advantages` must be float32"),
        ((row, row, row, row), "`mask` must be int32"),
        ((row[0], row, row, mask), "`log_probs` must have 2 axes"),
        ((row, [[0.5]], row, mask), "`old_log_probs` must have the shape"),
        ((row, row, row, mask, 0.0), "`clip` must be positive"),
        ((row, row, row, mask, (0.2, -0.2)), "`clip` must be positive"),
    ]:
        with pytest.raises(ValueError, match=message):
            losses.clipped_policy_loss(*arguments)
    for options, message in [
        ({"clip": -0.2}, "`clip` must be positive. Received: -0.2"),
        ({"value_clip": 0.0}, "`value_clip` must be positive"),
        ({"value_weight": -1.0}, "`value_weight` must be at least 0.0"),
        ({"entropy_weight": -1.0}, "`entropy_weight` must be at least 0.0"),
    ]:
        with pytest.raises(ValueError, match=message):
            losses.PPOLoss(**options)


@pytest.mark.parametrize("kind", ["k1", "k2", "k3"])
def test_the_kl_in_the_loss(kind):
    arrays = [LOG_PROBS, VALUES, ENTROPY, MASK, OLD_LOG_PROBS, OLD_VALUES]
    arrays += [ADVANTAGES, RETURNS]
    batch = Experience(
        MASK, MASK, MASK, *arrays[4:], np.where(HIDDEN, np.nan, OLD_LOG_PROBS)
    )
    output = PolicyOutput(LOG_PROBS, VALUES, ENTROPY)
    with_kl = losses.PPOLoss(kl_weight=0.3, kl_kind=kind)(batch, output)
    added = np.asarray(with_kl) - np.asarray(losses.PPOLoss()(batch, output))
    for row, t in np.ndindex(*MASK.shape):
        d = float(LOG_PROBS[row, t] - OLD_LOG_PROBS[row, t])
        expected = (
            {
                "k1": d,
                "k2": d * d / 2,
                "k3": float(np.exp(-d)) - 1 + d,
            }[kind]
            * 0.3
            * MASK[row, t]
        )
        assert added[row, t] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dual_clip": 1.0}, "`dual_clip` must be above 1"),
        ({"level": "word"}, "`level` must be one of 'token', 'sequence'"),
        ({"mean_over": "rows"}, "`mean_over` must be one of 'tokens'"),
        ({"kl_weight": -0.1}, "`kl_weight`"),
        ({"kl_kind": "k4"}, "`kl_kind` must be one of"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        losses.PPOLoss(**settings)
