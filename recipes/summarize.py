"""Titles for texts: ROUGE, and a reward model learned from comparisons.

    python recipes/summarize.py                  authored notices
    python recipes/summarize.py --data csl.tsv.gz --length 256
    python recipes/summarize.py --model DIR --data texts.tsv \
        --preferences pairs.jsonl

A policy that has learnt titles is optimised against a reward model, and for
contrast against ROUGE. The comparisons are pairs of its samples, of which the
one with more ROUGE-L is the better one: a stand-in for people, whose
comparisons --preferences takes ({"prompt": text, "chosen", "rejected"}).

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
from typing import Any

from tfrlhf import cli


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
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


Record = dict[str, Any]
# Records to train on, and records held out.
Split = tuple[list[Record], list[Record]]
# Where the policies of the table are.
MODELS = {"before": "sft", "after": "policy", "rouge": "rouge"}
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
    task = (run, settings, load_data(settings))
    strategy = cli.make_strategy(settings.strategy)

    with strategy.scope():
        # 1. What a title looks like.
        run.stage("sft", "Supervised fine-tuning", lambda: fine_tune(*task))

        # 2. Which of two titles is the better one, and a model that knows.
        learned = run.stage(
            "reward", "Reward model", lambda: learn_reward(*task)
        )

        # 3. Titles that the reward model likes; for contrast, that ROUGE likes.
        for name, title in (
            ("policy", "PPO against the reward model"),
            ("rouge", "PPO against ROUGE-L"),
        ):
            run.stage(name, title, lambda n=name: optimise(*task, n))

    # 4. Titles of texts that no policy has seen.
    measured = run.stage("evaluation", "Evaluation", lambda: evaluate(*task))

    summary = run.write_summary(measured | learned)
    print_result(summary)
    cli.print_samples(summary["samples"])
    cli.print_where(run, summary)


def fine_tune(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Teaches the model the titles and saves it."""
    from tfrlhf.data import characters_apart

    train, _ = data
    texts = (f"{r['text']} {r['title']} {r.get('written', '')}" for r in train)
    policy = cli.start_policy(
        settings.model,
        map(characters_apart, texts),
        vocabulary_size=settings.vocabulary,
        layers=2,
        width=64 if settings.tiny else 128,
        context_length=settings.length + spare(settings),
    )
    losses = cli.fine_tune(
        run,
        policy,
        as_prompts(train, policy, settings),
        rate=settings.sft_learning_rate,
        epochs=settings.sft_epochs,
        # A model from nothing has to learn the language of the prompts, too.
        learn_prompts=settings.model is None,
    )
    run.save(policy, "sft")
    return {"parameters": policy.count_params(), "losses": losses}


