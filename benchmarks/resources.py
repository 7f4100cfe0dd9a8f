"""The cases in which every turn is a process of its own."""

from benchmarks.cases import TRL_PPO
from benchmarks.cases import Case
from benchmarks.cases import ours
from benchmarks.cases import trl_ppo
from benchmarks.figures import PerRound
from benchmarks.figures import Row
from benchmarks.shapes import SHAPES

MEMORY = "peak anonymous"
VOCABULARIES = (8192, 50257, 151_936)
MEASURED = SHAPES["large-50k"]
# Of a row of the vocabulary: weight, gradient and Adam's two moments of policy
# and value model, and the reference's weight.
COPIES = 2 * 4 + 1


def memory() -> Case:
    """Peak memory of PPO, beside TRL's and over the vocabulary."""
    settings = {"shape": "large-50k"}
    others = tuple(
        ours(
            str(vocabulary),
            "ppo",
            **settings,
            changes={"vocabulary": vocabulary},
        )
        for vocabulary in VOCABULARIES
        if vocabulary != MEASURED.vocabulary
    )
    middle = str(MEASURED.vocabulary)
    pairs = zip(VOCABULARIES[:-1], VOCABULARIES[1:], strict=True)
    return Case(
        "memory",
        (
            ours(middle, "ppo", **settings),
            trl_ppo("ppo", **settings),
            *others,
        ),
        1,
        (
            Row(
                "peak memory of the PPO process, 6×384, vocabulary 50k",
                TRL_PPO,
                lambda round_: round_[middle][MEMORY] / round_["trl"][MEMORY],
                at_most=0.5,
            ),
            *(
                Row(
                    f"  memory a row of the vocabulary, {low} to {high}",
                    f"{COPIES} rows of the embedding",
                    growth(low, high),
                )
                for low, high in pairs
            ),
        ),
        fresh=True,
    )


def growth(low: int, high: int) -> PerRound:
    """Bytes a further token costs, as a multiple of what it must."""
    owed = COPIES * 4 * MEASURED.width * (high - low)
    return lambda round_: (
        (round_[str(high)][MEMORY] - round_[str(low)][MEMORY]) / owed
    )


def startup() -> Case:
    """The time from nothing to the first step, beside the imports' own."""
    parts = ("import package", "build", "first", "second", "to first step")
    rows = [(f"  start: {part}", "ours", part) for part in parts]
    rows.append(
        ("  start: to first step, XLA's programs kept", "kept", parts[-1])
    )
    return Case(
        "startup",
        (
            ours("ours", "startup", shape="small"),
            ours("kept", "startup", shape="small", kept=True),
        ),
        # The first start fills what is kept.
        4,
        tuple(
            Row(
                measure,
                "import of tensorflow and keras_hub",
                multiple_of_imports(side, part),
            )
            for measure, side, part in rows
        ),
        fresh=True,
    )


def multiple_of_imports(side: str, part: str) -> PerRound:
    """A part of the start as a multiple of the imports it stands on."""
    return lambda round_: round_[side][part] / round_[side]["import base"]


def part_of_encoding(part: str) -> PerRound:
    """How near a way to batches comes to the tokenizer's own speed."""
    return lambda round_: round_["ours"]["encode"] / round_["ours"][part]


def pipeline() -> Case:
    """Making batches of records, beside making ids of their texts."""
    return Case(
        "input-pipeline",
        (ours("ours", "input_pipeline"),),
        5,
        tuple(
            Row(
                f"  input pipeline, {part}",
                "encode_batch alone",
                part_of_encoding(part),
                unit="%",
            )
            for part in ("epoch", "dataset")
        ),
    )


CASES = (memory(), startup(), pipeline())
