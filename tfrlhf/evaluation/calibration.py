"""Whether the scores of a reward model mean what Bradley-Terry says."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfrlhf.evaluation.win_rate import Interval
from tfrlhf.evaluation.win_rate import wilson_interval


class Bin(NamedTuple):
    """Pairs of which the model is about as sure.

    Attributes:
        pairs: how many.
        confidence: their mean σ(|d|), from 0.5.
        accuracy: share where the better response scores higher.
    """

    pairs: int
    confidence: float
    accuracy: float


class Calibration(NamedTuple):
    """How right a reward model is, and how right it claims to be.

    Attributes:
        accuracy: share of pairs whose better response scores higher; equal
            scores count half.
        interval: of the accuracy.
        error: the expected calibration error, 0 to 0.5 for a model that is no
            worse than chance.
        overconfidence: mean confidence − accuracy; above 0 the differences
            of the scores are too large.
        brier: mean (1 − σ(d))²; 0.25 for scores that are all the same.
        bins: those that are not empty, from the least to the most sure.
    """

    accuracy: float
    interval: Interval
    error: float
    overconfidence: float
    brier: float
    bins: list[Bin]


def calibration(
    chosen_scores: Sequence[float] | np.ndarray,
    rejected_scores: Sequence[float] | np.ndarray,
    bins: int = 10,
    confidence: float = 0.95,
) -> Calibration:
    """Compares σ(difference of scores) with how often it is right.

    By Bradley-Terry the chosen response is preferred with probability σ(d),
    d = chosen − rejected. The model decides for the higher score with
    confidence σ(|d|) in [0.5, 1], which is cut into bins of the same width:
    error = Σ_bins (count / N)·|confidence − accuracy| (Guo et al., 2017,
    https://arxiv.org/abs/1706.04599). The Brier score needs no bins (Brier,
    1950). Bins hold few pairs each: with N pairs an error of about
    √(bins / N) / 3 is chance alone.

    Args:
        chosen_scores: N numbers, before any normalisation of the scores:
            gain changes σ(d).
        rejected_scores: N numbers.
        bins: how many.
        confidence: of the interval around the accuracy.

    Returns:
        `Calibration`.

    Raises:
        ValueError: no pairs, lengths that differ, or no bins.

    Example:
        >>> found = calibration([2.0, 1.0, 0.0], [0.0, 0.0, 1.0], bins=2)
        >>> round(found.accuracy, 4), round(found.brier, 4)
        (0.6667, 0.207)
    """
    chosen = np.asarray(chosen_scores, float)
    rejected = np.asarray(rejected_scores, float)
    if chosen.ndim != 1 or chosen.shape != rejected.shape or not len(chosen):
        raise ValueError(
            "`calibration` needs two scores for each of at least 1 pair. "
            f"Received: shapes {chosen.shape} and {rejected.shape}"
        )
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1. Received: bins={bins}")
    difference = chosen - rejected
    right = 0.5 * (np.sign(difference) + 1.0)
    sure = 1.0 / (1.0 + np.exp(-np.abs(difference)))
    # σ(-d) without an overflow.
    wrong = np.where(difference > 0, 1.0 - sure, sure)
    place = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    filled = [
        Bin(
            int(here.sum()), float(sure[here].mean()), float(right[here].mean())
        )
        for here in (place == number for number in range(bins))
        if here.any()
    ]
    gaps = [b.pairs * abs(b.confidence - b.accuracy) for b in filled]
    return Calibration(
        accuracy=float(right.mean()),
        interval=wilson_interval(right, confidence),
        error=sum(gaps) / len(right),
        overconfidence=float(sure.mean() - right.mean()),
        brier=float(np.mean(wrong**2)),
        bins=filled,
    )
