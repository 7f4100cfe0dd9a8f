"""The cases of speed: PPO, sampling, training steps, replicas."""

from collections.abc import Mapping

from benchmarks import counts
from benchmarks.cases import LIMITS
from benchmarks.cases import TRL
from benchmarks.cases import TRL_PPO
from benchmarks.cases import Case
from benchmarks.cases import Side
from benchmarks.cases import ours
from benchmarks.cases import trl_ppo
from benchmarks.figures import Row
from benchmarks.figures import ratio
from benchmarks.shapes import SHAPES
from benchmarks.shares import decode_share
from benchmarks.shares import limit_rows
from benchmarks.shares import share

MIXED = {"dtype": "mixed_bfloat16", "shared": True}


def ppo(name: str, rounds: int) -> Case:
    """An iteration of PPO whose responses all have the full length."""
    shape = SHAPES[name]
    by_phase = tuple(
        Row(f"  {phase}, {name}", TRL_PPO, ratio("trl", "ours", phase))
        for phase in ("rollout", "collect", "update")
    )
    return Case(
        f"ppo-{name}",
        (
            ours("ours", "ppo", shape=name),
            trl_ppo("ppo", shape=name),
            ours("bfloat16", "ppo", shape=name, **MIXED),
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


def ppo_ragged(name: str, rounds: int) -> Case:
    """An iteration of PPO whose responses end by themselves."""
    settings = {"shape": name, "ragged": True, "warm_up": 12}
    return Case(
        f"ppo-ragged-{name}",
        (
            ours("ours", "ppo", **settings),
            trl_ppo("ppo", **settings),
            ours("bfloat16", "ppo", **settings, **MIXED),
        ),
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
            Row(
                f"  PPO iteration, {name}, ragged, bfloat16 and shared trunk",
                TRL_PPO,
                ratio("trl", "bfloat16", "iteration"),
            ),
        ),
    )


def compilers(shape: str) -> Case:
    """The phases that XLA can compile, with it and through oneDNN."""
    return Case(
        "compilers",
        (
            ours("oneDNN", "ppo", shape=shape),
            ours("xla", "ppo", shape=shape, xla=True),
        ),
        3,
        tuple(
            Row(
                f"  {phase}, {shape}, through oneDNN",
                "compiled by XLA",
                ratio("xla", "oneDNN", phase),
            )
            for phase in ("collect", "update")
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


def generate_ragged(shape: str, batch: int, response: int) -> Case:
    """Sampling responses that end by themselves."""
    changes = {"batch": batch, "response": response}
    settings = {"shape": shape, "ragged": True, "changes": changes}
    return Case(
        "generate-ragged",
        (ours("ours", "generate", **settings), trl_ppo("generate", **settings)),
        7,
        (
            Row(
                f"  generate, {shape}, {batch} ragged responses of at most "
                f"{response}",
                "transformers float32",
                ratio("trl", "ours", "generate"),
            ),
        ),
    )


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
    size = SHAPES[shape]
    needed = {
        "sft": counts.step(size, size.batch),
        "reward": counts.reward_step(size),
        "dpo": counts.step(size, 2 * size.batch),
    }
    rows += [
        Row(
            f"  {what} step, {shape}{whose}",
            "GEMM peak",
            share(side, "step", "float32", needed[trainer]),
            unit="%",
        )
        for side, whose in (("ours", ""), ("trl", ", TRL"))
    ]
    rounds = 9 if shape == "small" else 5
    return Case(f"{trainer}-{shape}", tuple(sides), rounds, tuple(rows))


def groups(trainer: str, shape: str) -> Case:
    """An iteration of RLOO or GRPO: four responses to each of four prompts."""
    settings = {"shape": shape, "trainer": trainer}
    name = trainer.upper()
    return Case(
        f"{trainer}-{shape}",
        (
            ours("ours", "groups", **settings),
            Side("trl", "trl-1.16", "groups", settings),
        ),
        7,
        (
            Row(
                f"  {name} iteration, {shape}, float32",
                TRL,
                lambda round_: (
                    round_["trl"]["step"] / round_["ours"]["iteration"]
                ),
            ),
        ),
    )


def replicas(shape: str) -> Case:
    """Two replicas in a process beside one, on as many processors."""
    return Case(
        "replicas",
        (
            ours("one", "ppo", shape=shape, replicas=1, threads=(2, 0)),
            ours("two", "ppo", shape=shape, replicas=2, threads=(1, 2)),
        ),
        5,
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
    ppo("small", 7),
    ppo("large", 5),
    ppo_ragged("small", 19),
    ppo_ragged("large", 9),
    generate("generate-small", "4×256 batch 16", {"float32": 5.0}, 9),
    generate(
        "gpt2",
        "124M batch 8",
        {"float32": 3.0, "bfloat16": 5.0},
        5,
        decode=0.6,
    ),
    generate("stories260k", "stories260K batch 64", {"float32": 10.0}, 9),
    generate_ragged("large", 64, 256),
    *(
        step(trainer, what, shape)
        for trainer, what in (
            ("sft", "SFT"),
            ("reward", "reward-model"),
            ("dpo", "DPO"),
        )
        for shape in ("small", "large")
    ),
    *(groups(trainer, "small") for trainer in ("rloo", "grpo")),
    replicas("large"),
    compilers("large"),
)
