"""What every recipe shares: settings, the run's directory, its stages.

Imports nothing heavy, so that `--help` answers at once.
"""

import contextlib
import dataclasses
import importlib
import json
import logging
import os
import pathlib
import resource
import shutil
import sys
import time
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Annotated
from typing import Any

import rich.console
import rich.markup
import rich.table
import tyro

console = rich.console.Console(highlight=False)

CONFIG_FILE = "config.json"
STAGES_FILE = "stages.json"
# Settings that say where and how, not what: another value is the same run.
NOT_COMPARED = ("output", "overwrite")


class UserError(ValueError):
    """What went wrong and what to do, in one sentence for the user."""


@dataclasses.dataclass
class RunSettings:
    """Settings of every recipe."""

    output: pathlib.Path | None = None
    """Directory of the run; runs/<recipe> if not given."""
    seed: int = 0
    """Every random number follows from it."""
    overwrite: bool = False
    """Delete an earlier run in the directory and start anew."""
    tiny: bool = False
    """Run every stage for real, but in about a minute."""
    strategy: Annotated[str, tyro.conf.arg(metavar="none|mirrored[:N]")] = (
        "none"
    )
    """mirrored takes all GPUs; mirrored:N takes N logical CPUs."""


class Run:
    """A directory with finished stages, models, logs and exports.

    The same settings go on from the finished stages; other settings are
    refused.

    Args:
        name: of the recipe.
        settings: a `RunSettings`.

    Raises:
        UserError: the directory holds another run or foreign files.
    """

    def __init__(self, name: str, settings: RunSettings) -> None:
        self.name = name
        self.directory = settings.output or pathlib.Path("runs") / name
        self.config = {"recipe": name} | _plain(dataclasses.asdict(settings))
        self.overwrite = settings.overwrite
        self._check_directory()
        self.models = self.directory / "models"
        self.logs = self.directory / "logs"
        self.exports = self.directory / "savedmodels"
        self.stages: dict[str, dict[str, Any]] = (
            {}
            if self.overwrite
            else _read_json(self.directory / STAGES_FILE, {})
        )

    def stage(
        self, name: str, title: str, work: Callable[[], dict[str, Any] | None]
    ) -> dict[str, Any]:
        """Does a stage, unless an earlier start finished it.

        Args:
            name: of the stage.
            title: what it does, for the user.
            work: does it and returns what to remember (JSON values).

        Returns:
            What `work` returned, now or then.
        """
        number = len(self.stages) + 1
        if name in self.stages:
            seconds = self.stages[name]["seconds"]
            console.print(f"[green]✓[/] {title} (done before, {seconds:.1f} s)")
            return dict(self.stages[name]["result"])
        console.print(f"[bold]{number}. {title}[/]")
        self._prepare()
        start = time.perf_counter()
        result = work() or {}
        seconds = round(time.perf_counter() - start, 2)
        self.stages[name] = {"seconds": seconds, "result": result}
        _write_json(self.directory / STAGES_FILE, self.stages)
        console.print(f"   [green]✓[/] {seconds:.1f} s")
        return dict(result)

    @property
    def seconds(self) -> dict[str, float]:
        """Stage to the seconds it took."""
        return {name: stage["seconds"] for name, stage in self.stages.items()}

    def watchers(self, stage: str, shown: dict[str, str]) -> list[Any]:
        """Returns the callbacks of a stage: a progress line and TensorBoard.

        Args:
            stage: what `fit` does.
            shown: name of a metric to its title in the line.
        """
        from tfrlhf import callbacks

        return [
            callbacks.Progress(stage, shown, console),
            callbacks.TensorBoard(self.logs / stage, config=self.config),
        ]

    def write_summary(self, summary: dict[str, Any]) -> None:
        """Writes `summary.json` at once or not at all."""
        _write_json(self.directory / "summary.json", summary)

    def _prepare(self) -> None:
        """Makes the directory; nothing is written or deleted before."""
        if self.overwrite:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.overwrite = False
        self.models.mkdir(parents=True, exist_ok=True)
        _write_json(self.directory / CONFIG_FILE, self.config)

    def _check_directory(self) -> None:
        if not self.directory.exists():
            return
        if not self.directory.is_dir():
            raise UserError(
                f"--output {self.directory} is a file: give a directory."
            )
        earlier = self._earlier_config()
        if earlier is None:
            if any(self.directory.iterdir()):
                raise UserError(
                    f"--output {self.directory} holds files that are no run: "
                    "give an empty or new directory; --overwrite deletes only "
                    "runs."
                )
            return
        if self.overwrite:
            return
        for field in [*self.config, *earlier]:
            if field in NOT_COMPARED:
                continue
            old, new = earlier.get(field), self.config.get(field)
            if old != new:
                raise UserError(
                    f"--output {self.directory} holds a run with "
                    f"{field}={old!r}, this one has {field}={new!r}: give "
                    "another --output, or --overwrite to delete it."
                )

    def _earlier_config(self) -> dict[str, Any] | None:
        """Reads the settings of a run; a model has a config.json, too."""
        config = _read_json(self.directory / CONFIG_FILE, None)
        is_run = isinstance(config, dict) and "recipe" in config
        return config if is_run else None


