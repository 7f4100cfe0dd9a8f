"""How often one is better than another, with the error of the estimate."""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any
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


class Interval(NamedTuple):
    """Where a share lies, with some confidence.

    Attributes:
        low: the lower end.
        high: the upper end.
    """

    low: float
    high: float

    def __str__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]"


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


def mean(
    scores: Sequence[float] | np.ndarray, groups: Sequence[Any] | None = None
) -> Estimate:
    """Estimates the mean of scores, one a prompt.

    Args:
        scores: at least two numbers.
        groups: what each score belongs to, such as its prompt where a prompt
            has several. Scores that belong together are averaged first, and
            the error is that of the groups, which alone are independent.

    Returns:
        `Estimate`.

    Raises:
        ValueError: fewer than two scores or groups, or lengths that differ.

    Example:
        >>> str(mean([0.0, 1.0, 2.0, 3.0]))
        '1.500 ± 0.645'
        >>> str(mean([0.0, 1.0, 2.0, 3.0], ["a", "a", "b", "b"]))
        '1.500 ± 1.000'
    """
    if groups is not None:
        if len(groups) != len(scores):
            raise ValueError(
                "`mean` needs a group for each score. Received: "
                f"{len(scores)} scores and {len(groups)} groups"
            )
        found: dict[Any, list[float]] = {}
        for group, score in zip(groups, scores, strict=True):
            found.setdefault(group, []).append(float(score))
        scores = [sum(each) / len(each) for each in found.values()]
    if len(scores) < 2:
        raise ValueError(
            f"`mean` needs at least 2 scores. Received: {len(scores)}"
        )
    return _estimate(np.asarray(scores, float))


def wilson_interval(
    right: Sequence[float] | np.ndarray, confidence: float = 0.95
) -> Interval:
    """Bounds a share from single outcomes by Wilson's score interval.

    (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n), with z the normal
    quantile of (1 + confidence)/2. Unlike p ± z·stderr it stays within [0, 1]
    and holds for few cases and for shares near 0 and 1 (Wilson, 1927,
    https://doi.org/10.1080/01621459.1927.10502953).

    Args:
        right: 1 for each of at least one case that was right, else 0; a tie
            may count half.
        confidence: in (0, 1).

    Returns:
        `Interval`.

    Raises:
        ValueError: no case, or a confidence out of range.

    Example:
        >>> str(wilson_interval([1, 1, 1, 0]))
        '[0.301, 0.954]'
    """
    n = len(right)
    if n < 1:
        raise ValueError("`wilson_interval` needs at least 1 case.")
    if not 0.0 < confidence < 1.0:
        raise ValueError(
            "`confidence` must be between 0 and 1. Received: "
            f"confidence={confidence}"
        )
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    p = float(np.mean(np.asarray(right, float)))
    middle = p + z**2 / (2 * n)
    spread = z * (p * (1 - p) / n + z**2 / (4 * n**2)) ** 0.5
    low, high = middle - spread, middle + spread
    return Interval(
        max(low / (1 + z**2 / n), 0.0), min(high / (1 + z**2 / n), 1.0)
    )


def _estimate(outcomes: np.ndarray) -> Estimate:
    deviation = float(outcomes.std(ddof=1))
    return Estimate(float(outcomes.mean()), deviation / len(outcomes) ** 0.5)
