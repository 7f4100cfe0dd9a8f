"""REINFORCE teaches an LSTM language model to write what is likely and right.

    python recipes/reinforce_lstm.py
    python recipes/reinforce_lstm.py --data stories.jsonl
    python recipes/reinforce_lstm.py --judge MODEL_DIRECTORY

The model is Embedding, LSTM, Dense in plain Keras. It learns sentences first,
by supervised fine-tuning, then by REINFORCE to continue their first words for
the reward BLEU - weight * perplexity: BLEU against how the sentences of the
corpus go on, perplexity under the pre-trained model or another. Prints both
parts before and after on held-out beginnings, beside greedy decoding and one
sentence for all, and writes models, logs and summary.json to
runs/reinforce_lstm. The sentences are those of the embedded reviews unless
--data is given: what they teach shows that the machinery works, no more.
"""

import dataclasses
import pathlib
import random
import re
from collections import Counter
from typing import Any

from tfrlhf import cli

CONTEXT = 48
"""Tokens of a beginning and its continuation: each new one reads them all."""
SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to learn from, how large and for how long."""

    data: pathlib.Path | None = None
    """JSONL or CSV with "text"; the embedded reviews if not given."""
    judge: str | None = None
    """Model directory that measures perplexity; the pre-trained LSTM if not."""
    max_sentences: int = 6000
    prompt_words: int = 2
    """Words of a sentence that are given."""
    width: int = 256
    """Of the embedding and of the LSTM's state."""
    sft_epochs: int = 12
    iterations: int = 60
    """Rollouts of batch_size episodes."""
    batch_size: int = 128
    max_new_tokens: int = 28
    learning_rate: float = 1e-3
    """Of REINFORCE."""
    discount: float = 1.0
    """What a reward one token later is worth."""
    kl_weight: float = 0.005
    """Of the KL to the pre-trained model in the reward."""
    perplexity_weight: float = 0.01
    """Of the negative perplexity beside BLEU, which is from 0 to 1."""
    perplexity_limit: float = 100.0
    """What a perplexity counts at the most."""


def main(settings: Settings) -> None:
    """Trains an LSTM by REINFORCE on the reward -perplexity + BLEU."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            max_sentences=600,
            width=64,
            sft_epochs=4,
            iterations=4,
            batch_size=32,
            max_new_tokens=16,
        )
    run = cli.Run("reinforce_lstm", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    train, held_out = load_data(settings)

    # 1. A language model of the sentences.
    run.stage("sft", "Pre-training", lambda: learn(run, settings, train))

    # 2. It is rewarded for what is likely and right.
    run.stage("reinforce", "REINFORCE", lambda: optimise(run, settings, train))

    # 3. Beginnings that neither has seen.
    measured = run.stage(
        "evaluation",
        "Evaluation",
        lambda: evaluate(run, settings, train, held_out),
    )
    samples = measured.pop("samples")
    summary = run.write_summary(measured)
    print_result(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def lstm(vocabulary_size: int, width: int) -> Any:
    """Makes the language model: ids and mask in, logits out."""
    import keras

    token_ids = keras.Input([None], dtype="int32", name="token_ids")
    padding_mask = keras.Input([None], dtype="int32", name="padding_mask")
    x = keras.layers.Embedding(vocabulary_size, width)(token_ids)
    # The state stays what it was where the padding on the right begins.
    x = keras.layers.LSTM(width, return_sequences=True)(
        x, mask=keras.ops.greater(padding_mask, 0)
    )
    logits = keras.layers.Dense(vocabulary_size)(x)
    return keras.Model(
        {"token_ids": token_ids, "padding_mask": padding_mask}, logits
    )


def learn(
    run: cli.Run, settings: Settings, train: list[dict[str, Any]]
) -> dict[str, Any]:
    """Pre-trains the LSTM on whole sentences and saves it."""
    import keras

    import tfrlhf

    examples = [
        {"prompt": record["prompt"], "response": rest}
        for record in train
        for rest in record["reference"]
    ]
    tokenizer = tfrlhf.Tokenizer.train(
        [e["prompt"] + e["response"] for e in examples], 1024
    )
    model = lstm(tokenizer.vocabulary_size, settings.width)
    policy = tfrlhf.Policy(model, tokenizer, CONTEXT)
    sft = tfrlhf.SFT(policy, learn_prompts=True)
    steps = settings.sft_epochs * -(-len(examples) // 32)
    sft.compile(keras.optimizers.Adam(cli.cosine(5e-3, steps)))
    history = run.fit(
        sft,
        tfrlhf.data.examples(
            examples, tokenizer, CONTEXT, learn_prompts=True, skip_bad=True
        ),
        "sft",
        {"loss": "nats/token"},
        batch_size=32,
        epochs=settings.sft_epochs,
    )
    run.save(policy, "sft")
    return {
        "loss": history["loss"][-1],
        "sentences": len(examples),
        "parameters": policy.count_params(),
    }


def optimise(
    run: cli.Run, settings: Settings, train: list[dict[str, Any]]
) -> dict[str, Any]:
    """Trains the LSTM by REINFORCE and saves it."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    reinforce = tfrlhf.REINFORCE(policy, reward(run, settings))
    reinforce.compile(
        keras.optimizers.Adam(settings.learning_rate),
        sampler=sampler(settings),
        advantage=tfrlhf.MovingBaseline(discount=settings.discount),
        kl=tfrlhf.FixedKL(settings.kl_weight),
    )
    wanted = settings.iterations * settings.batch_size
    run.fit(
        reinforce,
        cli.repeated(train, wanted),
        "reinforce",
        {
            "objective/scores": "reward",
            "rewards/bleu": "BLEU",
            "objective/kl": "KL",
        },
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"iterations": int(reinforce.state.iteration.numpy())}


