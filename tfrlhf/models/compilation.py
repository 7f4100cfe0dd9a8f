"""What XLA compiles, and what TensorFlow's own kernels run one by one."""

import contextlib
import ctypes
import hashlib
import json
import pathlib
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from tfrlhf.kept import kept_directory

PHASES = ("rollout", "score", "collect", "update")
# What `compile(jit_compile=...)` takes.
JitCompile = bool | str | Mapping[str, bool]
# Runs of which the fastest counts.
RUNS = 3


def resolve_jit(jit_compile: JitCompile) -> dict[str, bool]:
    """Decides which phases XLA compiles.

    "auto" compiles the loop of many small steps that draws responses on every
    device, and all else on GPUs. On CPUs a compiled step is hardly faster,
    and XLA compiles anew, for many seconds, for every length of a batch.
    "measure" starts from there.

    Args:
        jit_compile: True, False, "auto" or "measure" for all phases, or a
            decision for some of `PHASES`; the rest is "auto".

    Returns:
        The decision for each of `PHASES`.

    Raises:
        ValueError: anything else.

    Example:
        >>> resolve_jit({"update": True})["update"]
        True
    """
    gpu = bool(tf.config.list_physical_devices("GPU"))
    usual = {phase: gpu or phase == "rollout" for phase in PHASES}
    if jit_compile in ("auto", "measure"):
        return usual
    if isinstance(jit_compile, bool):
        return dict.fromkeys(PHASES, jit_compile)
    if isinstance(jit_compile, Mapping) and set(jit_compile) <= set(PHASES):
        return usual | dict(jit_compile)
    raise ValueError(
        '`jit_compile` must be True, False, "auto", "measure" or a dict of '
        f"some of {', '.join(PHASES)}. Received: jit_compile={jit_compile!r}"
    )


class Compilers:
    """Whether XLA compiles a phase, by its name: `compilers["update"]`.

    Args:
        jit_compile: see `resolve_jit`.

    Attributes:
        unmeasured: the phases for which that is still to be found out.
    """

    def __init__(self, jit_compile: JitCompile) -> None:
        self._decided = resolve_jit(jit_compile)
        self.unmeasured = set(PHASES) if jit_compile == "measure" else set()

    def __getitem__(self, phase: str) -> bool:
        return self._decided[phase]

    def choose(
        self,
        phase: str,
        make: Callable[[], None],
        run: Callable[[], Any],
        what: Any,
    ) -> None:
        """Compiles a phase in the way that is faster.

        Args:
            phase: of `unmeasured`.
            make: compiles its functions as is decided here.
            run: runs it without changing anything; returns tensors.
            what: all but the phase that the answer may depend on.
        """
        self.unmeasured.remove(phase)

        def compiled(xla: bool) -> Callable[[], Any]:
            self._decided[phase] = xla
            make()
            return run

        answer = faster_by_xla(compiled, (phase, what))
        if self._decided[phase] != answer:
            compiled(answer)


def faster_by_xla(
    compiled: Callable[[bool], Callable[[], Any]], what: Any
) -> bool:
    """Finds out whether XLA makes something faster, once on a machine.

    Args:
        compiled: from whether XLA compiles it to what runs it and returns
            tensors; it is run several times.
        what: all that the answer may depend on but for processor, TensorFlow
            and threads; what it prints as is the name under which the answer
            is kept for the next time.

    Returns:
        Whether the fastest run with XLA took less than the fastest without;
        False where XLA cannot compile it.
    """
    threading = tf.config.threading
    threads = (
        threading.get_intra_op_parallelism_threads(),
        threading.get_inter_op_parallelism_threads(),
    )
    what = what, threads
    name = hashlib.sha256(repr(what).encode()).hexdigest()[:16]
    directory = kept_directory("compilers")
    file = None if directory is None else directory / f"{name}.json"
    known = _read(file)
    if known is not None:
        return known
    seconds = {xla: _seconds(compiled(xla)) for xla in (False, True)}
    answer = seconds[True] < seconds[False]
    kept = {"xla": answer, "seconds": list(seconds.values())}
    if file is not None:
        # Where nothing can be written, it is measured again next time.
        with contextlib.suppress(OSError):
            file.write_text(json.dumps(kept | {"what": repr(what)}) + "\n")
    return answer


def give_back() -> None:
    """Gives the memory back that compiling took.

    The C library keeps it for the next time, of which there is none: a
    hundred megabytes or two, at the top of which training would come.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)


def _read(file: pathlib.Path | None) -> bool | None:
    try:
        return bool(json.loads(file.read_text())["xla"]) if file else None
    except (OSError, ValueError, KeyError):
        return None


def _seconds(run: Callable[[], Any]) -> float:
    taken = []
    try:
        run()
        for _ in range(RUNS):
            start = time.perf_counter()
            for tensor in tf.nest.flatten(run()):
                tensor.numpy()  # Other devices work on meanwhile.
            taken.append(time.perf_counter() - start)
    except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError):
        # Some operations, and shapes that depend on values, are not XLA's.
        return float("inf")
    return min(taken)
