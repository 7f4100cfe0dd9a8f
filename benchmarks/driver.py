"""Starts a worker for each side of a case and lets them work in turns."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any

from benchmarks.cases import Case
from benchmarks.cases import Side
from benchmarks.watch import Watch

ROOT = pathlib.Path(__file__).parents[1]
OUTPUT = ROOT / "build" / "bench"
COMMANDS = {
    "ours": (sys.executable, "-m", "benchmarks.ours"),
    "trl-0.24": (".venv-peers/bin/python", "-m", "benchmarks.peers"),
    "trl-1.16": (".venv-peers-dpo/bin/python", "-m", "benchmarks.peers"),
}
# Nothing is looked up on the network, nothing is asked on the terminal.
ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "HF_HUB_OFFLINE": "1",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "CUDA_VISIBLE_DEVICES": "",
}
# What threads of the last worker may still spin for.
PAUSE = 0.1

Round = dict[str, dict[str, float]]


class WorkerError(RuntimeError):
    """A worker ended before its time."""


class Worker:
    """A process that prepares a task and works when it is told to.

    Args:
        case: the name of the case, for the log.
        side: what to prepare.
    """

    def __init__(self, case: str, side: Side) -> None:
        python = ROOT / COMMANDS[side.environment][0]
        if not python.exists():
            raise WorkerError(
                f"{side.name} needs an environment of its own that is not "
                f"there, {COMMANDS[side.environment][0]}: `make bench` makes it"
            )
        logs = OUTPUT / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self.name = side.name
        self.log = logs / f"{case}.{side.name}.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                COMMANDS[side.environment],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env=os.environ | ENVIRONMENT,
                text=True,
            )
        self._say({"task": side.task, "settings": side.settings})

    def expect(self, key: str) -> Any:
        """Waits for the next message, which must be of this kind."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            tail = self.log.read_text(errors="replace").strip()[-1500:]
            raise WorkerError(f"{self.name} ended, see {self.log}:\n{tail}")
        return json.loads(line)[key]

    def turn(self) -> dict[str, float]:
        """Lets the worker work once; returns what it measured."""
        self._write("go")
        report = self.expect("report")
        self.expect("ready")
        return report

    def close(self) -> None:
        """Ends the worker."""
        with contextlib.suppress(OSError):
            self._write("stop")
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            with contextlib.suppress(OSError):
                pipe.close()

    def processor_seconds(self) -> float:
        """What all its threads have taken so far."""
        stat = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text()
        ticks = stat.rpartition(")")[2].split()[11:13]
        return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")

    def _say(self, message: dict[str, Any]) -> None:
        self._write(json.dumps(message))

    def _write(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()


@contextlib.contextmanager
def workers(case: str, sides: Sequence[Side]) -> Iterator[list[Worker]]:
    """Workers that are ready; they prepare at the same time."""
    started: list[Worker] = []
    try:
        for side in sides:
            started.append(Worker(case, side))
        for worker in started:
            worker.expect("ready")
        yield started
    finally:
        for worker in started:
            worker.close()


def measure(case: Case, rounds: int) -> tuple[list[Round], dict[str, float]]:
    """Lets the sides of a case work in turns.

    Args:
        case: the case.
        rounds: how often each side works.

    Returns:
        For each round what each side measured, and how quiet the machine was:
        `others`, the share of the processors that programs beside the workers
        took, and `waiting`, the share that workers took while another worked.
    """
    if case.fresh:
        return measure_fresh(case, rounds)
    found: list[Round] = []
    with workers(case.name, case.sides) as sides:
        busy, started = busy_seconds(), time.perf_counter()
        own = sum(w.processor_seconds() for w in sides)
        idle_time = spun = 0.0
        for _ in range(rounds):
            taken: Round = {}
            for worker in sides:
                time.sleep(PAUSE)
                before = {w.name: w.processor_seconds() for w in sides}
                clock = time.perf_counter()
                taken[worker.name] = worker.turn()
                idle_time += time.perf_counter() - clock
                spun += sum(
                    w.processor_seconds() - before[w.name]
                    for w in sides
                    if w is not worker
                )
            found.append(taken)
        wall = (time.perf_counter() - started) * (os.cpu_count() or 1)
        own = sum(w.processor_seconds() for w in sides) - own
        others = (busy_seconds() - busy - own) / wall
    return found, {"others": max(0.0, others), "waiting": spun / idle_time}


def measure_fresh(
    case: Case, rounds: int
) -> tuple[list[Round], dict[str, float]]:
    """Makes every turn in a process of its own, and watches its memory."""
    found: list[Round] = []
    for _ in range(rounds):
        taken: Round = {}
        for side in case.sides:
            worker = Worker(case.name, side)
            try:
                with Watch(worker.process.pid) as watch:
                    worker.expect("ready")
                    numbers = worker.turn()
            finally:
                worker.close()
            taken[side.name] = numbers | watch.peaks
        found.append(taken)
    return found, {"others": 0.0, "waiting": 0.0}


def busy_seconds() -> float:
    """What all programs together have taken of the processors so far."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:]
    user, nice, system, _, _, interrupts, soft = map(int, fields[:7])
    ticks = user + nice + system + interrupts + soft
    return ticks / os.sysconf("SC_CLK_TCK")
