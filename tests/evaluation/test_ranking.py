"""NDCG and reciprocal rank against plain loops."""

import math

import numpy as np
import pytest

from tfrlhf.evaluation import ranking_estimates
from tfrlhf.evaluation import ranking_quality


def expected(scores, ranks, k=None):
    """Both metrics of one row without equal scores."""
    present = [i for i, rank in enumerate(ranks) if rank >= 0]
    worst = max(ranks)

    def gain(order):
        return sum(
            (2 ** (worst - ranks[i]) - 1) / math.log2(1 + place)
            for place, i in enumerate(order[:k], start=1)
        )

    order = sorted(present, key=lambda i: -scores[i])
    best = sorted(present, key=lambda i: ranks[i])
    first = min(p for p, i in enumerate(order, 1) if ranks[i] == 0)
    return gain(order) / gain(best), (1 / first) * (first <= (k or first))


@pytest.mark.parametrize("k", [None, 1, 3])
def test_agrees_with_the_loops(k):
    draw = np.random.default_rng(0)
    scores = draw.normal(size=[30, 5])
    ranks = np.stack([draw.permutation(5) for _ in range(30)])
    ranks[:10][ranks[:10] == 1] = 0  # ties of the best
    ranks[5:20, 4] = -1
    scores[5:20, 4] = 100.0  # absent: it would be first
    rows = [
        expected(s, r, k)
        for s, r in zip(scores.tolist(), ranks.tolist(), strict=True)
        if 0 in r
    ]
    kept = (ranks == 0).any(axis=1)
    found = ranking_quality(scores[kept], ranks[kept], k)
    ndcg, mrr = np.mean(rows, axis=0)
    assert found["ndcg"] == pytest.approx(ndcg, abs=1e-5)
    assert found["mrr"] == pytest.approx(mrr, abs=1e-5)


def test_the_best_order_has_1_and_equal_scores_do_not():
    ranks = np.tile(np.arange(4), [400, 1])
    assert ranking_quality(-ranks, ranks) == {"ndcg": 1.0, "mrr": 1.0}
    alike = ranking_quality(np.zeros([400, 4]), ranks)
    # Responses are stored best first, which must not help.
    assert alike["mrr"] == pytest.approx((1 + 1 / 2 + 1 / 3 + 1 / 4) / 4, 0.1)
    assert alike == ranking_quality(np.zeros([400, 4]), ranks)


def test_wrong_input_is_refused():
    for scores, ranks, message in [
        ([1.0], [0], r"both be \[B, K\]"),
        ([[1.0, 2.0]], [[0]], r"both be \[B, K\]"),
        ([[1.0, 2.0]], [[-1, -1]], "needs a response"),
    ]:
        with pytest.raises(ValueError, match=message):
            ranking_quality(scores, ranks)
    with pytest.raises(ValueError, match="`k` must be at least 1"):
        ranking_quality([[1.0, 2.0]], [[0, 1]], k=0)


def test_estimates_of_lists_of_any_length():
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, 6, 12)
    scores = [draw.random(n).tolist() for n in lengths]
    grades = [draw.permutation(n).tolist() for n in lengths]
    found = ranking_estimates(scores, grades, k=2, blocks=4)
    each = []
    for s, g in zip(scores, grades, strict=True):
        ranks = max(g) - np.array(g)
        each.append(ranking_quality([s], [ranks], k=2)["ndcg"])
    assert found["ndcg"].value == pytest.approx(np.mean(each), abs=1e-6)
    blocks = np.reshape(each, (4, 3)).mean(axis=1)
    expected = blocks.std(ddof=1) / 2
    assert found["ndcg"].stderr == pytest.approx(expected, abs=1e-6)
    with pytest.raises(ValueError, match="13 blocks and 12 lists"):
        ranking_estimates(scores, grades, blocks=13)
