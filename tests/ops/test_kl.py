import functools

import numpy as np
import pytest

from tests import references
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import ops

KINDS = {
    kind: functools.partial(ops.kl_estimate, kind=kind)
    for kind in ("k1", "k2", "k3")
}


@pytest.mark.parametrize("kind", KINDS)
def test_agrees_with_reference(evaluate, kind):
    reference = functools.partial(references.kl_estimate, kind=kind)
    log_probs, ref_log_probs = normal(5, 2, 3), normal(6, 2, 3)
    assert_agrees(evaluate, KINDS[kind], reference, log_probs, ref_log_probs)


@pytest.mark.parametrize(
    ("kind", "golden"),
    [
        ("k1", [0.5, -0.5]),
        ("k2", [0.125, 0.125]),
        ("k3", [0.106531, 0.148721]),
    ],
)
def test_golden(evaluate, kind, golden):
    log_probs = np.array([-1.0, -2.0], np.float32)
    ref_log_probs = np.array([-1.5, -1.5], np.float32)
    values = evaluate(KINDS[kind], log_probs, ref_log_probs).values[0]
    np.testing.assert_allclose(values, golden, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["k1", "k3"])
def test_is_unbiased(kind):
    policy = np.array([0.1, 0.2, 0.3, 0.15, 0.25], np.float32)
    reference = np.array([0.3, 0.1, 0.2, 0.25, 0.15], np.float32)
    exact = np.sum(policy * np.log(policy / reference))
    estimates = KINDS[kind](np.log(policy), np.log(reference))
    np.testing.assert_allclose(np.sum(policy * estimates), exact, rtol=1e-5)


def test_small_differences_do_not_vanish_in_k3():
    tiny = KINDS["k3"]([1e-3], [0.0]).numpy()
    np.testing.assert_allclose(tiny, [4.99833e-7], rtol=1e-3)


def test_wrong_input_is_refused():
    with pytest.raises(ValueError, match="`kind` must be one of 'k1'.*'k4'"):
        ops.kl_estimate([1.0], [1.0], "k4")
    with pytest.raises(ValueError, match="`log_probs` must be float32"):
        ops.kl_estimate([1], [1.0])
    with pytest.raises(ValueError, match="`ref_log_probs` must be float32"):
        ops.kl_estimate([1.0], [1])
    with pytest.raises(ValueError, match="shape of `log_probs`"):
        ops.kl_estimate([1.0, 2.0], [1.0])
