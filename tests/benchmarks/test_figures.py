"""What the report makes of rounds."""

import pytest

from benchmarks.figures import Row
from benchmarks.figures import figure
from benchmarks.figures import quartiles
from benchmarks.figures import ratio

ROUNDS = [
    {"ours": {"step": 1.0}, "peer": {"step": slow}}
    for slow in (2.0, 3.0, 4.0, 5.0, 9.0)
]


def row(**asked):
    return Row("step", "peer", ratio("peer", "ours", "step"), **asked)


def test_median_and_quartiles_of_ratios_within_rounds():
    found = figure(row(), ROUNDS)
    assert (found.median, found.low, found.high) == (4.0, 3.0, 5.0)
    assert quartiles([7.0]) == (7.0, 7.0)


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        ({}, ""),
        ({"at_least": 4.0}, "PASS"),
        ({"at_least": 4.5}, "gap 0.50 ×"),
        ({"at_most": 4.0}, "PASS"),
        ({"at_most": 3.0}, "gap 1.00 ×"),
        ({"at_least": 4.5, "unit": "%"}, "gap 50%"),
    ],
)
def test_what_is_asked_passes_or_leaves_a_gap(asked, verdict):
    assert figure(row(**asked), ROUNDS).verdict == verdict
