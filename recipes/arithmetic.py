"""Arithmetic with a verifier: GRPO on whether the final number is right.

    python recipes/arithmetic.py
    python recipes/arithmetic.py --model DIR \
        --data $TFRLHF_TEST_DATA/data/math/gsm8k_train.jsonl.gz \
        --max-new-tokens 200

Fine-tunes on worked answers that end in "#### n", as those of GSM8K do. GRPO
then samples answers to problems and learns from one bit each: whether
`rewards.NumericAnswer` finds the right number. The working is never looked at.
The loss has DAPO's choices (https://arxiv.org/abs/2503.14476): a mean over
tokens, a lopsided clip, no KL.

FILE is JSONL of {"question", "answer"}; the fields may be called otherwise.
Without it a grammar written for this recipe adds and subtracts three numbers
up to 9. Two in five of the workings to learn from stop a step early, as hasty
pupils do: the model takes the habit over, and GRPO finds that it does not pay.
No held-out problem is trained on in other words. The small model starts from
nothing: it shows that the machinery works; for more give a --model.

The file is not called math.py: it would hide the standard library's `math`.
"""

import dataclasses
import itertools
import pathlib
import random
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tfrlhf import cli

FRAME = "{}\nAnswer:\n"
HELD_OUT = 200
HASTY = 0.4
BATCH = 16
STAGES = ("sft", "grpo")
Record = dict[str, str]
FORMS = (
    ("What is {}", " + {}", " - {}", "?"),
    ("Ann has {} pears", ", gets {}", ", eats {}", ". How many are left?"),
    ("Of {} seats", ", {} more come", ", {} go", ". How many are there?"),
)


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
    sft_epochs: int = 6
    """Over the worked answers."""
    sft_learning_rate: float = 2e-3
    prompts: int = 32
    """Of an iteration."""
    responses: int = 8
    """Sampled for each prompt; also answers to each held-out problem."""
    iterations: int = 40
    update_epochs: int = 2
    max_new_tokens: int = 24
    temperature: float = 1.0
    learning_rate: float = 2e-4
    context_length: int = 96
    """Of the small GPT-2."""


