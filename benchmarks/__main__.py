"""Measures the cases in turns and prints what is reached.

python -m benchmarks                    # everything
python -m benchmarks --only ppo-small   # cases whose name has this in it
python -m benchmarks --quick            # two rounds a case: does it run?
"""

import argparse
import json
import os
import time

from benchmarks import report
from benchmarks import resources
from benchmarks import speed
from benchmarks.driver import OUTPUT
from benchmarks.driver import ROOT
from benchmarks.driver import measure
from benchmarks.figures import figure


def main() -> None:
    """Runs the cases, prints the table and keeps the numbers."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--quick", action="store_true", help="two rounds")
    parser.add_argument(
        "--write", action="store_true", help="into docs/performance.md"
    )
    arguments = parser.parse_args()
    report.say_limits(os.environ)
    figures = []
    for case in (*speed.CASES, *resources.CASES):
        if arguments.only not in case.name:
            continue
        started = time.perf_counter()
        rounds, quiet = measure(case, 2 if arguments.quick else case.rounds)
        found = [figure(row, rounds) for row in case.rows]
        report.show_case(case, found, rounds, quiet)
        print(f"  {time.perf_counter() - started:.0f} s", flush=True)
        numbers = {
            "figures": [each.as_json() for each in found],
            "rounds": rounds,
            "machine": quiet,
        }
        path = OUTPUT / f"{case.name}.json"
        path.write_text(json.dumps(numbers, indent=1) + "\n")
        figures += found
    report.show_table(figures)
    table = report.markdown(figures, report.machine())
    (OUTPUT / "report.md").write_text(table)
    if arguments.write:
        report.write_into(ROOT / "docs" / "performance.md", table)


if __name__ == "__main__":
    main()
