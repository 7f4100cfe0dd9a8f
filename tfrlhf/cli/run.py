"""A run of a recipe: its settings, its directory, its stages."""

import contextlib
import dataclasses
import json
import pathlib
import resource
import shutil
import time
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Annotated
from typing import Any

import tyro

from tfrlhf.cli.tables import console

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


@dataclasses.dataclass
class SamplingSettings(RunSettings):
    """Settings of a recipe all of whose responses are drawn alike."""

    max_new_tokens: int = 40
    """Of a response."""
    temperature: float = 0.7
    """Of every sample."""

    def sampler(self, temperature: float | None = None) -> Any:
        """Returns how responses are drawn.

        Args:
            temperature: another one, such as 0 for the likeliest tokens.

        Returns:
            A `tfrlhf.Sampler`.
        """
        from tfrlhf.models import Sampler

        return Sampler(
            self.temperature if temperature is None else temperature,
            max_new_tokens=self.max_new_tokens,
        )


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
        self.settings = settings
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

    def fit(
        self,
        trainer: Any,
        x: Any,
        stage: str,
        shown: dict[str, str] | None = None,
        **options: Any,
    ) -> dict[str, list[float]]:
        """Calls `trainer.fit`, watched and seeded as this run is.

        Args:
            trainer: a compiled one, such as `tfrlhf.PPO`.
            x: what it learns from.
            stage: names the progress line and the log.
            shown: name of a metric to its title in the line; score and KL if
                not given.
            **options: what else `fit` takes; its `seed` is the run's if not
                given, and its `callbacks` come before those that watch.

        Returns:
            Each metric's numbers, one an epoch or one an iteration.
        """
        shown = shown or {"objective/scores": "score", "objective/kl": "KL"}
        first = options.pop("callbacks", [])
        history = trainer.fit(
            x,
            callbacks=[*first, *self.watchers(stage, shown)],
            verbose=0,
            **{"seed": self.settings.seed} | options,
        )
        return dict(history.history)

    def log_series(
        self, name: str, series: dict[str, Sequence[float]], first: int = 0
    ) -> None:
        """Writes numbers over time to TensorBoard, which no training logs.

        Args:
            name: of the directory under logs, and before each title.
            series: title to a number for each time.
            first: the earliest time that is written.
        """
        import tensorflow as tf

        writer = tf.summary.create_file_writer(str(self.logs / name))
        with writer.as_default():
            for title, numbers in series.items():
                for time in range(first, len(numbers)):
                    tf.summary.scalar(f"{name}/{title}", numbers[time], time)
        writer.close()

    def save(self, model: Any, name: str) -> None:
        """Writes a policy or a reward model to models/<name>, or not at all.

        Args:
            model: has `save_to_preset`.
            name: of its directory.
        """
        with writing(self.models / name) as directory:
            model.save_to_preset(directory)

    def write_summary(self, summary: dict[str, Any]) -> dict[str, Any]:
        """Writes `summary.json` at once or not at all.

        Args:
            summary: what was measured, as JSON values.

        Returns:
            The summary, with the `seconds` of each stage and
            `peak_memory_mb`.
        """
        summary = summary | {
            "seconds": self.seconds,
            "peak_memory_mb": peak_memory_mb(),
        }
        _write_json(self.directory / "summary.json", summary)
        return summary

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


def peak_memory_mb() -> float:
    """Returns the largest resident size of this process so far, in MB."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kilobytes / 1024, 1)


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
