"""A reward model on pairs, and the simple rules that it must beat there."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrlhf.evaluation.win_rate import Estimate
from tfrlhf.evaluation.win_rate import accuracy
from tfrlhf.models import RewardModel
from tfrlhf.rewards import words

Pair = dict[str, Any]


def reward_accuracy(reward: RewardModel, pairs: Sequence[Pair]) -> Estimate:
    """Measures how often a reward model scores the chosen response higher.

    Args:
        reward: the `RewardModel`.
        pairs: records with the strings `prompt`, `chosen` and `rejected`, at
            least two, from which it has not learnt.

    Returns:
        `Estimate`; a score alike counts half.

    Example:
        >>> print(reward_accuracy(reward, held_out))
        0.898 ± 0.027
    """
    prompts = [pair["prompt"] for pair in pairs]
    better, worse = (
        np.asarray(reward.score(prompts, [pair[key] for pair in pairs]))
        for key in ("chosen", "rejected")
    )
    return accuracy(0.5 * (np.sign(better - worse) + 1))


def longer_accuracy(pairs: Sequence[Pair]) -> Estimate:
    """Measures how often the chosen response is the longer one.

    Args:
        pairs: records with the strings `chosen` and `rejected`.

    Returns:
        `Estimate`; a length alike counts half.
    """
    lengths = [(len(p["chosen"]), len(p["rejected"])) for p in pairs]
    return accuracy([0.5 * (np.sign(a - b) + 1.0) for a, b in lengths])


def bag_of_words_accuracy(
    train: Sequence[Pair], test: Sequence[Pair], penalty: float = 1e-3
) -> Estimate:
    """Measures a linear Bradley-Terry model on the words of a response.

    A weight a word, on log(1 + count), fitted by 200 steps of full-batch Adam
    to the pairwise ranking loss with a squared penalty; words seen in fewer
    than three training responses are left out.

    Args:
        train: records with the strings `chosen` and `rejected`.
        test: the same, for the measure.
        penalty: weight of the squared penalty.

    Returns:
        `Estimate` on `test`; a score alike counts half.
    """
    seen = Counter(
        word
        for pair in train
        for key in ("chosen", "rejected")
        for word in set(words(pair[key]))
    )
    index = {w: i for i, w in enumerate(w for w in seen if seen[w] >= 3)}
    x, x_test = _differences(train, index), _differences(test, index)
    weights = np.zeros(len(index))
    mean, square = np.zeros_like(weights), np.zeros_like(weights)
    for step in range(1, 201):
        share = 1.0 / (1.0 + np.exp(x @ weights))
        gradient = -(share @ x) / len(x) + 2 * penalty * weights
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        unbiased = mean / (1 - 0.9**step)
        weights -= (
            0.05 * unbiased / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
        )
    return accuracy(0.5 * (np.sign(x_test @ weights) + 1.0))


def _differences(pairs: Sequence[Pair], index: dict[str, int]) -> np.ndarray:
    rows = np.zeros((len(pairs), len(index)))
    for row, pair in zip(rows, pairs, strict=True):
        for key, sign in (("chosen", 1.0), ("rejected", -1.0)):
            for word, count in Counter(words(pair[key])).items():
                if word in index:
                    row[index[word]] += sign * np.log1p(count)
    return rows
