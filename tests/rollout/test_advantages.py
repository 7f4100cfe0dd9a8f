import numpy as np
import pytest
import tensorflow as tf

from tfrlhf import GAE

REWARDS = tf.constant([[-0.1, 0.05, -0.02, 1.0]])
VALUES = tf.constant([[0.5, 0.4, 0.3, 0.2]])
MASK = tf.ones([1, 4], tf.int32)


def test_golden_without_whitening():
    advantages, returns = GAE(whiten=False)(REWARDS, VALUES, MASK)
    np.testing.assert_allclose(
        advantages, [[0.3301, 0.558, 0.64, 0.8]], atol=5e-5
    )
    np.testing.assert_allclose(returns, [[0.8301, 0.958, 0.94, 1.0]], atol=5e-5)


def test_whitening_changes_the_advantages_and_not_the_returns():
    advantages, returns = GAE()(REWARDS, VALUES, MASK)
    np.testing.assert_allclose(
        advantages, [[-1.486305, -0.141742, 0.34204, 1.286007]], atol=1e-5
    )
    np.testing.assert_allclose(returns, [[0.8301, 0.958, 0.94, 1.0]], atol=5e-5)


def test_values_are_needed():
    with pytest.raises(ValueError, match=r"needs a value model.*value="):
        GAE()(REWARDS, None, MASK)


@pytest.mark.parametrize("name", ["discount", "decay"])
@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
def test_factors_are_between_0_and_1(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be in"):
        GAE(**{name: value})
