"""Estimates of the KL divergence from sampled tokens."""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor

KINDS = ("k1", "k2", "k3")


def kl_estimate(
    log_probs: Tensor, ref_log_probs: Tensor, kind: str = "k1"
) -> Tensor:
    """Per-token estimate of KL(policy || reference), in nats.

    With d = log_probs - ref_log_probs on tokens that the policy sampled:
    k1 = d (unbiased), k2 = d²/2, k3 = exp(-d) - 1 + d (unbiased, never
    negative). Schulman, 2020 (http://joschu.net/blog/kl-approx.html).

    Elementwise and without a mask: the caller replaces masked slots first.

    Args:
        log_probs: float32 [...], of the policy.
        ref_log_probs: float32 [...], of the reference.
        kind: "k1", "k2" or "k3".

    Returns:
        float32 [...].

    Raises:
        ValueError: if a dtype is wrong, the shapes differ, or the kind is
            unknown.

    Example:
        >>> kl_estimate([-1.0], [-1.5], "k2").numpy().tolist()
        [0.125]
    """
    checks.one_of("kind", kind, KINDS)
    log_probs = checks.float_tensor("log_probs", log_probs)
    ref_log_probs = checks.float_tensor("ref_log_probs", ref_log_probs)
    checks.same_shape(log_probs=log_probs, ref_log_probs=ref_log_probs)
    difference = log_probs - ref_log_probs
    if kind == "k1":
        return difference
    if kind == "k2":
        return 0.5 * tf.square(difference)
    return tf.math.expm1(-difference) + difference
