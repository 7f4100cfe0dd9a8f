"""Answers out of a passage, rewarded by F1.

    python recipes/question_answering.py        authored passages
    python recipes/question_answering.py --data xquad.en.json.gz
    python recipes/question_answering.py --model DIR --data squad.json

Stages: supervised fine-tuning, GRPO with F1 as reward, evaluation on passages
that were held out. The authored passages are English sentences made of parts,
about who took what where; the small default model learns to find the answer in
such sentences, and nothing else. Two thirds of its examples say more than the
answer, which is what F1 cures it of. --data takes SQuAD's format, in English or
Chinese. A context that is too long is cut to a window around the answer, in
training and in evaluation: finding the window is no part of the task. Where in
the window the answer lies is drawn at random.
"""

import dataclasses
import gzip
import json
import pathlib
import random
import re
from typing import Any

from tfrlhf import cli


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """What to read, and how long to learn."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """Questions in SQuAD's JSON, .gz or not; authored ones if not given."""
    length: int = 64
    """Tokens of context, question and answer together."""
    max_new_tokens: int = 14
    """Of an answer."""
    sft_epochs: int = 5
    sft_learning_rate: float = 2e-3
    iterations: int = 24
    """Rollouts of batch_size answers."""
    batch_size: int = 256
    group_size: int = 8
    """Answers to a question."""
    learning_rate: float = 4e-4
    """Of the policy in GRPO."""
    kl_weight: float = 0.02
    """Of the KL in GRPO's loss."""
    temperature: float = 1.0
    """Of the samples in GRPO."""


Record = dict[str, Any]
# Questions to train on, and questions held out.
Split = tuple[list[Record], list[Record]]
# The frame of a prompt, and what stands before an answer.
FRAMES = {
    "en": ("{context}\nQuestion: {question}\nAnswer:", " "),
    "zh": ("{context}\n问题：{question}\n答案：", ""),
}
# The parts of the authored passages.
PASSAGES = pathlib.Path(__file__).parent / "data" / "passages.json"


def main(settings: Settings) -> None:
    """Teaches a language model to answer out of a passage."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, sft_epochs=2, iterations=3, batch_size=16
        )
    run = cli.Run("question_answering", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    task = (run, settings, load_data(settings))
    strategy = cli.make_strategy(settings.strategy)

    # 1. What an answer looks like, and where it may come from.
    with strategy.scope():
        run.stage("sft", "Supervised fine-tuning", lambda: fine_tune(*task))

    # 2. Several answers to each question; those with more F1 are learnt.
    with strategy.scope():
        run.stage("grpo", "GRPO", lambda: optimise(*task))

    # 3. Questions about passages that the policy has not seen.
    measured = run.stage("evaluation", "Evaluation", lambda: evaluate(*task))

    summary = run.write_summary(measured)
    print_result(summary)
    cli.print_samples(summary["samples"])
    cli.print_where(run, summary)


def fine_tune(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Teaches the model the right answers and saves it."""
    from tfrlhf.data import characters_apart

    train, _ = data
    texts = (
        f"{q['context']} {q['question']} {q.get('written', '')}" for q in train
    )
    policy = cli.start_policy(
        settings.model,
        map(characters_apart, texts),
        layers=2,
        width=64 if settings.tiny else 128,
        context_length=settings.length,
    )
    records = as_prompts(train, policy, settings)
    losses = cli.fine_tune(
        run,
        policy,
        records,
        rate=settings.sft_learning_rate,
        epochs=settings.sft_epochs,
        weight_decay=0.01,
        learn_prompts=False,
    )
    run.save(policy, "sft")
    return {
        "parameters": policy.count_params(),
        "questions": len(records),
        "losses": losses,
    }


