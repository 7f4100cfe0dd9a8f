"""Medians and quartiles of rounds, and whether they reach what was asked."""

import dataclasses
import statistics
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

Round = dict[str, dict[str, float]]
PerRound = Callable[[Round], float]


@dataclasses.dataclass(frozen=True)
class Row:
    """A line of the report.

    Attributes:
        measure: what was measured.
        against: what it is a multiple or share of.
        value: of one round; None of it if the round does not tell.
        at_least: what is asked for; None for a number that is only told.
        at_most: the same, where less is better.
        unit: "x" for a multiple, "%" for a share of a limit.
    """

    measure: str
    against: str
    value: PerRound
    at_least: float | None = None
    at_most: float | None = None
    unit: str = "x"


@dataclasses.dataclass(frozen=True)
class Figure:
    """A line with its numbers: median and quartiles over the rounds."""

    row: Row
    median: float
    low: float
    high: float

    @property
    def verdict(self) -> str:
        """PASS, the gap to what was asked, or nothing."""
        row = self.row
        if row.at_least is not None:
            gap = row.at_least - self.median
        elif row.at_most is not None:
            gap = self.median - row.at_most
        else:
            return ""
        return "PASS" if gap <= 0 else f"gap {written(gap, row.unit)}"

    def as_json(self) -> dict[str, Any]:
        """The numbers with what they are, for the results file."""
        return {
            "measure": self.row.measure,
            "against": self.row.against,
            "median": self.median,
            "quartiles": [self.low, self.high],
            "at_least": self.row.at_least,
            "at_most": self.row.at_most,
            "unit": self.row.unit,
            "verdict": self.verdict,
        }


def figure(row: Row, rounds: Sequence[Round]) -> Figure:
    """Summarises a row over rounds."""
    values = [row.value(each) for each in rounds]
    return Figure(row, statistics.median(values), *quartiles(values))


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """First and third quartile, themselves among few values."""
    if len(values) < 2:
        return values[0], values[0]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return first, third


def written(number: float, unit: str) -> str:
    """A multiple or a share as text."""
    return f"{number:.0%}" if unit == "%" else f"{number:.2f} ×"


def ratio(slower: str, faster: str, phase: str) -> PerRound:
    """By how much one side is faster in a phase than another."""
    return lambda round_: round_[slower][phase] / round_[faster][phase]
