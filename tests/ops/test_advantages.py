import functools

import numpy as np
import pytest

from tests import references
from tests.modes import HIDDEN
from tests.modes import MASK
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import ops

REWARDS, VALUES = normal(10, *MASK.shape), normal(11, *MASK.shape)
BOOTSTRAP = normal(12, len(MASK))


def gae_bootstrapped(rewards, values, mask, bootstrap_values):
    return ops.gae(rewards, values, mask, 0.9, 0.8, bootstrap_values)


def gae_bootstrapped_reference(rewards, values, mask, bootstrap_values):
    return references.gae(rewards, values, mask, 0.9, 0.8, bootstrap_values)


def test_gae_agrees_with_reference(evaluate):
    assert_agrees(
        evaluate,
        gae_bootstrapped,
        gae_bootstrapped_reference,
        REWARDS,
        VALUES,
        MASK,
        BOOTSTRAP,
        hidden=[HIDDEN, HIDDEN, None, ~MASK.any(axis=1)],
    )


@pytest.mark.parametrize(
    ("discount", "decay"), [(1.0, 0.95), (0.9, 0.0), (1.0, 1.0), (0.0, 0.5)]
)
def test_gae_discount_and_decay(discount, decay):
    received = ops.gae(REWARDS, VALUES, MASK, discount, decay)
    expected = references.gae(REWARDS, VALUES, MASK, discount, decay)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


def test_gae_golden(evaluate):
    advantages, returns = evaluate(
        ops.gae,
        np.array([[-0.1, 0.05, -0.02, 1.0]], np.float32),
        np.array([[0.5, 0.4, 0.3, 0.2]], np.float32),
        np.ones([1, 4], np.int32),
    ).values
    np.testing.assert_allclose(
        advantages, [[0.3301, 0.558, 0.64, 0.8]], rtol=0, atol=5e-5
    )
    np.testing.assert_allclose(
        returns, [[0.8301, 0.958, 0.94, 1.0]], rtol=0, atol=5e-5
    )


def test_gae_golden_with_a_gap():
    values = np.array([[0.5, 0.5, 100.0, np.nan, 0.5, 0.5]], np.float32)
    rewards = np.array([[0.0, 0.0, 7.0, np.nan, 0.0, 1.0]], np.float32)
    mask = np.array([[1, 1, 0, 0, 1, 1]], np.int32)
    advantages, _ = ops.gae(rewards, values, mask)
    np.testing.assert_allclose(
        advantages, [[0.429, 0.451, 0.0, 0.0, 0.475, 0.5]], atol=5e-4
    )


def test_gae_skips_masked_tokens_as_if_deleted():
    mask = (normal(13, 1, 40) > 0).astype(np.int32)
    rewards, values = normal(14, 1, 40), normal(15, 1, 40)
    kept = mask[0] == 1
    full = ops.gae(rewards, values, mask, 0.9)
    deleted = ops.gae(rewards[:, kept], values[:, kept], mask[:, kept], 0.9)
    for with_gaps, without in zip(full, deleted, strict=True):
        np.testing.assert_allclose(
            with_gaps.numpy()[:, kept], without, rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("length", [1, 2, 3, 31, 32, 33, 512])
def test_every_length_is_covered(length):
    rewards, values = normal(16, 2, length), normal(17, 2, length)
    mask = np.ones([2, length], np.int32)
    mask[1, length // 2 :] = 0
    received = ops.gae(rewards, values, mask, 0.99)
    expected = references.gae(rewards, values, mask, 0.99)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_lambda_one_telescopes_to_the_returns():
    _, returns = ops.gae(REWARDS, VALUES, MASK, 0.9, 1.0)
    expected = ops.discounted_returns(REWARDS, MASK, 0.9)
    np.testing.assert_allclose(returns, expected, rtol=1e-5, atol=1e-6)


discounted = functools.partial(ops.discounted_returns, discount=0.9)


def test_discounted_returns_agree(evaluate):
    assert_agrees(
        evaluate,
        discounted,
        functools.partial(references.discounted_returns, discount=0.9),
        REWARDS,
        MASK,
        hidden=[HIDDEN, None],
    )


def test_whole_numbers_are_discounts_too():
    returns = ops.discounted_returns([[1.0, 2.0]], [[1, 1]], 1)
    assert returns.numpy().tolist() == [[3.0, 2.0]]


def test_wrong_input_is_refused():
    row, mask = [[0.0, 1.0]], [[1, 1]]
    for arguments, message in [
        (([[0, 1]], row, mask), "`rewards` must be float32"),
        ((row, [[0, 1]], mask), "`values` must be float32"),
        ((row, row, [[1.0, 1.0]]), "`mask` must be int32"),
        ((row[0], row, mask), "`rewards` must have 2 axes"),
        ((row, [[0.0]], mask), "`values` must have the shape of `rewards`"),
        ((row, row, mask, 1.5), "`discount` must be between 0.0 and 1.0"),
        ((row, row, mask, 1.0, -0.1), "`decay` must be between 0.0 and 1.0"),
        ((row, row, mask, 1.0, 1.0, [1]), "`bootstrap_values` must be float32"),
        (
            (row, row, mask, 1.0, 1.0, [1.0, 2.0]),
            "`bootstrap_values` must have as many rows as `values`",
        ),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.gae(*arguments)
    with pytest.raises(ValueError, match="`rewards` must be float32"):
        ops.discounted_returns([[1]], [[1]])
    with pytest.raises(ValueError, match="`mask` must be int32"):
        ops.discounted_returns([[1.0]], [[1.0]])
