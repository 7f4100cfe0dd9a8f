"""How often one is better than another, with the error of the estimate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Estimate(NamedTuple):
    """A mean with its standard error.

    Attributes:
        value: the mean.
        stderr: deviation / √n, with the unbiased deviation.
    """

    value: float
    stderr: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.stderr:.3f}"


def win_rate(scores: Sequence[float], baseline: Sequence[float]) -> Estimate:
    """Estimates how often a policy's response beats the baseline's.

    Args:
        scores: one score a prompt.
        baseline: the baseline's score for the same prompts.

    Returns:
        `Estimate`; a tie counts half.

    Raises:
        ValueError: lengths differ, or fewer than two prompts.

    Example:
        >>> win_rate([1.0, 2.0, 0.0, 5.0], [0.0, 2.0, 1.0, 1.0]).value
        0.625
    """
    if len(scores) != len(baseline) or len(scores) < 2:
        raise ValueError(
            "`win_rate` needs two scores for each of at least 2 prompts. "
            f"Received: {len(scores)} and {len(baseline)} scores"
        )
    difference = np.asarray(scores, float) - np.asarray(baseline, float)
    return _estimate(0.5 * (np.sign(difference) + 1.0))


def accuracy(right: Sequence[float] | np.ndarray) -> Estimate:
    """Estimates a share from single outcomes.

    Args:
        right: 1 for each of at least two cases that was right, else 0.

    Returns:
        `Estimate`.

    Example:
        >>> accuracy([1, 1, 0, 0]).value
        0.5
    """
    if len(right) < 2:
        raise ValueError(
            f"`accuracy` needs at least 2 cases. Received: {len(right)}"
        )
    return _estimate(np.asarray(right, float))


def _estimate(outcomes: np.ndarray) -> Estimate:
    deviation = float(outcomes.std(ddof=1))
    return Estimate(float(outcomes.mean()), deviation / len(outcomes) ** 0.5)
