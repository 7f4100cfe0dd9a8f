"""Titles for texts: ROUGE, and a reward model learned from comparisons.

    python recipes/summarize.py                  authored notices
    python recipes/summarize.py --data csl.tsv.gz --length 256
    python recipes/summarize.py --model DIR --data texts.tsv \
        --preferences pairs.jsonl

Stages: supervised fine-tuning on titles, comparisons, reward model, PPO
against the reward model, PPO against ROUGE for contrast, evaluation on texts
that were held out. The comparisons are pairs of samples of the fine-tuned
policy, of which the one with more ROUGE-L is the better one: a stand-in for
people, whose comparisons --preferences takes ({"prompt": text, "chosen",
"rejected"}).

The authored notices are sentences made of parts; half of the titles to learn
from say nothing, which comparisons cure the policy of. A line of --data ends
with text and title, between tabs. A text keeps its beginning, as much as
--length leaves beside the title. Chinese is compared by characters.
"""

import csv
import dataclasses
import gzip
import json
import pathlib
import random
import re
from typing import Any

from tfrlhf import cli


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to read, and how long to learn."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """Texts with titles (TSV, .gz or not); authored ones if not given."""
    preferences: pathlib.Path | None = None
    """Comparisons by people; made by ROUGE-L if not given."""
    length: int = 96
    """Tokens of text and title together."""
    max_new_tokens: int = 16
    """Of a title."""
    vocabulary: int = 2048
    """Tokens of the small model."""
    sft_epochs: int = 4
    sft_learning_rate: float = 2e-3
    pairs: int = 1000
    """Comparisons to make."""
    reward_epochs: int = 2
    iterations: int = 20
    """Rollouts of batch_size titles."""
    batch_size: int = 64
    learning_rate: float = 2e-4
    """Of the policy in PPO."""
    kl_weight: float = 0.05
    temperature: float = 0.7
    """Of every sample."""


Record = dict[str, Any]
# The parts of the authored notices.
NOTICES = pathlib.Path(__file__).parent / "data" / "notices.json"
# The frame of a prompt, and what stands before a title.
FRAMES = {"en": ("{}\nTitle:", " "), "zh": ("{}\n标题：", "")}


def main(settings: Settings) -> None:
    """Teaches a language model to write titles that people prefer."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, sft_epochs=2, pairs=128, iterations=2, batch_size=16
        )
    run = cli.Run("summarize", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    train, held_out = load_data(settings)
    task = (run, settings, train)
    strategy = cli.make_strategy(settings.strategy)

    # 1. What a title looks like.
    with strategy.scope():
        run.stage("sft", "Supervised fine-tuning", lambda: fine_tune(*task))

    # 2. Which of two titles is the better one, and a model that knows.
    with strategy.scope():
        learned = run.stage(
            "reward", "Reward model", lambda: learn_reward(*task, held_out)
        )

    # 3. Titles that the reward model likes; for contrast, that ROUGE likes.
    with strategy.scope():
        for name, title in (
            ("policy", "PPO against the reward model"),
            ("rouge", "PPO against ROUGE-L"),
        ):
            run.stage(name, title, lambda n=name: optimise(*task, n))

    # 4. Titles of texts that no policy has seen.
    measured = run.stage(
        "evaluation", "Evaluation", lambda: evaluate(*task, held_out)
    )

    summary = {
        **measured,
        **learned,
        "seconds": run.seconds,
        "peak_memory_mb": cli.peak_memory_mb(),
    }
    run.write_summary(summary)
    show(summary, run)


def fine_tune(
    run: cli.Run, settings: Settings, train: list[Record]
) -> dict[str, Any]:
    """Teaches the model the titles and saves it."""
    import keras

    import tfrlhf

    policy = (
        tfrlhf.Policy.from_preset(settings.model)
        if settings.model
        else tfrlhf.small_policy(
            [
                apart(" ".join([r["text"], r["title"], r.get("written", "")]))
                for r in train
            ],
            vocabulary_size=settings.vocabulary,
            layers=2,
            width=64 if settings.tiny else 128,
            context_length=settings.length + spare(settings),
        )
    )
    records = as_prompts(train, policy, settings)
    # A model from nothing has to learn the language of the prompts, too.
    sft = tfrlhf.SFT(policy, learn_prompts=settings.model is None)
    steps = settings.sft_epochs * -(-len(records) // 32)
    sft.compile(
        keras.optimizers.AdamW(
            cli.cosine(settings.sft_learning_rate, steps), weight_decay=0.1
        )
    )
    history = sft.fit(
        records,
        batch_size=32,
        epochs=settings.sft_epochs,
        seed=settings.seed,
        callbacks=run.watchers("sft", {"loss": "nats/token"}),
        verbose=0,
    )
    with cli.writing(run.models / "sft") as directory:
        policy.save_to_preset(directory)
    return {
        "parameters": policy.count_params(),
        "losses": history.history["loss"],
    }


def learn_reward(
    run: cli.Run,
    settings: Settings,
    train: list[Record],
    held_out: list[Record],
) -> dict[str, Any]:
    """Learns scores from comparisons, measures and normalises them."""
    import keras
    import numpy as np

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    prompts = as_prompts(train, policy, settings)
    made = settings.preferences is None
    pairs = (
        compare_samples(policy, prompts, settings.pairs, settings)
        if made
        else people(settings, policy)
    )
    measured = compare_samples(
        policy, as_prompts(held_out, policy, settings), 200, settings
    )
    reward = tfrlhf.RewardModel.from_policy(policy)
    steps = settings.reward_epochs * -(-len(pairs) // 32)
    reward.compile(keras.optimizers.Adam(cli.cosine(5e-4, steps)))
    reward.fit(
        pairs,
        batch_size=32,
        epochs=settings.reward_epochs,
        seed=settings.seed,
        callbacks=run.watchers(
            "reward", {"loss": "loss", "accuracy": "accuracy"}
        ),
        verbose=0,
    )
    better, worse = (
        np.asarray(
            reward.score(
                [p["prompt"] for p in measured], [p[k] for p in measured]
            )
        )
        for k in ("chosen", "rejected")
    )
    accuracy = tfrlhf.evaluation.accuracy(0.5 * (np.sign(better - worse) + 1))
    longer = tfrlhf.evaluation.longer_accuracy(measured)
    # Samples of the policy score mean 0 and deviation 1.
    texts = [record["prompt"] for record in prompts[:256]]
    reward.normalize(
        texts,
        policy.generate(texts, sampler=sampler(settings), seed=settings.seed),
    )
    with cli.writing(run.models / "reward") as directory:
        reward.save_to_preset(directory)
    return {
        "comparisons": len(pairs),
        "comparisons_made": made,
        "reward_model_accuracy": list(accuracy),
        "longer_accuracy": list(longer),
    }


def compare_samples(
    policy: Any, prompts: list[Record], count: int, settings: Settings
) -> list[Record]:
    """Samples two titles a text and prefers the one with more ROUGE-L.

    Pairs that ROUGE-L does not tell apart are left out.
    """
    import tfrlhf

    wanted = (prompts * -(-count // len(prompts)))[:count]
    found = tfrlhf.best_of_n(
        policy,
        tfrlhf.rewards.ROUGE(),
        wanted,
        2,
        tfrlhf.Sampler(max_new_tokens=settings.max_new_tokens),
        seed=settings.seed + 1,
        batch_size=128,
    )
    return [
        {"prompt": prompt, "chosen": a, "rejected": b}
        if first > second
        else {"prompt": prompt, "chosen": b, "rejected": a}
        for prompt, (a, b), (first, second) in zip(
            found.prompts, found.all_responses, found.all_scores, strict=True
        )
        if first != second and a.strip() and b.strip()
    ]


def people(settings: Settings, policy: Any) -> list[Record]:
    """Reads comparisons, with the texts framed as prompts."""
    from tfrlhf import data

    return [
        as_prompt({"text": pair["prompt"], "title": ""}, policy, settings)
        | {key: pair[key] for key in ("chosen", "rejected")}
        for pair in data.load(settings.preferences, kind="preferences")
    ]


def optimise(
    run: cli.Run, settings: Settings, train: list[Record], name: str
) -> dict[str, Any]:
    """Optimises titles by PPO against the reward model, or ROUGE-L."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    learned = tfrlhf.RewardModel.from_preset(run.models / "reward")
    # The value starts from what it has to predict: scores of mean 0, or ROUGE.
    reward, value, weight = (
        (learned, tfrlhf.ValueModel.from_reward(learned), settings.kl_weight)
        if name == "policy"
        else (
            tfrlhf.rewards.ROUGE(),
            tfrlhf.ValueModel.from_policy(policy),
            # Its samples differ less: a tenth of the other's deviation.
            0.1 * settings.kl_weight,
        )
    )
    ppo = tfrlhf.PPO(policy, reward, value)
    ppo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=sampler(settings),
        kl=tfrlhf.FixedKL(weight),
        value_optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-5),
        minibatches=2,
    )
    records = as_prompts(train, policy, settings)
    wanted = settings.iterations * settings.batch_size
    history = ppo.fit(
        (records * -(-wanted // len(records)))[:wanted],
        batch_size=settings.batch_size,
        seed=settings.seed,
        callbacks=run.watchers(
            name, {"objective/scores": "score", "objective/kl": "KL"}
        ),
        verbose=0,
    )
    with cli.writing(run.models / name) as directory:
        policy.save_to_preset(directory)
    return {"scores": history.history["objective/scores"]}


def evaluate(
    run: cli.Run,
    settings: Settings,
    train: list[Record],
    held_out: list[Record],
) -> dict[str, Any]:
    """Measures ROUGE and the learned score of all policies and of the lead."""
    import numpy as np

    import tfrlhf

    policies = {
        name: tfrlhf.Policy.from_preset(run.models / directory)
        for name, directory in (
            ("before", "sft"),
            ("after", "policy"),
            ("rouge", "rouge"),
        )
    }
    reward = tfrlhf.RewardModel.from_preset(run.models / "reward")
    records = as_prompts(held_out, policies["before"], settings)
    prompts = [record["prompt"] for record in records]
    references = [record["reference"] for record in records]
    titles = {"lead": leads(train, records)}
    result: dict[str, Any] = {"held_out": len(records)}
    for name, policy in policies.items():
        ids = policy.encode_prompts(prompts, settings.max_new_tokens)
        drawn: Any = policy.generate(
            ids, sampler=sampler(settings), seed=settings.seed
        )
        titles[name] = policy.decode_responses(drawn)
        kl = tfrlhf.evaluation.sequence_kl(
            policy, policies["before"], drawn, settings.temperature
        )
        result[f"kl_{name}"] = float(kl.mean())
    for name, texts in titles.items():
        scores = {
            kind: tfrlhf.rewards.ROUGE(kind)(
                prompts, texts, reference=references
            )
            for kind in ("rouge1", "rouge2", "rougeL")
        }
        scores["learned"] = list(map(float, reward.score(prompts, texts)))
        for key, values in scores.items():
            found = tfrlhf.evaluation.mean(values)
            result[f"{key}_{name}"] = list(found)
        lengths = [len(tfrlhf.rewards.words(text)) for text in texts]
        result[f"length_{name}"] = float(np.mean(lengths))
    third = len(records) // 3
    result["samples"] = [
        [f"{prompts[i]} [{references[i].strip()}]"]
        + [titles[name][i] for name in ("before", "after")]
        for i in (0, third, 2 * third)
    ]
    return result


def sampler(settings: Settings) -> Any:
    """How titles are drawn."""
    import tfrlhf

    return tfrlhf.Sampler(
        settings.temperature, max_new_tokens=settings.max_new_tokens
    )


def spare(settings: Settings) -> int:
    """Returns the tokens that a title may have more when it is read again.

    A sample may end inside a character: that byte is one token, and the sign
    that stands for it in text is three. The authored texts are ASCII.
    """
    return 2 * settings.max_new_tokens if settings.data else 0


def as_prompts(
    records: list[Record], policy: Any, settings: Settings
) -> list[Record]:
    """Writes {"prompt", "response", "reference"} of texts with titles."""
    return [as_prompt(record, policy, settings) for record in records]


def as_prompt(record: Record, policy: Any, settings: Settings) -> Record:
    """Frames the beginning of a text, as much as leaves room for the title.

    A title that is longer than what may be sampled is cut, too.
    """
    tokenizer = policy.need_tokenizer()
    text, title = record["text"], record["title"]
    frame, space = FRAMES["zh" if is_chinese(text) else "en"]
    limit = min(settings.length, policy.context_length - spare(settings))
    limit -= settings.max_new_tokens
    kept, response = text, space + record.get("written", title)
    while len(tokenizer.encode(frame.format(kept))) > limit and kept:
        kept = kept[: len(kept) * 19 // 20]
    while len(tokenizer.encode(response)) >= settings.max_new_tokens:
        response = response[:-1]
    return {
        "prompt": frame.format(kept),
        "response": response,
        "reference": title,
    }


def leads(train: list[Record], records: list[Record]) -> list[str]:
    """The first words of each text, as many as a title has on average."""
    import numpy as np

    from tfrlhf.rewards import words

    count = round(float(np.mean([len(words(r["title"])) for r in train])))
    return [" ".join(words(record["prompt"])[:count]) for record in records]


def load_data(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Reads texts with titles and holds out a fifth, at most 200."""
    order = random.Random(settings.seed)
    if settings.data is None:
        parts = json.loads(NOTICES.read_text("utf-8"))
        count = 80 if settings.tiny else 2000
        records = [notice(order, parts) for _ in range(count)]
    else:
        records = read_texts(settings.data)[: 80 if settings.tiny else None]
        order.shuffle(records)
    held_out = max(2, min(len(records) // 5, 200))
    return records[held_out:], records[:held_out]


def read_texts(path: pathlib.Path) -> list[Record]:
    """Reads text and title, the last two columns of each line."""
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for number, row in enumerate(rows, start=1):
        if len(row) < 2 or not row[-1].strip() or not row[-2].strip():
            raise cli.UserError(
                f"--data {path}:{number} must end with a text and a title, "
                "with a tab between."
            )
    if len(rows) < 10:
        raise cli.UserError(f"--data {path} needs at least ten texts.")
    return [{"text": r[-2].strip(), "title": r[-1].strip()} for r in rows]


def is_chinese(text: str) -> bool:
    """Tells whether a text has Chinese characters."""
    return re.search("[㐀-鿿]", text) is not None


def apart(text: str) -> str:
    """Puts each Chinese character on a line, so that it becomes a token."""
    return re.sub("([㐀-鿿])", r"\n\1\n", text)


def show(summary: dict[str, Any], run: cli.Run) -> None:
    """Prints the table and three samples."""
    names = ("lead", "before", "after", "rouge")

    def row(title: str, key: str) -> list[Any]:
        return [title, *(summary[f"{key}_{name}"] for name in names)]

    cli.print_table(
        f"{summary['held_out']} held-out texts",
        ("", "lead", "before", "PPO, reward model", "PPO, ROUGE-L"),
        [
            row("learned score", "learned"),
            row("ROUGE-1", "rouge1"),
            row("ROUGE-2", "rouge2"),
            row("ROUGE-L", "rougeL"),
            row("words", "length"),
            ["KL to the model before, nats", None, None]
            + [f"{summary[f'kl_{n}']:.2f}" for n in names[2:]],
        ],
    )
    cli.print_table(
        "Held-out comparisons by ROUGE-L",
        ("", "accuracy"),
        [
            ("longer is better", summary["longer_accuracy"]),
            ("reward model", summary["reward_model_accuracy"]),
        ],
    )
    cli.print_samples(summary["samples"])
    cli.print_where(run, summary)


def notice(order: random.Random, parts: dict[str, list[Any]]) -> Record:
    """Makes a notice and its title; what happened stands second or third."""
    town, who, thing, day, opening, (past, present) = (
        order.choice(parts[name])
        for name in ("town", "who", "thing", "day", "opening", "verb")
    )
    details = order.sample(parts["detail"], 2)
    place = order.randrange(2)
    body = [
        opening.format(day=day, town=town),
        *details[:place],
        f"The {who} {past} a new {thing}.",
        *details[place:],
    ]
    title = f"{who.capitalize()} in {town} {present} new {thing}"
    vague = order.choice(parts["vague"]).format(day=day, town=town)
    written = order.choice([title, vague])
    return {"text": " ".join(body), "title": title, "written": written}


if __name__ == "__main__":
    cli.main(main, Settings)
