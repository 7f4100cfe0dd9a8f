"""What is measured: the sides of each case and the lines it gives."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from benchmarks import counts
from benchmarks.figures import PerRound
from benchmarks.figures import Row
from benchmarks.figures import ratio
from benchmarks.shapes import SHAPES
from benchmarks.shapes import Shape

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


def share(side: str, phase: str, limit: str, needed: int) -> PerRound:
    """What part of a limit a phase reaches that needs so many FLOPs."""
    return lambda round_: needed / round_[side][phase] / round_["limits"][limit]


def rollout_share(side: str, shape: Shape, limit: str, size: int) -> PerRound:
    """What part of the least possible time a rollout takes."""

    def value(round_: Mapping[str, Mapping[str, float]]) -> float:
        limits = round_["limits"]
        least = counts.rollout_seconds(
            shape, limits[limit], limits["bandwidth"], size
        )
        return least / round_[side]["rollout"]

    return value


def ppo(name: str, rounds: int) -> Case:
    """An iteration of PPO whose responses all have the full length."""
    shape = SHAPES[name]
    by_phase = tuple(
        Row(f"  {phase}, {name}", TRL_PPO, ratio("trl", "ours", phase))
        for phase in ("rollout", "collect", "update")
    )
    mixed = {"dtype": "mixed_bfloat16", "shared": True}
    return Case(
        f"ppo-{name}",
        (
            ours("ours", "ppo", shape=name),
            trl_ppo("ppo", shape=name),
            ours("bfloat16", "ppo", shape=name, **mixed),
            LIMITS,
        ),
        rounds,
        (
            Row(
                f"PPO iteration, {name}, float32, separate value model",
                TRL_PPO,
                ratio("trl", "ours", "iteration"),
                at_least=3.0,
            ),
            *by_phase,
            Row(
                f"PPO iteration, {name}, bfloat16 and shared trunk",
                TRL_PPO,
                ratio("trl", "bfloat16", "iteration"),
                at_least=6.0,
            ),
            *limit_rows(name, shape),
        ),
    )


def limit_rows(name: str, shape: Shape) -> tuple[Row, ...]:
    """The phases of an iteration as shares of their limits."""
    update, collect = counts.update(shape), counts.collect(shape)
    return (
        Row(
            f"update phase, {name}, float32",
            "GEMM peak",
            share("ours", "update", "float32", update),
            at_least=0.75,
            unit="%",
        ),
        Row(
            f"  collect, {name}, float32",
            "GEMM peak",
            share("ours", "collect", "float32", collect),
            unit="%",
        ),
        Row(
            f"  rollout, {name}, float32",
            "GEMM peak, reading weights",
            rollout_share("ours", shape, "float32", 4),
            unit="%",
        ),
        Row(
            f"  update, {name}, bfloat16 and shared trunk",
            "bfloat16 GEMM peak",
            share(
                "bfloat16",
                "update",
                "bfloat16",
                counts.update(shape, shared=True),
            ),
            unit="%",
        ),
        Row(
            f"  update, {name}, TRL",
            "GEMM peak",
            share("trl", "update", "float32", update),
            unit="%",
        ),
    )


def ppo_ragged(name: str, rounds: int) -> Case:
    """An iteration of PPO whose responses end by themselves."""
    settings = {"shape": name, "ragged": True, "warm_up": 6}
    return Case(
        f"ppo-ragged-{name}",
        (ours("ours", "ppo", **settings), trl_ppo("ppo", **settings)),
        rounds,
        (
            Row(
                f"PPO iteration, {name}, ragged responses",
                TRL_PPO,
                ratio("trl", "ours", "iteration"),
                at_least=5.0,
            ),
            *(
                Row(
                    f"  {phase}, {name}, ragged",
                    TRL_PPO,
                    ratio("trl", "ours", phase),
                )
                for phase in ("rollout", "collect", "update")
            ),
        ),
    )


def generate(
    name: str,
    what: str,
    targets: Mapping[str, float],
    rounds: int,
    decode: float | None = None,
) -> Case:
    """Sampling 64 tokens a row.

    Args:
        name: of the shape.
        what: the shape in words.
        targets: by Keras' name of the precision.
        rounds: of the case.
        decode: what part of reading the weights is asked for in float32.
    """
    shape = SHAPES[name]
    rows = tuple(
        Row(
            f"generate, {what}, {dtype}",
            "transformers float32",
            ratio("trl", dtype, "generate"),
            at_least=target,
        )
        for dtype, target in targets.items()
    )
    rows += tuple(
        Row(
            f"{'' if dtype == 'float32' and decode else '  '}"
            f"decode, {what}, {dtype}",
            "reading the weights",
            decode_share(shape, dtype),
            at_least=decode if dtype == "float32" else None,
            unit="%",
        )
        for dtype in targets
    )
    sides = tuple(
        ours(dtype, "generate", shape=name, dtype=dtype) for dtype in targets
    )
    return Case(
        f"generate-{what.split()[0]}".replace("×", "x"),
        (*sides, trl_ppo("generate", shape=name), LIMITS),
        rounds,
        rows,
    )


def decode_share(shape: Shape, dtype: str) -> PerRound:
    """What part of a new token's time reading the weights would take.

    Above 1 where the weights stay in the caches.
    """
    size = 2 if dtype == "bfloat16" else 4
    read = size * counts.weights_read(shape)

    def value(round_: Mapping[str, Mapping[str, float]]) -> float:
        taken = round_[dtype]["generate"] - round_[dtype]["first"]
        seconds = taken / (shape.response - 1)
        return read / round_["limits"]["bandwidth"] / seconds

    return value


def step(trainer: str, what: str, shape: str) -> Case:
    """A training step of fine-tuning, of a reward model, of DPO."""
    settings = {"shape": shape, "trainer": trainer}
    sides = [
        ours("ours", "steps", **settings),
        Side("trl", "trl-1.16", "steps", settings),
        LIMITS,
    ]
    rows = [
        Row(
            f"{what} step, {shape}, float32",
            TRL,
            ratio("trl", "ours", "step"),
            at_least=2.0,
        )
    ]
    if trainer == "dpo":
        within = settings | {"precompute": False}
        sides.append(Side("trl with reference", "trl-1.16", "steps", within))
        rows.append(
            Row(
                f"  {what} step, {shape}, TRL's default",
                "TRL 1.16, reference in the step",
                ratio("trl with reference", "ours", "step"),
            )
        )
    count = SHAPES[shape].batch * (1 if trainer == "sft" else 2)
    if trainer != "reward":
        needed = counts.step(SHAPES[shape], count)
        rows.append(
            Row(
                f"  {what} step, {shape}",
                "GEMM peak",
                share("ours", "step", "float32", needed),
                unit="%",
            )
        )
    return Case(f"{trainer}-{shape}", tuple(sides), 15, tuple(rows))


def replicas(shape: str) -> Case:
    """Two replicas in a process beside one, on as many processors."""
    return Case(
        "replicas",
        (
            ours("one", "ppo", shape=shape, replicas=1, threads=(2, 0)),
            ours("two", "ppo", shape=shape, replicas=2, threads=(1, 2)),
        ),
        9,
        (
            Row(
                f"2 replicas on 2 logical CPUs, PPO iteration, {shape}",
                "1 replica",
                ratio("one", "two", "iteration"),
                at_least=0.9,
            ),
        ),
    )


CASES = (
    ppo("small", 9),
    ppo("large", 7),
    ppo_ragged("small", 11),
    ppo_ragged("large", 7),
    generate("generate-small", "4×256 batch 16", {"float32": 5.0}, 11),
    generate(
        "gpt2",
        "124M batch 8",
        {"float32": 3.0, "bfloat16": 5.0},
        7,
        decode=0.6,
    ),
    generate("stories260k", "stories260K batch 64", {"float32": 10.0}, 11),
    *(
        step(trainer, what, shape)
        for trainer, what in (
            ("sft", "SFT"),
            ("reward", "reward-model"),
            ("dpo", "DPO"),
        )
        for shape in ("small", "large")
    ),
    replicas("large"),
)
