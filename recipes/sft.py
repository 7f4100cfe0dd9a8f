"""Supervised fine-tuning on conversations or on prompts with responses.

    python recipes/sft.py --model DIR --examples examples.jsonl
    python recipes/sft.py --tokenizer DIR --examples examples.jsonl

Takes whatever `tfrlhf.data.load` reads; conversations go through the
tokenizer's chat template. With --tokenizer a small GPT-2 starts from nothing. A
tenth of the records is held out.
"""

import dataclasses
import pathlib
from typing import Any

from tfrlhf import cli
from tfrlhf.cli import console


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to learn from, and how long."""

    model: str | None = None
    """Model directory or KerasHub preset to start from."""
    tokenizer: pathlib.Path | None = None
    """Directory of a tokenizer, for a small GPT-2 that starts from nothing."""
    examples: pathlib.Path | None = None
    """Examples or conversations."""
    epochs: int = 3
    batch_size: int = 8
    """Rows of a step; several short examples share a row."""
    learning_rate: float = 1e-3
    max_length: int = 512
    """Tokens of a row; longer examples are left out."""
    layers: int = 4
    width: int = 128
    """Of the small GPT-2."""


def main(settings: Settings) -> None:
    """Teaches a language model to answer as the examples do."""
    if (settings.model is None) == (settings.tokenizer is None):
        raise cli.UserError("Give one of --model and --tokenizer.")
    if settings.examples is None:
        raise cli.UserError("--examples is needed.")
    run = cli.Run("sft", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    strategy = cli.make_strategy(settings.strategy)

    # 1. Learn, and measure on what was held out.
    with strategy.scope():
        measured = run.stage(
            "sft", "Supervised fine-tuning", lambda: learn(run, settings)
        )

    # 2. Answer a prompt that was held out.
    answer = run.stage("answer", "An answer", lambda: answer_one(run, settings))

    summary = run.write_summary(measured | answer)
    cli.print_table(
        f"{summary['held_out']} held-out examples of "
        f"{summary['held_out'] + summary['examples']}",
        ("", "before", "after"),
        [
            (title, summary[f"{name}_before"], summary[f"{name}_after"])
            for name, title in (
                ("loss", "nats/token"),
                ("accuracy", "accuracy"),
            )
        ],
    )
    for name in ("prompt", "response"):
        console.print(f"[bold]{name}[/]", end=" ")
        console.print(summary[name], markup=False)


def learn(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Trains the model, measures it before and after, and saves it."""
    import keras

    import tfrlhf
    from tfrlhf import data

    policy = load_policy(settings)
    length = min(settings.max_length, policy.context_length)
    train, held_out = split(settings)
    # A model that starts from nothing learns the language of the prompts, too.
    from_nothing = settings.model is None
    sft = tfrlhf.SFT(policy, learn_prompts=from_nothing)
    tokenizer = policy.need_tokenizer()
    encoded, measured = (
        data.examples(records, tokenizer, length, prompts, skip_bad=True)
        for records, prompts in ((train, from_nothing), (held_out, False))
    )
    rows = data.pack(encoded, length, tokenizer.pad_id)
    steps = settings.epochs * -(-len(rows.token_ids) // settings.batch_size)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        alpha=0.05,
        warmup_target=settings.learning_rate,
        warmup_steps=max(1, steps // 20),
    )
    sft.compile(keras.optimizers.AdamW(rate, weight_decay=0.1))
    before = sft.evaluate(measured, batch_size=settings.batch_size)
    sft.fit(
        rows,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        validation_data=measured,
        callbacks=run.watchers(
            "sft", {"loss": "nats/token", "val_loss": "held out"}
        ),
        verbose=0,
    )
    after = sft.evaluate(measured, batch_size=settings.batch_size)
    run.save(policy, "policy")
    return {
        "parameters": policy.count_params(),
        "examples": len(encoded.token_ids),
        "rows": len(rows.token_ids),
        "held_out": len(measured.token_ids),
        **{f"{name}_before": before[name] for name in ("loss", "accuracy")},
        **{f"{name}_after": after[name] for name in ("loss", "accuracy")},
    }


def answer_one(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Answers the shortest held-out prompt."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "policy")
    tokenizer = policy.need_tokenizer()
    _, held_out = split(settings)
    prompts = [
        record["prompt"]
        if isinstance(record["prompt"], str)
        else tokenizer.render_chat(record["prompt"], add_generation_prompt=True)
        for record in held_out
    ]
    prompt = min(prompts, key=len)
    room = policy.context_length - len(tokenizer.encode(prompt))
    response = policy.generate(
        prompt,
        sampler=tfrlhf.Sampler(0.7, max_new_tokens=min(64, room)),
        seed=settings.seed,
    )
    return {"prompt": prompt, "response": response}


def load_policy(settings: Settings) -> Any:
    """Loads the model, or makes a small random one."""
    import tfrlhf

    if settings.model is not None:
        return tfrlhf.Policy.from_preset(settings.model)
    assert settings.tokenizer is not None
    return tfrlhf.small_policy(
        tokenizer=tfrlhf.Tokenizer.from_directory(settings.tokenizer),
        layers=2 if settings.tiny else settings.layers,
        width=32 if settings.tiny else settings.width,
        context_length=settings.max_length,
    )


def split(settings: Settings) -> tuple[list[Any], list[Any]]:
    """Holds out a tenth of the records."""
    import numpy as np

    from tfrlhf import data

    records = list(data.load(settings.examples, kind="examples"))
    np.random.default_rng(settings.seed).shuffle(records)  # type: ignore[arg-type]
    if settings.tiny:
        records = records[:64]
    held_out = max(1, len(records) // 10)
    return records[held_out:], records[:held_out]


if __name__ == "__main__":
    cli.main(main, Settings)
