"""What a case is: sides that work in turns, and lines read off their times."""

import dataclasses
from typing import Any

from benchmarks.figures import Row

# What a line is measured against.
TRL_PPO = "TRL 0.24"
TRL = "TRL 1.16"


@dataclasses.dataclass(frozen=True)
class Side:
    """One that takes turns in a case.

    Attributes:
        name: within the case.
        environment: of `driver.COMMANDS`.
        task: the module in `benchmarks.ours` or `benchmarks.peers`.
        settings: what its `run` is given.
    """

    name: str
    environment: str
    task: str
    settings: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Case:
    """Sides that work in turns, and what is read off their times.

    Attributes:
        name: for `--only`.
        sides: in the order of their turns.
        rounds: turns of each.
        rows: lines of the report.
        fresh: whether each turn is a process of its own, whose memory is
            watched.
    """

    name: str
    sides: tuple[Side, ...]
    rounds: int
    rows: tuple[Row, ...]
    fresh: bool = False


def ours(name: str, task: str, **settings: Any) -> Side:
    """A side in the environment of this package."""
    return Side(name, "ours", task, settings)


def trl_ppo(task: str, **settings: Any) -> Side:
    """A side in the environment of TRL 0.24 and its transformers."""
    return Side("trl", "trl-0.24", task, settings)


LIMITS = ours("limits", "limits")
