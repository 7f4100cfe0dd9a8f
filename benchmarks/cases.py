"""What is measured: the sides of each case and the lines it gives."""

import dataclasses
from typing import Any

from benchmarks.figures import Row
from benchmarks.figures import ratio


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
    """Sides that work in turns, and what is read off their times."""

    name: str
    sides: tuple[Side, ...]
    rounds: int
    rows: tuple[Row, ...]


def ours(name: str, task: str, **settings: Any) -> Side:
    """A side in the environment of this package."""
    return Side(name, "ours", task, settings)


def trl_024(task: str, **settings: Any) -> Side:
    """A side in the environment of TRL 0.24."""
    return Side("trl", "trl-0.24", task, settings)


def ppo(shape: str, rounds: int) -> Case:
    """An iteration of PPO whose responses all have the full length."""
    phases = tuple(
        Row(f"PPO {shape}, {phase}", "TRL 0.24", ratio("trl", "ours", phase))
        for phase in ("rollout", "collect", "update")
    )
    return Case(
        f"ppo-{shape}",
        (
            ours("ours", "ppo", shape=shape),
            trl_024("ppo", shape=shape),
            ours("bfloat16", "ppo", shape=shape, dtype="mixed_bfloat16",
                 shared=True),
        ),
        rounds,
        (
            Row(
                f"PPO iteration, {shape}, float32, separate value model",
                "TRL 0.24",
                ratio("trl", "ours", "iteration"),
                at_least=3.0,
            ),
            *phases,
            Row(
                f"PPO iteration, {shape}, bfloat16 and shared trunk",
                "TRL 0.24",
                ratio("trl", "bfloat16", "iteration"),
                at_least=6.0,
            ),
        ),
    )  # fmt: skip


def ppo_ragged(shape: str, rounds: int) -> Case:
    """An iteration of PPO whose responses end by themselves."""
    settings = {"shape": shape, "ragged": True, "warm_up": 6}
    return Case(
        f"ppo-ragged-{shape}",
        (ours("ours", "ppo", **settings), trl_024("ppo", **settings)),
        rounds,
        (
            Row(
                f"PPO iteration, {shape}, ragged responses",
                "TRL 0.24",
                ratio("trl", "ours", "iteration"),
                at_least=5.0,
            ),
        ),
    )


def generate(shape: str, what: str, targets: dict[str, float], rounds: int):
    """Sampling 64 tokens a row."""
    return Case(
        f"generate-{shape.removeprefix('generate-')}",
        (
            *(
                ours(dtype, "generate", shape=shape, dtype=dtype)
                for dtype in targets
            ),
            trl_024("generate", shape=shape),
        ),
        rounds,
        tuple(
            Row(
                f"generate, {what}, {dtype}",
                "transformers float32",
                ratio("trl", dtype, "generate"),
                at_least=target,
            )
            for dtype, target in targets.items()
        ),
    )


CASES = (
    ppo("small", 9),
    ppo("large", 7),
    ppo_ragged("small", 11),
    ppo_ragged("large", 7),
    generate("generate-small", "4×256 batch 16", {"float32": 5.0}, 11),
    generate("gpt2", "124M batch 8", {"float32": 3.0, "bfloat16": 5.0}, 7),
    generate("stories260k", "stories260K batch 64", {"float32": 10.0}, 11),
)