def optimise(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Optimises F1 by GRPO."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    records = as_prompts(data[0], policy, settings)
    grpo = tfrlhf.GRPO(policy, tfrlhf.rewards.F1())
    grpo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        tfrlhf.losses.PPOLoss(
            value_weight=0.0,
            mean_over="responses",
            kl_weight=settings.kl_weight,
        ),
        sampler=settings.sampler(),
        # Not divided by the group's deviation: a lucky guess stays small.
        advantage=tfrlhf.GroupRelative(settings.group_size, scale=False),
        minibatches=2,
    )
    wanted = settings.iterations * settings.batch_size // settings.group_size
    history = run.fit(
        grpo,
        cli.repeated(records, wanted),
        "grpo",
        {"objective/scores": "F1", "objective/kl": "KL"},
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"training_f1": history["objective/scores"][-1]}


def evaluate(run: cli.Run, settings: Settings, data: Split) -> Record:
    """Measures F1 and exact match of both policies and of simple rules."""
    import tfrlhf
    from tfrlhf import evaluation
    from tfrlhf import rewards

    train, held_out = data
    before = tfrlhf.Policy.from_preset(run.models / "sft")
    after = tfrlhf.Policy.from_preset(run.models / "policy")
    records = as_prompts(held_out, before, settings)
    prompts = [record["prompt"] for record in records]
    common = most_common([q["answers"][0] for q in train])
    answers = {
        "sentence": [nearest_sentence(record) for record in records],
        "common": [common] * len(records),
    }
    for name, policy in (("before", before), ("after", after)):
        for way, temperature in (("", 0.0), ("_sampled", None)):
            answers[name + way], drawn = evaluation.draw_responses(
                policy, prompts, settings.sampler(temperature), settings.seed
            )
    # Of the last ones, which are the samples after.
    kl = evaluation.sequence_kl(after, before, drawn, settings.temperature)
    result: Record = {"held_out": len(records), "kl": float(kl.mean())}
    golds = [record["answers"] for record in records]
    scores = {}
    for metric, reward in (
        ("f1", rewards.F1()),
        ("exact", rewards.ExactMatch()),
    ):
        for name, texts in answers.items():
            scores[metric, name] = reward(prompts, texts, answers=golds)
            found = evaluation.mean(scores[metric, name])
            result[f"{metric}_{name}"] = list(found)
    pairs = zip(
        scores["f1", "before_sampled"],
        scores["f1", "after_sampled"],
        strict=True,
    )
    gain = evaluation.mean([b - a for a, b in pairs])
    result["gain_sampled"] = list(gain)
    rows = range(0, len(records), max(1, len(records) // 3))
    result["samples"] = [
        [f"{prompts[i]} [{golds[i][0]}]"]
        + [answers[name][i] for name in ("before", "after")]
        for i in list(rows)[:3]
    ]
    return result


def as_prompts(
    questions: list[Record], policy: Any, settings: Settings
) -> list[Record]:
    """Writes prompts that leave room for the answer.

    A context that is too long becomes the widest window around the answer
    that fits; a question too long without any context is left out.
    """
    from tfrlhf.data import is_chinese

    tokenizer = policy.need_tokenizer()
    room = min(settings.length, policy.context_length)
    place = random.Random(settings.seed)
    records = []
    for q in questions:
        frame, space = FRAMES["zh" if is_chinese(q["question"]) else "en"]
        response = space + q.get("written", q["answers"][0])
        answer = len(tokenizer.encode(response)) + 1
        limit = room - max(answer, settings.max_new_tokens)
        stop = q["start"] + len(q["answers"][0])
        share, size = place.random(), len(q["context"])
        while size > stop - q["start"]:
            window = cut(q["context"], q["start"], stop, size, share)
            prompt = frame.format(context=window, question=q["question"])
            if len(tokenizer.encode(prompt)) <= limit:
                records.append(
                    {**q, "window": window, "prompt": prompt}
                    | {"response": response}
                )
                break
            size = min(size - 1, size * 19 // 20)
    if not records:
        raise cli.UserError(
            f"No question fits into --length {settings.length}: raise it."
        )
    return records


def cut(context: str, start: int, stop: int, size: int, share: float) -> str:
    """Cuts a window of some size around an answer, at words.

    Args:
        context: the whole.
        start: where the answer begins.
        stop: where it ends.
        size: characters of the window.
        share: how much of what is beside the answer lies before it.
    """
    left = start - round(share * (size - (stop - start)))
    left = max(0, min(left, len(context) - size))
    right = left + size
    while 0 < left < start and context[left - 1 : left + 1].isalnum():
        if not context[left].isascii():
            break
        left += 1
    while stop < right < len(context) and context[right - 1].isalnum():
        if not context[right - 1].isascii() or not context[right].isalnum():
            break
        right -= 1
    return context[left:right].strip()


def nearest_sentence(record: Record) -> str:
    """The sentence of the window that shares most words with the question."""
    from tfrlhf.rewards import words

    asked = set(words(record["question"]))
    sentences = re.split(r"(?<=[.!?])\s+|(?<=[。！？])", record["window"])
    return max(sentences, key=lambda s: len(asked & set(words(s))))


def most_common(answers: list[str]) -> str:
    """The answer that is right most often without reading anything."""
    return max(sorted(set(answers)), key=answers.count)


def load_data(settings: Settings) -> Split:
    """Reads questions and holds out a fifth of the articles."""
    order = random.Random(settings.seed)
    if settings.data is None:
        count = 160 if settings.tiny else 3200
        parts = json.loads(PASSAGES.read_text("utf-8"))
        articles = [authored(order, parts) for _ in range(count)]
    else:
        articles = read_squad(settings.data)
        if settings.tiny:
            articles = articles[:10]
        order.shuffle(articles)
    if len(articles) < 2:
        raise cli.UserError(f"--data {settings.data} needs two articles.")
    held_out = max(1, min(len(articles) // 5, 200))
    rest, measured = articles[held_out:], articles[:held_out]
    return [q for a in rest for q in a], [q for a in measured for q in a]


def read_squad(path: pathlib.Path) -> list[list[Record]]:
    """Reads the questions of each article of a SQuAD file."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            return [
                [
                    {
                        "context": paragraph["context"],
                        "question": qa["question"].strip(),
                        "answers": [a["text"] for a in qa["answers"]],
                        "start": qa["answers"][0]["answer_start"],
                    }
                    for paragraph in article["paragraphs"]
                    for qa in paragraph["qas"]
                    if qa["answers"]
                ]
                for article in json.load(file)["data"]
            ]
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise cli.UserError(
            f"--data {path} is not in SQuAD's format ({error!r})."
        ) from error


def authored(order: random.Random, parts: Record) -> list[Record]:
    """Makes a short passage and asks two questions about it."""
    words = {name: order.choice(each) for name, each in parts["words"].items()}
    context = order.choice(parts["passages"]).format(**words)
    questions = []
    for pattern, gold in order.sample(parts["questions"], 2):
        answer = gold.format(**words)
        questions.append(
            {
                "context": context,
                "question": pattern.format(**words),
                "answers": [answer],
                "start": context.index(answer),
                "written": order.choice(parts["written"]).format(answer),
            }
        )
    return questions


def print_result(summary: Record) -> None:
    """Prints the table."""
    cli.print_table(
        f"{summary['held_out']} questions about held-out passages",
        ("", "F1", "exact match"),
        [
            (title, summary[f"f1_{name}"], summary[f"exact_{name}"])
            for title, name in (
                ("commonest training answer", "common"),
                ("sentence nearest to the question", "sentence"),
                ("before GRPO, most likely answer", "before"),
                ("after", "after"),
                ("before, one sample", "before_sampled"),
                ("after, one sample", "after_sampled"),
            )
        ],
    )
    gain, error = summary["gain_sampled"]
    cli.console.print(
        f"A sample after GRPO has {gain:.3f} ± {error:.3f} more F1 than one "
        f"before, at a KL of {summary['kl']:.2f} nats."
    )


if __name__ == "__main__":
    cli.main(main, Settings)
