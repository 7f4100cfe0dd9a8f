"""A reward model from comparisons, beside the rules it must beat.

    python recipes/reward_model.py --model DIR --preferences pairs.jsonl

Takes whatever `tfrlhf.data.load` reads as preferences: {"prompt", "chosen",
"rejected"}, {"prompt", "responses"} with the best first, Anthropic HH
transcripts, OASST lists. Lists are learnt whole and measured pair by pair; a
fifth of the prompts is held out.
"""

import dataclasses
import pathlib
from typing import Any

from tfrlhf import cli


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to learn from, and how long."""

    model: str | None = None
    """Model directory or KerasHub preset to start from."""
    preferences: pathlib.Path | None = None
    """Preferences, ranked lists or transcripts."""
    epochs: int = 1
    batch_size: int = 16
    learning_rate: float = 1e-4
    max_length: int | None = None
    """Longest sequence in tokens; the model's context if not given."""


def main(settings: Settings) -> None:
    """Learns a reward model and compares it with simple rules."""
    if settings.model is None or settings.preferences is None:
        raise cli.UserError("--model and --preferences are needed.")
    run = cli.Run("reward_model", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    train, test = split_by_prompt(read(settings.preferences), settings.seed)
    if settings.tiny:
        train, test = train[:64], test[:32]
    strategy = cli.make_strategy(settings.strategy)

    # 1. The rules that need no model.
    rules = run.stage("rules", "Simple rules", lambda: baselines(train, test))

    # 2. The reward model, on the same split.
    with strategy.scope():
        learned = run.stage(
            "reward", "Reward model", lambda: learn(run, settings, train, test)
        )

    summary = run.write_summary(
        {
            "model": settings.model,
            "records": len(train),
            "held_out_pairs": len(pairs_of(test)),
            **rules,
            **learned,
        }
    )
    cli.print_table(
        f"{summary['held_out_pairs']} held-out pairs",
        ("", "accuracy"),
        [
            (title, [summary[f"{name}_{x}"] for x in ("accuracy", "stderr")])
            for name, title in (
                ("longer", "longer is better"),
                ("bag_of_words", "bag of words"),
                ("reward_model", f"reward model on {settings.model}"),
            )
        ],
    )


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Reads preference records; conversations become transcripts."""
    from tfrlhf import data

    return list(data.load(path, kind="preferences", chat="transcript"))


def split_by_prompt(
    records: list[dict[str, Any]], seed: int
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Holds out a fifth of the prompts, with all their pairs."""
    import numpy as np

    prompts = sorted({record["prompt"] for record in records})
    np.random.default_rng(seed).shuffle(prompts)
    held_out = set(prompts[: len(prompts) // 5])
    return (
        [r for r in records if r["prompt"] not in held_out],
        [r for r in records if r["prompt"] in held_out],
    )


def pairs_of(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Takes ranked lists apart into pairs."""
    pairs = []
    for record in records:
        responses = record.get("responses")
        if responses is None:
            pairs.append(record)
            continue
        ranks = record.get("ranks", range(len(responses)))
        ranked = list(zip(ranks, responses, strict=True))
        pairs += [
            {"prompt": record["prompt"], "chosen": better, "rejected": worse}
            for rank, better in ranked
            for other, worse in ranked
            if rank < other
        ]
    return pairs


def baselines(
    train: list[dict[str, Any]], test: list[dict[str, Any]]
) -> dict[str, Any]:
    """Measures the rules on the held-out pairs."""
    from tfrlhf import evaluation

    test = pairs_of(test)
    bag = evaluation.bag_of_words_accuracy(pairs_of(train), test)
    longer = evaluation.longer_accuracy(test)
    return {
        "bag_of_words_accuracy": bag.value,
        "bag_of_words_stderr": bag.stderr,
        "longer_accuracy": longer.value,
        "longer_stderr": longer.stderr,
    }


def learn(
    run: cli.Run,
    settings: Settings,
    train: list[dict[str, Any]],
    test: list[dict[str, Any]],
) -> dict[str, Any]:
    """Trains a reward model, measures it and saves it."""
    import keras
    import numpy as np

    import tfrlhf
    from tfrlhf import data
    from tfrlhf import evaluation
    from tfrlhf import losses

    policy = tfrlhf.Policy.from_preset(settings.model)
    reward = tfrlhf.RewardModel.from_policy(policy)
    length = settings.max_length or policy.context_length
    tokenizer = policy.need_tokenizer()
    # Long conversations keep their end, on which people decided.
    lists, held_out = (
        data.preferences(
            records, tokenizer, length, truncate=True, skip_bad=True
        )
        for records in (train, pairs_of(test))
    )
    ranked = lists.ranks.shape[1] > 2
    steps = settings.epochs * -(-len(train) // settings.batch_size)
    decay = keras.optimizers.schedules.CosineDecay(
        settings.learning_rate, steps, alpha=0.1
    )
    reward.compile(
        keras.optimizers.Adam(decay),
        losses.ListwiseRanking() if ranked else losses.PairwiseRanking(),
    )
    run.fit(
        reward,
        lists,
        "reward",
        {"loss": "loss", "accuracy": "accuracy"},
        batch_size=settings.batch_size,
        epochs=settings.epochs,
    )
    margins = np.concatenate(
        [
            np.asarray(
                reward.call(batch.token_ids[:, 0], batch.padding_mask[:, 0])
                - reward.call(batch.token_ids[:, 1], batch.padding_mask[:, 1])
            )
            for batch in data.batches(held_out, settings.batch_size)
        ]
    )
    accuracy = evaluation.accuracy(0.5 * (np.sign(margins) + 1.0))
    run.save(reward, "reward")
    return {
        "reward_model_accuracy": accuracy.value,
        "reward_model_stderr": accuracy.stderr,
    }


if __name__ == "__main__":
    cli.main(main, Settings)
