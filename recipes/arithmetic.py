"""Arithmetic with a verifier: GRPO on whether the final number is right.

    python recipes/arithmetic.py
    python recipes/arithmetic.py --model DIR \
        --data $TFRLHF_TEST_DATA/data/math/gsm8k_train.jsonl.gz \
        --max-new-tokens 200

Fine-tunes on worked answers that end in "#### n", as those of GSM8K do, and
stops while some are wrong. GRPO then samples answers to problems and learns
from one bit each: whether `rewards.NumericAnswer` finds the right number. The
working is never looked at. The loss has DAPO's choices
(https://arxiv.org/abs/2503.14476): a mean over tokens, a lopsided clip, no KL.

FILE is JSONL of {"question", "answer"}; the fields may be called otherwise.
Without it a grammar written for this recipe makes additions and subtractions
of numbers up to 99, bare or in a sentence. A pair of numbers that is held out
is in no problem to train on. The small model starts from nothing, with a token
for each digit: it shows that the machinery works; for more give it a --model.

The file is not called math.py: as a script it would stand before the standard
library's `math` for everything that is imported after it.
"""

import dataclasses
import pathlib
import random
import re
from collections import Counter
from typing import Any

from tfrlhf import cli

FRAME = "{}\nAnswer:\n"
HELD_OUT = 200
TEMPLATES = {
    "+": (
        "What is {a} + {b}?",
        "Ann has {a} pears and gets {b}. How many are there?",
        "A bus with {a} people takes on {b}. How many are there?",
    ),
    "-": (
        "What is {a} - {b}?",
        "Ann has {a} pears and eats {b}. How many are left?",
        "Of {a} birds in a tree {b} fly off. How many are left?",
    ),
}


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to solve, and how long to learn it."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """JSONL of problems; a fifth, at most 200, is held out."""
    question: str = "question"
    """Field of --data with the problem."""
    answer: str = "answer"
    """Field of --data with the worked answer and its final number."""
    problems: int = 6000
    """That the grammar writes to train on, if there is no --data."""
    sft_epochs: int = 16
    """Over the worked answers; too few to get all of them right."""
    sft_learning_rate: float = 3e-3
    prompts: int = 32
    """Of an iteration."""
    responses: int = 8
    """Sampled for each prompt; also answers to each held-out problem."""
    iterations: int = 40
    update_epochs: int = 2
    max_new_tokens: int = 32
    temperature: float = 1.0
    learning_rate: float = 1e-4
    context_length: int = 160
    """Of the small GPT-2."""


def main(settings: Settings) -> None:
    """Learns arithmetic from worked answers, then from being right."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            problems=500,
            sft_epochs=3,
            prompts=4,
            responses=4,
            iterations=3,
            update_epochs=1,
        )
    run = cli.Run("arithmetic", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    strategy = cli.make_strategy(settings.strategy)
    training, held_out = load_data(settings)
    held_out = held_out[: 40 if settings.tiny else None]

    # 1. Worked answers, until the model has the form and some of the sums.
    with strategy.scope():
        tuned = run.stage(
            "sft",
            "Supervised fine-tuning",
            lambda: fine_tune(run, settings, training),
        )

    # 2. Its own answers, right or wrong.
    with strategy.scope():
        run.stage("grpo", "GRPO", lambda: optimise(run, settings, training))

    # 3. Problems whose numbers were held out.
    measured = run.stage(
        "evaluation",
        "Evaluation",
        lambda: evaluate(run, settings, training, held_out),
    )
    samples = measured.pop("samples")
    summary = measured | {
        "training_problems": len(training),
        "sft_losses": tuned["losses"],
        "seconds": run.seconds,
        "peak_memory_mb": cli.peak_memory_mb(),
    }
    run.write_summary(summary)
    print_measured(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def load_data(
    settings: Settings,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Reads or writes {"prompt", "answer"} records to train on and held out."""
    if settings.data is None:
        return grammar(settings)
    from tfrlhf import data

    fields = (settings.question, settings.answer)
    records = [
        {
            "prompt": FRAME.format(record[settings.question]),
            "answer": record[settings.answer],
        }
        for record in data.read_jsonl(settings.data, fields)
    ]
    several = list(dict.fromkeys(record["prompt"] for record in records))
    if len(several) < 4:
        raise cli.UserError(
            f"--data {settings.data} has {len(several)} problems: at least 4 "
            "are needed, two to train on and two to hold out."
        )
    random.Random(settings.seed).shuffle(several)
    measured = set(several[: min(HELD_OUT, max(2, len(several) // 5))])
    return (
        [r for r in records if r["prompt"] not in measured],
        [r for r in records if r["prompt"] in measured],
    )


def grammar(
    settings: Settings,
) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """Writes problems; those that are held out share no numbers."""
    order = random.Random(settings.seed)
    sums = [(a, "+", b) for a in range(2, 100) for b in range(2, 100)]
    sums += [(a, "-", b) for a in range(2, 100) for b in range(2, a)]
    order.shuffle(sums)
    held_out = [problem(order, *each) for each in sums[:HELD_OUT]]
    seen = order.choices(sums[HELD_OUT:], k=settings.problems)
    return [problem(order, *each) for each in seen], held_out


def problem(order: random.Random, a: int, sign: str, b: int) -> dict[str, str]:
    """Asks for a + b or a - b; works it out by tens, then by ones."""
    question = order.choice(TEMPLATES[sign]).format(a=a, b=b)
    factor = 1 if sign == "+" else -1
    tens, ones = b // 10 * 10, b % 10
    working, value = [], a
    for part in (tens, ones):
        if part:
            working.append(f"{value}{sign}{part}={value + factor * part}")
            value += factor * part
    answer = " ".join(working) + f"\n#### {value}"
    return {"prompt": FRAME.format(question), "answer": answer}


def fine_tune(
    run: cli.Run, settings: Settings, training: list[dict[str, str]]
) -> dict[str, Any]:
    """Teaches the model worked answers and saves it."""
    import keras

    import tfrlhf
    from tfrlhf import data

    policy = (
        tfrlhf.Policy.from_preset(settings.model)
        if settings.model
        else tfrlhf.small_policy(
            # Without the digits: each of them stays a token.
            (
                re.sub(r"\d+", " ", record["prompt"] + record["answer"])
                for record in training
            ),
            layers=2 if settings.tiny else 4,
            context_length=settings.context_length,
        )
    )
    from_nothing = settings.model is None
    sft = tfrlhf.SFT(policy, learn_prompts=from_nothing)
    encoded = data.examples(
        [{"prompt": r["prompt"], "response": r["answer"]} for r in training],
        policy.need_tokenizer(),
        policy.context_length,
        learn_prompts=from_nothing,
        skip_bad=settings.data is not None,
    )
    steps = settings.sft_epochs * -(-len(encoded.token_ids) // 64)
    rate = cli.cosine(settings.sft_learning_rate, steps)
    sft.compile(keras.optimizers.AdamW(rate, weight_decay=0.1))
    history = sft.fit(
        encoded,
        batch_size=64,
        epochs=settings.sft_epochs,
        seed=settings.seed,
        callbacks=run.watchers("sft", {"loss": "nats/token"}),
        verbose=0,
    )
    with cli.writing(run.models / "sft") as directory:
        policy.save_to_preset(directory)
    losses = history.history["loss"]
    return {"parameters": policy.count_params(), "losses": losses}


def optimise(
    run: cli.Run, settings: Settings, training: list[dict[str, str]]
) -> dict[str, Any]:
    """Raises the share of sampled answers that are right."""
    import keras

    import tfrlhf
    from tfrlhf import rewards

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    grpo = tfrlhf.GRPO(policy, rewards.NumericAnswer())
    # Adam's first steps have full size, however small the gradient.
    steps = settings.iterations * settings.update_epochs
    rate = cli.cosine(settings.learning_rate, steps)
    grpo.compile(
        keras.optimizers.Adam(rate, epsilon=1e-5),
        tfrlhf.losses.PPOLoss(clip=(0.2, 0.28)),
        sampler=sampler(settings, settings.temperature),
        advantage=tfrlhf.GroupRelative(settings.responses),
        update_epochs=settings.update_epochs,
    )
    order = random.Random(settings.seed + 1)
    fitting = that_fit(policy, settings, training)
    wanted = settings.iterations * settings.prompts
    rounds = -(-wanted // len(fitting))
    grpo.fit(
        (order.sample(fitting, len(fitting)) * rounds)[:wanted],
        batch_size=settings.prompts * settings.responses,
        seed=settings.seed,
        callbacks=run.watchers(
            "grpo", {"objective/scores": "right", "objective/kl": "KL"}
        ),
        verbose=0,
    )
    with cli.writing(run.models / "grpo") as directory:
        policy.save_to_preset(directory)
    return {"iterations": int(grpo.state.iteration.numpy())}


def that_fit(
    policy: Any, settings: Settings, records: list[dict[str, str]]
) -> list[dict[str, str]]:
    """Leaves out problems that leave no room for their answer."""
    room = policy.context_length - settings.max_new_tokens
    encode = policy.need_tokenizer().encode
    kept = [r for r in records if len(encode(r["prompt"])) <= room]
    if not kept:
        raise cli.UserError(
            f"Every problem is longer than {room} tokens: give a larger "
            "--context-length, or a --model with one."
        )
    return kept


def evaluate(
    run: cli.Run,
    settings: Settings,
    training: list[dict[str, str]],
    held_out: list[dict[str, str]],
) -> dict[str, Any]:
    """Solves the held-out problems, greedily and several times each."""
    import numpy as np

    import tfrlhf
    from tfrlhf import rewards

    verify = rewards.NumericAnswer()
    policies = {
        name: tfrlhf.Policy.from_preset(run.models / name)
        for name in ("sft", "grpo")
    }
    records = that_fit(policies["sft"], settings, held_out)
    prompts = [record["prompt"] for record in records]
    golds = [record["answer"] for record in records]
    each = settings.responses
    measured, answers = {}, {}
    for name, policy in policies.items():
        answers[name] = policy.generate(
            prompts, sampler=sampler(settings, 0.0), seed=settings.seed
        )
        # One sample of every problem at a time: a cache of all is large.
        right = [
            verify(
                prompts,
                policy.generate(
                    prompts,
                    sampler=sampler(settings, settings.temperature),
                    seed=(settings.seed, number),
                ),
                answer=golds,
            )
            for number in range(each)
        ]
        measured[name] = {
            "greedy": mean(verify(prompts, answers[name], answer=golds)),
            "sampled": mean(np.mean(right, axis=0)),
            "pass": mean(np.max(right, axis=0)),
        }
    usual = Counter(r["answer"].rpartition("#### ")[2] for r in training)
    guess = [f"#### {usual.most_common(1)[0][0]}"] * len(prompts)
    measured["guess"] = {"greedy": mean(verify(prompts, guess, answer=golds))}
    return {
        "prompts": len(prompts),
        "responses": each,
        "measured": measured,
        "samples": [
            [prompts[i], answers["sft"][i], answers["grpo"][i]]
            for i in (0, len(prompts) // 2, len(prompts) - 1)
        ],
    }


def mean(right: Any) -> list[float]:
    """Returns a mean over problems and its standard error."""
    from tfrlhf import evaluation

    return list(evaluation.accuracy(right))


def print_measured(summary: dict[str, Any]) -> None:
    """Prints the table."""
    each, measured = summary["responses"], summary["measured"]
    cli.print_table(
        f"{summary['prompts']} held-out problems",
        ("", "most common answer", "before", "after"),
        [
            (title, *(measured[x].get(key) for x in ("guess", "sft", "grpo")))
            for title, key in (
                ("right, greedy", "greedy"),
                (f"right, mean of {each} samples", "sampled"),
                (f"right in any of {each} samples", "pass"),
            )
        ],
    )


def sampler(settings: Settings, temperature: float) -> Any:
    """Returns how answers are drawn; 0 takes the most likely token."""
    import tfrlhf

    return tfrlhf.Sampler(temperature, max_new_tokens=settings.max_new_tokens)


if __name__ == "__main__":
    cli.main(main, Settings)