def reward(run: cli.Run, settings: Settings) -> Any:
    """Makes the reward: its parts are logged one by one."""
    import tfrlhf

    judge = tfrlhf.Policy.from_preset(settings.judge or run.models / "sft")
    return tfrlhf.rewards.combine(
        {
            "negative_perplexity": (
                tfrlhf.rewards.NegativePerplexity(
                    judge, settings.perplexity_limit
                ),
                settings.perplexity_weight,
            ),
            "bleu": (tfrlhf.rewards.BLEU("reference"), 1.0),
        }
    )


def sampler(settings: Settings, temperature: float = 1.0) -> Any:
    """Returns how responses are drawn."""
    import tfrlhf

    return tfrlhf.Sampler(temperature, max_new_tokens=settings.max_new_tokens)


def evaluate(
    run: cli.Run,
    settings: Settings,
    train: list[dict[str, Any]],
    held_out: list[dict[str, Any]],
) -> dict[str, Any]:
    """Measures samples before and after, and what is got without training."""
    import numpy as np

    import tfrlhf
    from tfrlhf import evaluation

    prompts = [record["prompt"] for record in held_out]
    before = tfrlhf.Policy.from_preset(run.models / "sft")
    after = tfrlhf.Policy.from_preset(run.models / "policy")
    seed = settings.seed
    drawn, greedy = sampler(settings), sampler(settings, 0.0)
    usual, _ = Counter(
        rest for record in train for rest in record["reference"]
    ).most_common(1)[0]
    written = {
        "before": before.generate(prompts, sampler=drawn, seed=seed),
        "after": after.generate(prompts, sampler=drawn, seed=seed),
        "greedy": before.generate(prompts, sampler=greedy, seed=seed),
        "one_for_all": [usual] * len(prompts),
    }
    score = reward(run, settings)
    references = [record["reference"] for record in held_out]
    found: dict[str, Any] = {"prompts": len(prompts)}
    scores = {}
    for name, responses in written.items():
        scores[name] = score(prompts, responses, reference=references)
        perplexity = [-x for x in score.parts["negative_perplexity"]]
        found[name] = {
            "reward": list(evaluation.mean(scores[name])),
            "bleu": list(evaluation.mean(score.parts["bleu"])),
            "perplexity": list(evaluation.mean(perplexity)),
            "distinct2": evaluation.distinct_n(responses),
            "self_similarity": evaluation.self_similarity(responses),
            "words": float(np.mean([len(r.split()) for r in responses])),
        }
    gain = np.asarray(scores["after"]) - np.asarray(scores["before"])
    return found | {
        "gain": list(evaluation.mean(gain)),
        "samples": [
            [prompts[i], written["before"][i], written["after"][i]]
            for i in (0, len(prompts) // 3, 2 * len(prompts) // 3)
        ],
    }


def load_data(settings: Settings) -> tuple[list[Any], list[Any]]:
    """Returns beginnings of sentences, each with how they go on."""
    beginnings: dict[str, list[str]] = {}
    for sentence in sentences(settings)[: settings.max_sentences]:
        words = sentence.split()
        beginning = " ".join(words[: settings.prompt_words])
        rest = " " + " ".join(words[settings.prompt_words :])
        # A token is a byte or more.
        if len(beginning.encode()) <= CONTEXT - settings.max_new_tokens:
            beginnings.setdefault(beginning, []).append(rest)
    records = [{"prompt": p, "reference": r} for p, r in beginnings.items()]
    random.Random(settings.seed).shuffle(records)
    held_out = min(400, len(records) // 4)
    if held_out < 2:
        raise cli.UserError(
            f"{settings.data or 'The corpus'} has {len(records)} different "
            "beginnings of sentences: give at least 8 to train and hold out."
        )
    return records[held_out:], records[:held_out]


def sentences(settings: Settings) -> list[str]:
    """Returns the different sentences of 5 to 18 words, shuffled."""
    from tfrlhf import data
    from tfrlhf.data import embedded

    if settings.data:
        records = data.load(
            settings.data, columns={"prompt": "text"}, kind="prompts"
        )
        texts = [record["prompt"] for record in records]
    else:
        corpus = embedded.load(settings.seed)
        texts = [
            text
            for e in corpus.examples
            if e["prompt"].startswith("Review: ")
            for text in (e["prompt"][8:-7], e["response"])
        ]
    found = {
        sentence: None
        for text in texts
        for sentence in SENTENCE_END.split(text.strip())
        if max(5, settings.prompt_words + 2) <= len(sentence.split()) <= 18
    }
    kept = list(found)
    random.Random(settings.seed).shuffle(kept)
    return kept


def print_result(summary: dict[str, Any]) -> None:
    """Prints the table."""
    columns = ("before", "after", "greedy", "one_for_all")
    rows = [
        (title, *(summary[column][key] for column in columns))
        for key, title in (
            ("reward", "reward"),
            ("bleu", "BLEU"),
            ("perplexity", "perplexity"),
            ("words", "words"),
            ("distinct2", "distinct-2"),
            ("self_similarity", "self-similarity"),
        )
    ]
    gain, error = summary["gain"]
    cli.print_table(
        f"{summary['prompts']} held-out beginnings; reward after - before: "
        f"{gain:.3f} ± {error:.3f}",
        ("", "before", "after", "before, greedy", "one for all"),
        rows,
    )


if __name__ == "__main__":
    cli.main(main, Settings)
