"""How well scores order lists of responses, by the metrics of ranking."""

from collections.abc import Sequence

import keras_rs
import numpy as np

from tfrlhf.evaluation.win_rate import Estimate
from tfrlhf.evaluation.win_rate import mean


def ranking_quality(
    scores: np.ndarray, ranks: np.ndarray, k: int | None = None
) -> dict[str, float]:
    """Measures NDCG and the mean reciprocal rank, as keras-rs computes them.

    NDCG is the sum over the responses in the order of their scores of
    (2^relevance − 1) / log2(1 + place), over that of the best order; the
    relevance is the row's largest rank less the response's, so that the worst
    have 0 (https://doi.org/10.1145/582415.582418, with the gains of
    https://doi.org/10.1145/1102351.1102363). The reciprocal rank is 1 over
    the place of the first response of rank 0. Equal scores are put in random
    order, the same in every call.

    Args:
        scores: float [B, K].
        ranks: int [B, K], 0 = best, -1 = absent; as in `Preferences`.
        k: only the first k places count, in the best order too (NDCG@k,
            MRR@k); all if not given.

    Returns:
        `ndcg` and `mrr`, means over rows, from 0 to 1 (the best order).

    Raises:
        ValueError: shapes that differ, a row without any response, or a k
            below 1.

    Example:
        >>> found = ranking_quality([[0.1, 0.5, 0.3]], [[0, 1, 2]])
        >>> round(found["mrr"], 4)
        0.3333
    """
    scores, ranks = np.asarray(scores, np.float32), np.asarray(ranks)
    if scores.ndim != 2 or scores.shape != ranks.shape:
        raise ValueError(
            "`scores` and `ranks` must both be [B, K]. Received: shapes "
            f"{scores.shape} and {ranks.shape}"
        )
    present = ranks >= 0
    if not len(ranks) or not present.any(axis=1).all():
        raise ValueError(
            "Every row of `ranks` needs a response, one that is not -1."
        )
    if k is not None and k < 1:
        raise ValueError(f"`k` must be at least 1. Received: k={k}")
    relevance = ranks.max(axis=1, keepdims=True) - ranks
    found = {}
    for name, metric, labels in (
        ("ndcg", keras_rs.metrics.NDCG(k=k, seed=0), relevance),
        ("mrr", keras_rs.metrics.MeanReciprocalRank(k=k, seed=0), ranks == 0),
    ):
        labels = np.where(present, labels, 0).astype(np.float32)
        metric.update_state(
            {"labels": labels, "mask": present}, np.where(present, scores, 0.0)
        )
        found[name] = float(metric.result())
    return found


def ranking_estimates(
    scores: Sequence[Sequence[float]],
    grades: Sequence[Sequence[float]],
    k: int | None = None,
    blocks: int = 20,
) -> dict[str, Estimate]:
    """Measures `ranking_quality` of lists of any lengths, with its error.

    The error is that of the means of blocks of neighbouring lists.

    Args:
        scores: of the responses of each list.
        grades: as many, the relevance: the higher, the better.
        k: see `ranking_quality`.
        blocks: how many; at least two, and as many lists.

    Returns:
        `ndcg` and `mrr`.

    Raises:
        ValueError: fewer lists than blocks, or see `ranking_quality`.

    Example:
        >>> scores, grades = [[1, 5], [3, 0, 2]] * 2, [[0, 1], [2, 0, 1]] * 2
        >>> str(ranking_estimates(scores, grades, blocks=2)["ndcg"])
        '1.000 ± 0.000'
    """
    if not 1 < blocks <= len(scores):
        raise ValueError(
            "`ranking_estimates` needs at least 2 blocks, and as many lists. "
            f"Received: {blocks} blocks and {len(scores)} lists"
        )
    shape = len(grades), max(map(len, grades))
    table, ranks = np.zeros(shape), np.full(shape, -1)
    for row, (found, right) in enumerate(zip(scores, grades, strict=True)):
        ranks[row, : len(right)] = np.max(right) - np.asarray(right)
        table[row, : len(right)] = found
    whole = ranking_quality(table, ranks, k)
    parts = [
        ranking_quality(table[rows], ranks[rows], k)
        for rows in np.array_split(np.arange(len(table)), blocks)
    ]
    return {
        name: Estimate(value, mean([part[name] for part in parts]).stderr)
        for name, value in whole.items()
    }
