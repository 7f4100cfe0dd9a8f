"""Records that ask for a margin between the implicit rewards."""

import functools

import numpy as np
import pytest

from tests.trainers import test_preference_optimization as replicas

MARGINS = np.array([0.4, 0.0, 1.5], np.float32)
OF_DIFFERENCE = {
    "dpo": lambda d, margin: np.log1p(np.exp(-(0.3 * d - margin))),
    "cdpo": lambda d, margin: (
        0.8 * np.log1p(np.exp(-(0.3 * d - margin)))
        + 0.2 * np.log1p(np.exp(0.3 * d - margin))
    ),
    "ipo": lambda d, margin: (d - 1.0 / 0.8 - margin / 0.4) ** 2,
    "simpo": lambda d, margin: np.log1p(np.exp(-(2.0 * d - 0.7 - margin))),
}


def with_margins(name, table):
    """The loss whose implicit rewards are to be a margin apart, a rank."""
    loss = replicas.LOSSES[name][0]
    ratios = replicas.read(table, loss.mean_over_tokens)
    if loss.needs_reference:
        ratios = ratios - replicas.read(
            replicas.REFERENCE, loss.mean_over_tokens
        )
    terms = []
    for row, (_, responses, _) in enumerate(replicas.RECORDS):
        ranks = list(responses.values())
        pairs = [
            OF_DIFFERENCE[name](
                ratios[row, i] - ratios[row, j], (b - a) * MARGINS[row]
            )
            for i, a in enumerate(ranks)
            for j, b in enumerate(ranks)
            if a < b
        ]
        terms.append(sum(pairs) / len(pairs))
    return np.average(terms, weights=replicas.preferences().weight)


@pytest.mark.parametrize("name", OF_DIFFERENCE)
def test_the_better_must_lead_by_the_margin(name):
    carrier = replicas.preferences()._replace(margin=MARGINS)
    function = functools.partial(with_margins, name)
    logs = replicas.assert_step(
        replicas.compiled(replicas.LOSSES[name][0]), carrier, function
    )
    assert function(replicas.TABLE) != pytest.approx(
        replicas.replica(name, replicas.TABLE), rel=1e-2
    )
    without = replicas.compiled(replicas.LOSSES[name][0]).evaluate(
        replicas.preferences()
    )
    assert logs["rewards/margin"] == [
        pytest.approx(without["rewards/margin"], rel=1e-5)
    ]


def test_odds_have_no_margin():
    carrier = replicas.preferences()._replace(margin=MARGINS[::-1])
    with pytest.raises(ValueError, match="ORPOLoss knows no margin.* record 0"):
        replicas.compiled(replicas.LOSSES["orpo"][0]).fit(carrier, verbose=0)