def learn_reward(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Learns scores from comparisons, measures and normalises them."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    prompts, unseen = (as_prompts(part, policy, settings) for part in data)
    if settings.preferences is None:
        pairs = compare_samples(policy, prompts, settings.pairs, settings)
    else:
        pairs = people(settings, policy)
    measured = compare_samples(policy, unseen, 200, settings)
    reward = cli.learn_reward(run, policy, pairs, epochs=settings.reward_epochs)
    accuracy = tfrlhf.evaluation.reward_accuracy(reward, measured)
    longer = tfrlhf.evaluation.longer_accuracy(measured)
    # Samples of the policy score mean 0 and deviation 1.
    texts = [record["prompt"] for record in prompts[:256]]
    drawn: Any = policy.generate(
        texts, sampler=settings.sampler(), seed=settings.seed
    )
    reward.normalize(texts, drawn)
    run.save(reward, "reward")
    return {
        "comparisons": len(pairs),
        "comparisons_made": settings.preferences is None,
        "reward_model_accuracy": list(accuracy),
        "longer_accuracy": list(longer),
    }


def compare_samples(
    policy: Any, prompts: list[Record], count: int, settings: Settings
) -> list[Record]:
    """Samples two titles a text; that with more ROUGE-L is better, if any."""
    import tfrlhf

    found = tfrlhf.best_of_n(
        policy,
        tfrlhf.rewards.ROUGE(),
        cli.repeated(prompts, count),
        2,
        settings.sampler(1.0),
        seed=settings.seed + 1,
        batch_size=128,
    )
    return [p for p in found.pairs() if all(map(str.strip, p.values()))]


def people(settings: Settings, policy: Any) -> list[Record]:
    """Reads comparisons, with the texts framed as prompts."""
    from tfrlhf import data

    pairs = list(data.load(settings.preferences, kind="preferences"))
    texts = [{"text": pair["prompt"], "title": ""} for pair in pairs]
    framed = as_prompts(texts, policy, settings)
    return [
        prompt | {key: pair[key] for key in ("chosen", "rejected")}
        for prompt, pair in zip(framed, pairs, strict=True)
    ]


def optimise(
    run: cli.Run, settings: Settings, data: Split, name: str
) -> Record:
    """Optimises titles by PPO against the reward model, or ROUGE-L."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    reward: Any = tfrlhf.RewardModel.from_preset(run.models / "reward")
    # The value starts from what it has to predict: scores of mean 0, or ROUGE.
    if name == "policy":
        value = tfrlhf.ValueModel.from_reward(reward)
        weight = settings.kl_weight
    else:
        reward = tfrlhf.rewards.ROUGE()
        value = tfrlhf.ValueModel.from_policy(policy)
        # Its samples differ less: a tenth of the other's deviation.
        weight = 0.1 * settings.kl_weight
    ppo = tfrlhf.PPO(policy, reward, value)
    ppo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=settings.sampler(),
        kl=tfrlhf.FixedKL(weight),
        value_optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-5),
        minibatches=2,
    )
    records = as_prompts(data[0], policy, settings)
    count = settings.iterations * settings.batch_size
    history = run.fit(
        ppo, cli.repeated(records, count), name, batch_size=settings.batch_size
    )
    run.save(policy, name)
    return {"scores": history["objective/scores"]}


def evaluate(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Measures ROUGE and the learned score of all policies and of the lead."""
    import numpy as np

    import tfrlhf
    from tfrlhf import rewards

    train, held_out = data
    before = tfrlhf.Policy.from_preset(run.models / "sft")
    records = as_prompts(held_out, before, settings)
    prompts = [record["prompt"] for record in records]
    references = [record["reference"] for record in records]
    titles = {"lead": leads(train, records)}
    result: dict[str, Any] = {"held_out": len(records)}
    for name in MODELS:
        policy = tfrlhf.Policy.from_preset(run.models / MODELS[name])
        titles[name], drawn = tfrlhf.evaluation.draw_responses(
            policy, prompts, settings.sampler(), settings.seed
        )
        kl = tfrlhf.evaluation.sequence_kl(
            policy, before, drawn, settings.temperature
        )
        result[f"kl_{name}"] = float(kl.mean())
    reward = tfrlhf.RewardModel.from_preset(run.models / "reward")
    for name, texts in titles.items():
        scores = {
            kind: rewards.ROUGE(kind)(prompts, texts, reference=references)
            for kind in ("rouge1", "rouge2", "rougeL")
        }
        scores["learned"] = list(map(float, reward.score(prompts, texts)))
        for key, values in scores.items():
            result[f"{key}_{name}"] = list(tfrlhf.evaluation.mean(values))
        lengths = [len(rewards.words(text)) for text in texts]
        result[f"length_{name}"] = float(np.mean(lengths))
    third = len(records) // 3
    result["samples"] = [
        [f"{prompts[i]} [{references[i].strip()}]"]
        + [titles[name][i] for name in ("before", "after")]
        for i in (0, third, 2 * third)
    ]
    return result


def spare(settings: Settings) -> int:
    """Returns the tokens that a title may have more when it is read again.

    A sample may end inside a character: that byte is one token, and the sign
    that stands for it in text is three. The authored texts are ASCII.
    """
    return 2 * settings.max_new_tokens if settings.data else 0


def as_prompts(
    records: list[Record], policy: Any, settings: Settings
) -> list[Record]:
    """Frames the beginning of each text, as much as leaves room for its title.

    A title that is longer than what may be sampled is cut, too.
    """
    from tfrlhf.data import is_chinese

    encode = policy.need_tokenizer().encode
    limit = min(settings.length, policy.context_length - spare(settings))
    limit -= settings.max_new_tokens
    found = []
    for record in records:
        text, title = record["text"], record["title"]
        frame, space = FRAMES["zh" if is_chinese(text) else "en"]
        response = space + record.get("written", title)
        while len(encode(frame.format(text))) > limit and text:
            text = text[: len(text) * 19 // 20]
        while len(encode(response)) >= settings.max_new_tokens:
            response = response[:-1]
        prompt = frame.format(text)
        texts = {"prompt": prompt, "response": response, "reference": title}
        found.append(texts)
    return found


def leads(train: list[Record], records: list[Record]) -> list[str]:
    """The first words of each text, as many as a title has on average."""
    import numpy as np

    from tfrlhf.rewards import words

    count = round(float(np.mean([len(words(r["title"])) for r in train])))
    return [" ".join(words(record["prompt"])[:count]) for record in records]


def load_data(settings: Settings) -> Split:
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


def print_result(summary: dict[str, Any]) -> None:
    """Prints the tables."""
    names = ("lead", "before", "after", "rouge")
    cli.print_table(
        f"{summary['held_out']} held-out texts",
        ("", "lead", "before", "PPO, reward model", "PPO, ROUGE-L"),
        [
            (title, *(summary.get(f"{key}_{name}") for name in names))
            for title, key in (
                ("learned score", "learned"),
                ("ROUGE-1", "rouge1"),
                ("ROUGE-2", "rouge2"),
                ("ROUGE-L", "rougeL"),
                ("words", "length"),
                ("KL to the model before, nats", "kl"),
            )
        ],
    )
    rules = (summary[f"{x}_accuracy"] for x in ("longer", "reward_model"))
    cli.print_table(
        "Held-out comparisons by ROUGE-L",
        ("", "longer is better", "reward model"),
        [("accuracy", *rules)],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