@contextlib.contextmanager
def writing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Gives a directory to write to that takes its name when all is written.

    Args:
        path: the final directory; what an unfinished start left is replaced.

    Yields:
        The directory to write to.
    """
    partial = path.with_name(path.name + ".partial")
    for stale in (partial, path):
        shutil.rmtree(stale, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.rename(path)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def main(recipe: Callable[[Any], None], settings_class: type) -> None:
    """Parses the command line and runs a recipe; errors of use in a line.

    Args:
        recipe: takes the settings.
        settings_class: a dataclass that extends `RunSettings`.
    """
    settings: Any = tyro.cli(settings_class, description=recipe.__doc__)
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # It warns of the traces that several models of a run need.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        check_files(settings)
        recipe(settings)
    except (ValueError, FileNotFoundError, ImportError) as error:
        # Data, reward, model and directory errors say what to do themselves.
        if not _is_ours(error):
            raise
        console.print("Error:", style="red", end=" ")
        console.print(str(error), soft_wrap=True, markup=False)
        sys.exit(2)


def check_files(settings: RunSettings) -> None:
    """Refuses paths to read from that are not there, before anything starts.

    Args:
        settings: whose paths, but for `output`, are inputs.

    Raises:
        UserError: names the option and the path.
    """
    for name, value in vars(settings).items():
        is_input = isinstance(value, pathlib.Path) and name != "output"
        if is_input and not value.exists():
            option = "--" + name.replace("_", "-")
            raise UserError(f"{option} {value} does not exist: check the path.")


def make_strategy(name: str) -> Any:
    """Makes a `tf.distribute` strategy.

    Args:
        name: none, mirrored (all GPUs) or mirrored:N (N logical CPUs).

    Returns:
        The strategy.

    Raises:
        UserError: an unknown name.
    """
    import tensorflow as tf

    kind, colon, count = name.partition(":")
    if name == "none":
        return tf.distribute.get_strategy()
    if kind != "mirrored" or (colon and not (count.isdigit() and int(count))):
        raise UserError(
            f"--strategy must be none, mirrored or mirrored:N, not {name!r}."
        )
    if not count:
        return tf.distribute.MirroredStrategy()
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * int(count),
    )
    return tf.distribute.MirroredStrategy(
        [f"CPU:{i}" for i in range(int(count))]
    )


def load_function(option: str, spec: str) -> Callable[..., Any]:
    """Finds a function by `module:function`.

    Args:
        option: the name of the option, for messages.
        spec: a module on the path or in the current directory, and a name.

    Returns:
        The function.

    Raises:
        UserError: there is no such module or function.
    """
    module_name, separator, function_name = spec.partition(":")
    if not separator or not module_name or not function_name:
        raise UserError(
            f"{option} must be `module:function`, for example "
            f"tfrlhf.rewards:vader, not {spec!r}."
        )
    sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"{option} {spec}: module {module_name!r} cannot be imported "
            f"({error}); it must be installed or lie in this directory."
        ) from error
    finally:
        sys.path.pop(0)
    function = vars(module).get(function_name)
    if not callable(function):
        raise UserError(
            f"{option} {spec}: module {module_name!r} has no function "
            f"{function_name!r}."
        )
    return function


def cosine(rate: float, steps: int) -> Any:
    """Returns a learning rate that warms up and falls to a twentieth.

    Args:
        rate: the largest one.
        steps: of the optimizer, warm-up included.
    """
    import keras

    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        alpha=0.05,
        warmup_target=rate,
        warmup_steps=max(1, min(40, steps // 10)),
    )


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Prints a table; numbers keep three digits.

    Args:
        title: above it.
        columns: titles, the first one left-aligned and often empty.
        rows: a cell a column: text, a number, a list of a mean and its
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


def print_where(run: Run, summary: dict[str, Any]) -> None:
    """Prints what a run took and where everything is."""
    minutes = sum(summary["seconds"].values()) / 60
    exports = f" SavedModels: {run.exports}." if run.exports.exists() else ""
    console.print(
        f"{minutes:.1f} minutes, {summary['peak_memory_mb']:.0f} MB. "
        f"TensorBoard: tensorboard --logdir {run.logs}.{exports}",
        soft_wrap=True,
    )


def print_comparison(
    summary: dict[str, Any], samples: list[list[str]], run: Run
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


def peak_memory_mb() -> float:
    """Returns the largest resident size of this process so far, in MB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024, 1)


def _is_ours(error: BaseException) -> bool:
    """Tells whether an error was raised by this project's own code."""
    if isinstance(error, UserError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    source = pathlib.Path(trace.tb_frame.f_code.co_filename).resolve()
    home = pathlib.Path(__file__).resolve().parent
    return home in source.parents


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, list):
        return " ± ".join(f"{number:.3f}" for number in value)
    return rich.markup.escape("" if value is None else str(value))


def _plain(config: dict[str, Any]) -> dict[str, Any]:
    return {
        name: str(value) if isinstance(value, pathlib.Path) else value
        for name, value in config.items()
    }


def _read_json(path: pathlib.Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


def _write_json(path: pathlib.Path, value: Any) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
    partial.replace(path)
