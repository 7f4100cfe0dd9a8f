"""What a recipe prints: tables, samples, where everything is."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import TYPE_CHECKING
from typing import Any

import rich.console
import rich.markup
import rich.table

if TYPE_CHECKING:
    from tfrlhf.cli.run import Run

console = rich.console.Console(highlight=False)


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Prints a table; numbers keep three digits.

    Args:
        title: above it.
        columns: titles, the first one left-aligned and often empty.
        rows: a cell a column: text, a number, a pair of a mean and its
            standard error, or None for nothing.
    """
    table = rich.table.Table(title=title)
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)


def print_samples(samples: Iterable[Sequence[str]]) -> None:
    """Prints [prompt, before, after] each."""
    for prompt, before, after in samples:
        console.print(prompt, markup=False, style="bold")
        console.print(f"  before: {before.strip()}", markup=False)
        console.print(f"  after:  {after.strip()}", markup=False)


def print_where(run: "Run", summary: dict[str, Any]) -> None:
    """Prints what a run took and where everything is."""
    minutes = sum(summary["seconds"].values()) / 60
    exports = f" SavedModels: {run.exports}." if run.exports.exists() else ""
    console.print(
        f"{minutes:.1f} minutes, {summary['peak_memory_mb']:.0f} MB. "
        f"TensorBoard: tensorboard --logdir {run.logs}.{exports}",
        soft_wrap=True,
    )


def print_comparison(
    summary: dict[str, Any], samples: list[list[str]], run: "Run"
) -> None:
    """Prints what `evaluation.compare` measured, and where everything is.

    Args:
        summary: what it returned, with `seconds` and `peak_memory_mb`.
        samples: [prompt, before, after] each.
        run: the run.
    """
    won, error = summary["win_rate"], summary["win_rate_stderr"]
    print_table(
        f"{summary['prompts']} held-out prompts",
        ("", "before", "after"),
        [
            *(
                (title, summary[f"{name}_before"], summary[f"{name}_after"])
                for name, title in (
                    ("reward", "reward"),
                    ("gold", "gold reward"),
                    ("length", "length in tokens"),
                    ("distinct2", "distinct-2"),
                    ("self_similarity", "self-similarity"),
                )
            ),
            ("KL to the model before, nats", None, f"{summary['kl']:.2f}"),
            ("win rate by gold reward", None, f"{won:.3f} ± {error:.3f}"),
        ],
    )
    print_samples(samples)
    print_where(run, summary)


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return " ± ".join(f"{number:.3f}" for number in value)
    return rich.markup.escape("" if value is None else str(value))
