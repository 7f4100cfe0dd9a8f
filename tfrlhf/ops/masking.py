"""Statistics over the positions that count.

A masked slot may hold anything: it is replaced before the arithmetic, because
`tf.where` after it would leave a NaN in the gradient. These functions see one
replica's tensors; global statistics are summed elsewhere and passed in.
"""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def zero_outside(x: Tensor, mask: Tensor) -> Tensor:
    """Replaces what the mask hides by 0.

    Args:
        x: tensor [...].
        mask: int32 [...], 1 where a position counts.

    Returns:
        Tensor [...] of the dtype of `x`.

    Raises:
        ValueError: if the mask is not int32 or the shapes differ.

    Example:
        >>> zero_outside([3.0, float("nan")], [1, 0]).numpy().tolist()
        [3.0, 0.0]
    """
    x = tf.convert_to_tensor(x)
    mask = checks.int_tensor("mask", mask)
    checks.same_shape(x=x, mask=mask)
    return tf.where(tf.equal(mask, 1), x, tf.zeros([], x.dtype))


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the unmasked positions of all axes: Σ m·x / Σ m.

    Args:
        x: float32 [...].
        mask: int32 [...], 1 where a position counts.

    Returns:
        float32 scalar, 0 where the mask is empty.

    Raises:
        ValueError: if a dtype is wrong or the shapes differ.

    Example:
        >>> masked_mean([1.0, 2.0, 9.0], [1, 1, 0]).numpy().tolist()
        1.5
    """
    x, mask = _checked(x, mask)
    count = tf.cast(tf.reduce_sum(mask), tf.float32)
    return tf.reduce_sum(zero_outside(x, mask)) / tf.maximum(count, 1.0)


def masked_variance(x: Tensor, mask: Tensor) -> Tensor:
    """Biased variance over the unmasked positions: Σ m·(x - mean)² / Σ m.

    Args:
        x: float32 [...].
        mask: int32 [...], 1 where a position counts.

    Returns:
        float32 scalar, 0 where the mask is empty.

    Raises:
        ValueError: if a dtype is wrong or the shapes differ.

    Example:
        >>> masked_variance([1.0, 2.0, 9.0], [1, 1, 0]).numpy().tolist()
        0.25
    """
    x, mask = _checked(x, mask)
    deviations = zero_outside(x, mask) - masked_mean(x, mask)
    return masked_mean(tf.square(deviations), mask)


def whiten(
    x: Tensor,
    mask: Tensor,
    shift_mean: bool = True,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
) -> Tensor:
    """Scales to unit variance: (x - mean) / sqrt(variance + 1e-8).

    Ziegler et al., 2019 (https://arxiv.org/abs/1909.08593): the variance is
    biased, and `shift_mean=False` adds the mean back after the scaling.

    Args:
        x: float32 [...].
        mask: int32 [...], 1 where a position counts.
        shift_mean: whether the result has mean 0.
        mean: float32 scalar, the mean over all replicas; None for that of `x`.
        variance: float32 scalar, the variance over all replicas; None for that
            of `x`.

    Returns:
        float32 [...], 0 outside the mask.

    Raises:
        ValueError: if a dtype is wrong, the shapes differ, or one of `mean`
            and `variance` is given without the other.

    Example:
        >>> whiten([1.0, 3.0, 9.0], [1, 1, 0]).numpy().tolist()
        [-1.0, 1.0, 0.0]
    """
    x, mask = _checked(x, mask)
    if (mean is None) != (variance is None):
        raise ValueError(
            "`mean` and `variance` must be given together. Received: "
            f"mean={mean}, variance={variance}."
        )
    if mean is None:
        mean = masked_mean(x, mask)
        variance = masked_variance(x, mask)
    mean = checks.float_tensor("mean", mean, rank=0)
    variance = checks.float_tensor("variance", variance, rank=0)
    whitened = (zero_outside(x, mask) - mean) * tf.math.rsqrt(variance + 1e-8)
    if not shift_mean:
        whitened += mean
    return zero_outside(whitened, mask)


def _checked(x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    x = checks.float_tensor("x", x)
    mask = checks.int_tensor("mask", mask)
    checks.same_shape(x=x, mask=mask)
    return x, mask
