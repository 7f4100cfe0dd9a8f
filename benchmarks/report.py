"""Prints what was measured."""

import os
import pathlib
import statistics
from collections.abc import Mapping
from collections.abc import Sequence
from importlib import metadata

from rich.console import Console
from rich.table import Table

from benchmarks.cases import Case
from benchmarks.figures import Figure
from benchmarks.figures import Round
from benchmarks.figures import written

LIMITS = (
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "OMP_NUM_THREADS",
)
# Around the table in docs/performance.md.
BEGIN, END = "<!-- begin results -->", "<!-- end results -->"
# Above it the ratios are not to be trusted.
NOISE = 0.05


def say_limits(environment: Mapping[str, str]) -> None:
    """Warns if the environment limits the threads of one side or both."""
    for name in LIMITS:
        if name in environment:
            print(f"{name}={environment[name]}: not how it should be measured.")


def show_case(
    case: Case,
    figures: Sequence[Figure],
    rounds: Sequence[Round],
    quiet: Mapping[str, float],
) -> None:
    """Prints the lines of a case and the medians behind them."""
    print(f"\n{case.name}, {len(rounds)} rounds")
    for each in figures:
        print("  " + "  ".join(cells(each)))
    for side in case.sides:
        medians = {
            name: statistics.median(r[side.name][name] for r in rounds)
            for name in rounds[0][side.name]
        }
        told = (f"{name} {x:.4g}" for name, x in medians.items())
        print(f"  {side.name}: {', '.join(told)}")
    if quiet["others"] > NOISE:
        print(f"  NOT QUIET: others took {quiet['others']:.0%} of the machine")
    if quiet["waiting"] > NOISE:
        print(f"  SPINNING: who waited took {quiet['waiting']:.0%}")


def show_table(figures: Sequence[Figure]) -> None:
    """Prints all lines as a table."""
    table = Table("measure", "against", "median", "quartiles", "asked", "")
    for each in figures:
        table.add_row(*cells(each))
    Console(width=110).print(table)


def markdown(figures: Sequence[Figure], machine: str) -> str:
    """The same table for docs/performance.md."""
    head = ("measure", "against", "median", "quartiles", "asked", "")
    lines = [head, ("---",) * len(head), *map(cells, figures)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{machine}\n\n{table}\n"


def write_into(path: pathlib.Path, table: str) -> None:
    """Puts the table between the two marks of a page."""
    before, rest = path.read_text().split(BEGIN)
    after = rest.split(END)[1]
    path.write_text(f"{before}{BEGIN}\n\n{table}\n{END}{after}")


def machine() -> str:
    """The processor and the versions, in a line."""
    text = pathlib.Path("/proc/cpuinfo").read_text()
    names = {
        line.split(":")[1].strip()
        for line in text.splitlines()
        if line.startswith("model name")
    }
    versions = ", ".join(
        f"{name} {metadata.version(name)}"
        for name in ("tensorflow", "keras", "keras-hub")
    )
    return f"{' '.join(names)}, {os.cpu_count()} cores; {versions}."


def cells(each: Figure) -> tuple[str, ...]:
    """The texts of a line."""
    row = each.row
    asked = ""
    if row.at_least is not None:
        asked = f"≥ {written(row.at_least, row.unit)}"
    elif row.at_most is not None:
        asked = f"≤ {written(row.at_most, row.unit)}"
    low, high = (written(x, row.unit) for x in (each.low, each.high))
    median = written(each.median, row.unit)
    return (
        row.measure,
        row.against,
        median,
        f"{low} – {high}",
        asked,
        each.verdict,
    )