def main(settings: Settings) -> None:
    """Learns from worked answers, then from being right."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            problems=500,
            sft_epochs=2,
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

    # 1. Worked answers, with the sums and the habits that are in them.
    with strategy.scope():
        tuned = run.stage(
            "sft",
            "Supervised fine-tuning",
            lambda: fine_tune(run, settings, training),
        )

    # 2. Its own answers, right or wrong.
    with strategy.scope():
        run.stage("grpo", "GRPO", lambda: optimise(run, settings, training))

    # 3. Problems that were held out.
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


def load_data(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Reads or writes records to train on and held out.

    Of each the "prompt", a right "answer", and the "response" to learn from.
    """
    if settings.data is None:
        return grammar(settings)
    from tfrlhf import data

    fields = (settings.question, settings.answer)
    records = [
        {
            "prompt": FRAME.format(record[settings.question]),
            "answer": record[settings.answer],
            "response": record[settings.answer],
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


def grammar(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Writes problems: workings of those that are held out are whole."""
    order = random.Random(settings.seed)
    terms = [(sign, number) for sign in "+-" for number in range(2, 10)]
    sums = list(itertools.product(terms[:8], terms, terms))
    sums = [each for each in sums if min(values(each)) >= 0]
    order.shuffle(sums)
    held_out = [problem(order, each) for each in sums[:HELD_OUT]]
    seen = order.choices(sums[HELD_OUT:], k=settings.problems)
    return [problem(order, each, HASTY) for each in seen], held_out


def values(terms: Sequence[tuple[str, int]]) -> list[int]:
    """Returns the sum of the first term, of the first two, and so on."""
    return list(itertools.accumulate(int(f"{s}{n}") for s, n in terms))


def problem(
    order: random.Random, terms: Sequence[tuple[str, int]], hasty: float = 0.0
) -> Record:
    """Asks for a sum and works it out; at times the last term is left out."""
    first, plus, minus, end = order.choice(FORMS)
    words = [(plus if s == "+" else minus).format(n) for s, n in terms[1:]]
    question = first.format(terms[0][1]) + "".join(words) + end
    left = terms[:-1] if order.random() < hasty else terms
    return {
        "prompt": FRAME.format(question),
        "answer": worked(terms),
        "response": worked(left),
    }


def worked(terms: Sequence[tuple[str, int]]) -> str:
    """Writes an answer, a step for every term after the first."""
    reached = values(terms)
    pairs = zip(reached[:-1], terms[1:], reached[1:], strict=True)
    steps = [f"{x}{sign}{n}={y}" for x, (sign, n), y in pairs]
    return " ".join(steps) + f"\n#### {reached[-1]}"


def fine_tune(
    run: cli.Run, settings: Settings, training: list[Record]
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
                re.sub(r"\d+", " ", record["prompt"] + record["response"])
                for record in training
            ),
            layers=2,
            context_length=settings.context_length,
        )
    )
    sft = tfrlhf.SFT(policy)
    encoded = data.examples(
        [{"prompt": r["prompt"], "response": r["response"]} for r in training],
        policy.need_tokenizer(),
        policy.context_length,
        skip_bad=settings.data is not None,
    )
    steps = settings.sft_epochs * -(-len(encoded.token_ids) // BATCH)
    rate = cli.cosine(settings.sft_learning_rate, steps)
    sft.compile(keras.optimizers.AdamW(rate, weight_decay=0.1))
    history = sft.fit(
        encoded,
        batch_size=BATCH,
        epochs=settings.sft_epochs,
        seed=settings.seed,
        callbacks=run.watchers("sft", {"loss": "nats/token"}),
        verbose=0,
    )
    with cli.writing(run.models / "sft") as directory:
        policy.save_to_preset(directory)
    return {"losses": history.history["loss"]}


def optimise(
    run: cli.Run, settings: Settings, training: list[Record]
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
    policy: Any, settings: Settings, records: list[Record]
) -> list[Record]:
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
    training: list[Record],
    held_out: list[Record],
) -> dict[str, Any]:
    """Solves the held-out problems, greedily and several times each."""
    import tfrlhf
    from tfrlhf import evaluation

    policies = {x: tfrlhf.Policy.from_preset(run.models / x) for x in STAGES}
    records = that_fit(policies["sft"], settings, held_out)
    prompts = [record["prompt"] for record in records]
    measured: dict[str, dict[str, Any]] = {}
    answers: dict[str, list[str]] = {}
    for name, policy in policies.items():
        # One sample of every problem at a time: a cache of all is large.
        draw = sampler(settings, settings.temperature)
        several = [
            policy.generate(prompts, sampler=draw, seed=(settings.seed, i))
            for i in range(settings.responses)
        ]
        greedy = policy.generate(prompts, sampler=sampler(settings, 0.0))
        measured[name] = measure(records, several, greedy)
        answers[name] = greedy
    before, after = measured["sft"], measured["grpo"]
    # Of the same problems: what differs between them is in neither.
    gains = {key: after[key] - before[key] for key in before}
    measured["gain"] = {k: list(evaluation.mean(x)) for k, x in gains.items()}
    for part in (before, after):
        part |= {k: list(evaluation.accuracy(x)) for k, x in part.items()}
    usual = Counter(r["answer"].rpartition("#### ")[2] for r in training)
    guess = [f"#### {usual.most_common(1)[0][0]}"] * len(prompts)
    right = measure(records, [guess], guess)["greedy"]
    measured["guess"] = {"greedy": list(evaluation.accuracy(right))}
    return {
        "prompts": len(prompts),
        "responses": settings.responses,
        "measured": measured,
        "samples": [
            [prompts[i], answers["sft"][i], answers["grpo"][i]]
            for i in (0, len(prompts) // 2, len(prompts) - 1)
        ],
    }


def measure(
    records: list[Record], several: list[list[str]], greedy: list[str]
) -> dict[str, Any]:
    """Returns shares of the answers to each problem, [problems] each."""
    import numpy as np

    from tfrlhf import rewards

    verify = rewards.NumericAnswer()
    golds = [record["answer"] for record in records]
    right = [verify([], column, answer=golds) for column in several]
    steps = [
        [a.count("=") >= g.count("=") for a, g in zip(x, golds, strict=True)]
        for x in several
    ]
    return {
        "greedy": np.asarray(verify([], greedy, answer=golds)),
        "sampled": np.mean(right, axis=0),
        "pass": np.max(right, axis=0),
        "steps": np.mean(steps, axis=0),
    }


def print_measured(summary: dict[str, Any]) -> None:
    """Prints the table."""
    each, measured = summary["responses"], summary["measured"]
    cli.print_table(
        f"{summary['prompts']} held-out problems",
        ("", "most common answer", "before", "after", "gain"),
        [
            (
                title,
                *(measured[x].get(key) for x in ("guess", *STAGES, "gain")),
            )
            for title, key in (
                ("right, greedy", "greedy"),
                (f"right, mean of {each} samples", "sampled"),
                (f"right in any of {each} samples", "pass"),
                ("no step left out, samples", "steps"),
            )
        ],
    )


def sampler(settings: Settings, temperature: float) -> Any:
    """Returns how answers are drawn; 0 takes the most likely token."""
    import tfrlhf

    return tfrlhf.Sampler(temperature, max_new_tokens=settings.max_new_tokens)


if __name__ == "__main__":
    cli.main(main, Settings)
