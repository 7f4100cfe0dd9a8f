"""Measures the cases in turns and prints what is reached.

python -m benchmarks                    # everything
python -m benchmarks --only ppo-small   # cases whose name has this in it
python -m benchmarks --quick            # two rounds a case: does it run?
python -m benchmarks --write            # the table into the docs, too; of
                                        # other cases what was measured last
"""

import argparse
import json
import os
import pathlib
import sys
import time

from benchmarks import report
from benchmarks import resources
from benchmarks import speed
from benchmarks.cases import Case
from benchmarks.driver import OUTPUT
from benchmarks.driver import ROOT
from benchmarks.driver import WorkerError
from benchmarks.driver import measure
from benchmarks.figures import Figure
from benchmarks.figures import figure


def main() -> int:
    """Runs the cases, prints the table and keeps the numbers.

    Returns:
        How many cases could not be measured.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument(
        "--write", action="store_true", help="into docs/performance.md"
    )
    arguments = parser.parse_args()
    report.say_limits(os.environ)
    OUTPUT.mkdir(parents=True, exist_ok=True)
    cases = (*speed.CASES, *resources.CASES)
    if not any(arguments.only in case.name for case in cases):
        names = ", ".join(case.name for case in cases)
        parser.error(
            f"no case has {arguments.only!r} in its name; there are {names}"
        )
    figures, failed = [], 0
    for case in cases:
        if arguments.only not in case.name:
            continue
        rounds = min(2, case.rounds) if arguments.quick else case.rounds
        try:
            figures += run(case, rounds)
        except WorkerError as error:
            # The others can still be measured.
            print(f"\n{case.name}: {error}", flush=True)
            failed += 1
            continue
        # A run that is stopped keeps what it has.
        if arguments.write:
            lines = [line for each in cases for line in measured(each)]
            table = report.markdown(lines, report.machine())
            report.write_into(ROOT / "docs" / "performance.md", table)
    report.show_table(figures)
    return failed


def numbers_of(case: Case) -> pathlib.Path:
    """Returns where the numbers of a case are kept."""
    return OUTPUT / f"{case.name}.json"


def measured(case: Case) -> list[Figure]:
    """Returns the lines of a case that was measured last; none if never."""
    path = numbers_of(case)
    if not path.exists():
        return []
    rounds = json.loads(path.read_text())["rounds"]
    if set(rounds[0]) != {side.name for side in case.sides}:
        # It had other sides then.
        return []
    return [figure(row, rounds) for row in case.rows]


def run(case: Case, rounds: int) -> list[Figure]:
    """Measures a case, prints it and keeps its numbers."""
    started = time.perf_counter()
    found, quiet = measure(case, rounds)
    figures = [figure(row, found) for row in case.rows]
    report.show_case(case, figures, found, quiet)
    print(f"  {time.perf_counter() - started:.0f} s", flush=True)
    numbers = {
        "figures": [each.as_json() for each in figures],
        "rounds": found,
        "machine": quiet,
    }
    numbers_of(case).write_text(json.dumps(numbers, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    sys.exit(main())
