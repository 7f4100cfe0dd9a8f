"""How the phases of PPO keep up with their limits as a size grows.

python -m benchmarks.scaling                  # all curves, and the plot
python -m benchmarks.scaling --only batch     # one of them
python -m benchmarks.scaling --quick          # one round, two points each
python -m benchmarks.scaling --plot           # of what was measured before
"""

import argparse
import json
import statistics
from typing import Any

from benchmarks import counts
from benchmarks import shapes
from benchmarks.cases import LIMITS
from benchmarks.cases import Case
from benchmarks.cases import ours
from benchmarks.driver import OUTPUT
from benchmarks.driver import ROOT
from benchmarks.driver import measure
from benchmarks.shares import rollout_share
from benchmarks.shares import share

BASE = "large"
ROUNDS = 2
# The changes of each point to the base; every curve changes one size.
CURVES: dict[str, list[dict[str, int]]] = {
    "batch": [{"batch": n} for n in (1, 4, 16, 64)],
    "response": [{"response": n} for n in (16, 64, 192, 512)],
    "vocabulary": [{"vocabulary": n} for n in (8192, 32_000, 50_257, 151_936)],
    "parameters": [
        {"layers": layers, "width": width, "heads": heads, "batch": 4}
        for layers, width, heads in (
            (2, 64, 2),
            (6, 256, 4),
            (8, 512, 8),
            (12, 768, 12),
            (20, 1024, 16),
        )
    ],
}
PHASES = ("rollout", "update")


def main() -> None:
    """Measures the curves and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a curve's name")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--plot", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    for curve, points in CURVES.items():
        if arguments.plot or arguments.only not in curve:
            continue
        rounds = 1 if arguments.quick else ROUNDS
        chosen = points[:2] if arguments.quick else points
        found = [measure_point(curve, point, rounds) for point in chosen]
        path = OUTPUT / f"scaling-{curve}.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
    plot()


def measure_point(
    curve: str, changes: dict[str, int], rounds: int
) -> dict[str, Any]:
    """Measures an iteration of one size beside the limits."""
    shape = shapes.find(BASE, changes)
    size = changes.get(curve, counts.weights_read(shape))
    side = ours("ours", "ppo", shape=BASE, changes=changes, warm_up=1)
    case = Case(f"scaling-{curve}-{size}", (side, LIMITS), rounds, ())
    found, _ = measure(case, rounds)
    update = share("ours", "update", "float32", counts.update(shape))
    rollout = rollout_share("ours", shape, "float32", 4)
    seconds = {
        phase: statistics.median(r["ours"][phase] for r in found)
        for phase in (*PHASES, "collect", "iteration")
    }
    shares = {
        "rollout": statistics.median(map(rollout, found)),
        "update": statistics.median(map(update, found)),
    }
    print(
        f"{curve} {size}: rollout {shares['rollout']:.0%} of its limit, "
        f"update {shares['update']:.0%}, "
        f"iteration {seconds['iteration']:.2f} s",
        flush=True,
    )
    return {"size": size, **shares, "seconds": seconds}


def plot() -> None:
    """Draws the curves that have been measured."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(14, 3.5))
    for axis, curve in zip(axes, CURVES, strict=True):
        path = OUTPUT / f"scaling-{curve}.json"
        axis.set(xlabel=curve, xscale="log", ylim=(0, 1.05))
        axis.grid(alpha=0.3)
        if not path.exists():
            continue
        points = json.loads(path.read_text())
        sizes = [point["size"] for point in points]
        axis.set_xticks(sizes, [short(size) for size in sizes])
        axis.minorticks_off()
        for phase in PHASES:
            axis.plot(
                sizes,
                [point[phase] for point in points],
                marker="o",
                label=phase,
            )
    axes[0].set_ylabel("share of the phase's limit")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "performance_scaling.png", dpi=110)


def short(size: float) -> str:
    """Writes a number in a few characters: 1536 as 2k."""
    for letter, unit in (("M", 10**6), ("k", 10**3)):
        if size >= unit:
            return f"{size / unit:.0f}{letter}"
    return f"{size:.0f}"


if __name__ == "__main__":
    main()
