"""Phases as shares of what the limits of the machine would give."""

from collections.abc import Mapping

from benchmarks import counts
from benchmarks.figures import PerRound
from benchmarks.figures import Row
from benchmarks.shapes import Shape


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
