"""Preference pairs from a model's own samples, labelled by a function.

    python recipes/label_pairs.py --model DIR --prompts prompts.jsonl \
        --labeller tfrlhf.rewards:vader --output runs/pairs

Samples two responses a prompt; the one with the higher score is chosen. Writes
pairs.jsonl of {"prompt", "chosen", "rejected"} for recipes/rlhf.py.
"""

import dataclasses
import json
import pathlib
from typing import Any

from tfrlhf import cli
from tfrlhf.cli import console


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to sample and who labels."""

    model: str | None = None
    """Model directory or KerasHub preset."""
    prompts: pathlib.Path | None = None
    """JSONL of {"prompt"}."""
    labeller: str = "tfrlhf.rewards:vader"
    """module:function, (prompts, responses) -> scores."""
    pairs: int = 1600
    """How many pairs to sample; prompts are used again when they run out."""
    max_new_tokens: int = 64
    batch_size: int = 128


def main(settings: Settings) -> None:
    """Samples pairs of responses and labels them."""
    if settings.model is None or settings.prompts is None:
        raise cli.UserError("--model and --prompts are needed.")
    if settings.tiny:
        settings = dataclasses.replace(settings, pairs=16, batch_size=16)
    cli.load_function("--labeller", settings.labeller)
    run = cli.Run("label_pairs", settings)
    cli.make_strategy(settings.strategy)
    path = run.directory / "pairs.jsonl"
    run.stage("pairs", "Pairs", lambda: sample(path, settings))
    console.print(f"{path} is ready for --preferences.")


def sample(path: pathlib.Path, settings: Settings) -> dict[str, Any]:
    """Writes the labelled pairs; pairs of equal score are left out."""
    import tfrlhf
    from tfrlhf import data

    policy = tfrlhf.Policy.from_preset(settings.model)
    label = cli.load_function("--labeller", settings.labeller)
    records = data.read_jsonl(settings.prompts)
    prompts = [r["prompt"] for r in records]
    rounds = -(-settings.pairs // len(prompts))
    wanted = (prompts * rounds)[: settings.pairs]
    lines = []
    for start in range(0, len(wanted), settings.batch_size):
        batch = wanted[start : start + settings.batch_size]
        both = [
            policy.generate(
                batch,
                settings.max_new_tokens,
                seed=settings.seed * 10_000_019 + 2 * start + side,
            )
            for side in (0, 1)
        ]
        scores = [label(batch, responses) for responses in both]
        for row, prompt in enumerate(batch):
            if scores[0][row] == scores[1][row]:
                continue
            best = int(scores[1][row] > scores[0][row])
            pair = {
                "prompt": prompt,
                "chosen": both[best][row],
                "rejected": both[1 - best][row],
            }
            lines.append(json.dumps(pair, ensure_ascii=False) + "\n")
    partial = path.with_suffix(".partial")
    partial.write_text("".join(lines))
    partial.replace(path)
    return {"pairs": len(lines)}


if __name__ == "__main__":
    cli.main(main, Settings)
