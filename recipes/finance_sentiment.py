"""Topic and sentiment of finance news, and an alert when bad news piles up.

    python recipes/finance_sentiment.py
    python recipes/finance_sentiment.py --data news.jsonl
    python recipes/finance_sentiment.py --data train_binary_sent.csv.gz \
        --text sentence --sentiment label --negative 0

A policy learns to write "topic: ...; sentiment: ..." after a sentence: first
from sentences with labels, then by GRPO from sentences of which it is only
told whether its labels were right. Prints accuracy and macro-F1 on held-out
sentences beside the most common label, naive Bayes on words, and VADER. Then
many streams of news are simulated in which the negative share jumps, or does
not: how late the alert comes, and how often for nothing. TensorBoard shows the
share over time of one stream.

The sentences are authored: recipes/data/finance.json has the parts that
`authored` puts together. What went up or down decides the sentiment only
together with the noun (profit, loss), and some sentences have an aside on
another topic. Firms, and pairs of noun and verb, of held-out sentences are in
no training sentence. Real news is harder: take --model and --data for it.
"""

import dataclasses
import json
import pathlib
import random
import re
import zlib
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any
from typing import NamedTuple

from tfrlhf import cli

PARTS = pathlib.Path(__file__).with_name("data") / "finance.json"
ANSWER = re.compile(r"(\w+): ([^;]+)")
POLARITY = {
    ("good", "up"): "positive",
    ("good", "down"): "negative",
    ("bad", "up"): "negative",
    ("bad", "down"): "positive",
}
# A window of the newest items against those before it.
WINDOW, BEFORE = 60, 180
STREAM, JUMP = 480, 300
SHARE, JUMPED_SHARE = 0.25, 0.5

ASKED = "\nLabels:"
ANSWER_TOKENS = 16
BATCH = 250
TITLES = {
    "majority": "most common label",
    "naive_bayes": "naive Bayes on words",
    "vader": "VADER",
    "before": "policy, fine-tuned",
    "after": "policy, after GRPO",
    "truth": "the true sentiments",
}

Labels = dict[str, str]


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to read, and how long to learn."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """JSONL or CSV with text, sentiment and perhaps topic; authored if not."""
    text: str = "text"
    """Column of the text in --data."""
    sentiment: str = "sentiment"
    """Column of the sentiment in --data."""
    topic: str = "topic"
    """Column of the topic in --data, if it has one."""
    negative: str = "negative"
    """The sentiment whose share is watched."""
    sentences: int = 5000
    """Authored sentences to learn from."""
    labelled: float = 0.6
    """Share of the training sentences whose labels are shown."""
    read_epochs: int = 5
    """Of a model from scratch, over sentences with labels."""
    sft_epochs: int = 6
    """Over the labels alone."""
    iterations: int = 60
    """Rollouts of batch_size answers of GRPO."""
    batch_size: int = 128
    learning_rate: float = 3e-4
    """Of GRPO."""
    streams: int = 400
    """Simulated streams with a jump, and as many without."""
    alert_z: float = 3.5
    """Standard errors by which the share must have grown for an alert."""


class Sentence(NamedTuple):
    """A text with its labels by kind, "sentiment" and perhaps "topic"."""

    text: str
    labels: Labels


class Data(NamedTuple):
    """Sentences to learn from and to measure on."""

    labelled: list[Sentence]
    judged: list[Sentence]
    held_out: list[Sentence]
    new_frames: list[Sentence]


def main(settings: Settings) -> None:
    """Labels finance news and raises an alert when bad news piles up."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            sentences=800,
            labelled=0.8,
            read_epochs=5,
            sft_epochs=4,
            iterations=3,
            batch_size=32,
            streams=50,
        )
    run = cli.Run("finance_sentiment", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    data = load_data(settings)

    # 1. A policy that writes labels, from sentences with labels.
    run.stage("sft", "Fine-tuning", lambda: fine_tune(run, settings, data))

    # 2. It goes on from being told right or wrong.
    run.stage("grpo", "GRPO", lambda: optimise(run, settings, data))

    # 3. Labels of held-out sentences, beside those of simple rules.
    measured = run.stage(
        "evaluation", "Evaluation", lambda: evaluate(run, settings, data)
    )

    # 4. Streams of held-out sentences in time.
    alerts = run.stage(
        "alerts",
        "Streams",
        lambda: watch(run, settings, data.held_out, measured["negative"]),
    )
    samples = measured.pop("samples")
    del measured["negative"]
    summary = measured | {
        "alerts": alerts,
        "seconds": run.seconds,
        "peak_memory_mb": cli.peak_memory_mb(),
    }
    run.write_summary(summary)
    print_result(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def fine_tune(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Teaches a policy to write the labels of a sentence."""
    import keras

    import tfrlhf

    examples = [
        {"prompt": prompt(s), "response": answer(s)} for s in data.labelled
    ]
    policy = (
        tfrlhf.Policy.from_preset(settings.model)
        if settings.model
        else tfrlhf.small_policy(
            [prompt(s) + answer(s) for s in data.labelled + data.judged],
            vocabulary_size=1024,
            layers=2,
        )
    )
    # A model from scratch learns to read first, then labels alone.
    phases = [("labels", False, settings.sft_epochs, 2e-3)]
    if settings.model is None:
        phases.insert(0, ("reading", True, settings.read_epochs, 3e-3))
    for name, learn_prompts, epochs, rate in phases:
        sft = tfrlhf.SFT(policy, learn_prompts=learn_prompts)
        steps = epochs * -(-len(examples) // 32)
        sft.compile(
            keras.optimizers.AdamW(cli.cosine(rate, steps), weight_decay=0.1)
        )
        history = sft.fit(
            examples,
            batch_size=32,
            epochs=epochs,
            seed=settings.seed,
            callbacks=run.watchers(name, {"loss": "nats/token"}),
            verbose=0,
        )
    with cli.writing(run.models / "sft") as directory:
        policy.save_to_preset(directory)
    return {
        "loss_first": history.history["loss"][0],
        "loss_last": history.history["loss"][-1],
        "parameters": policy.count_params(),
    }


def optimise(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Rewards labels that are right; which are right is not shown."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    kinds = list(data.judged[0].labels)
    grpo = tfrlhf.GRPO(
        policy,
        tfrlhf.rewards.combine(
            {kind: (is_right(kind), 1 / len(kinds)) for kind in kinds}
        ),
    )
    grpo.compile(
        keras.optimizers.Adam(settings.learning_rate),
        sampler=tfrlhf.Sampler(max_new_tokens=ANSWER_TOKENS),
    )
    # Eight answers to each prompt.
    wanted = settings.iterations * settings.batch_size // 8
    rounds = -(-wanted // len(data.judged))
    grpo.fit(
        [{"prompt": prompt(s)} | s.labels for s in data.judged * rounds][
            :wanted
        ],
        batch_size=settings.batch_size,
        seed=settings.seed,
        callbacks=run.watchers(
            "grpo", {"objective/scores": "right", "objective/kl": "KL"}
        ),
        verbose=0,
    )
    with cli.writing(run.models / "policy") as directory:
        policy.save_to_preset(directory)
    return {"iterations": int(grpo.state.iteration.numpy())}


def evaluate(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Compares the policies and simple rules on held-out sentences."""
    from tfrlhf import evaluation

    known = data.labelled + data.judged
    both = data.held_out + data.new_frames
    texts = [s.text for s in both]
    found = rules(known, texts) | {
        "before": write_labels(run.models / "sft", texts),
        "after": write_labels(run.models / "policy", texts),
    }
    result: dict[str, Any] = {"sentences": len(data.held_out), "rules": {}}
    cut = len(data.held_out)
    for name, labels in found.items():
        kinds = ["sentiment"] if name == "vader" else list(known[0].labels)
        for part, rows in (
            ("held_out", slice(cut)),
            ("frames", slice(cut, None)),
        ):
            if both[rows]:
                result["rules"].setdefault(part, {})[name] = {
                    kind: evaluation.label_quality(
                        [s.labels[kind] for s in both[rows]],
                        [x.get(kind) for x in labels[rows]],
                    )._asdict()
                    for kind in kinds
                }
    return result | {
        "negative": {
            name: [
                int(x.get("sentiment") == settings.negative)
                for x in labels[:cut]
            ]
            for name, labels in found.items()
            if name != "majority"
        },
        "samples": [
            [texts[i], show(found["before"][i]), show(found["after"][i])]
            for i in range(3)
        ],
    }


def rules(known: list[Sentence], texts: list[str]) -> dict[str, list[Labels]]:
    """Labels texts by what a policy must beat."""
    from tfrlhf import evaluation
    from tfrlhf import rewards

    kinds = list(known[0].labels)
    usual = {
        kind: Counter(s.labels[kind] for s in known).most_common(1)[0][0]
        for kind in kinds
    }
    bayes = {
        kind: evaluation.naive_bayes(
            [s.text for s in known], [s.labels[kind] for s in known]
        )(texts)
        for kind in kinds
    }
    found = {
        "majority": [usual] * len(texts),
        "naive_bayes": [
            {k: bayes[k][i] for k in kinds} for i in range(len(texts))
        ],
    }
    names = {s.labels["sentiment"] for s in known}
    if names >= {"positive", "negative"} and find_spec("vaderSentiment"):
        # The thresholds of its authors.
        found["vader"] = [
            {
                "sentiment": "positive"
                if x >= 0.05
                else "negative"
                if x <= -0.05
                else "neutral"
            }
            for x in rewards.vader(texts, texts)
        ]
    return found


def write_labels(directory: pathlib.Path, texts: list[str]) -> list[Labels]:
    """Returns a policy's labels of texts, its likeliest words."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(directory)
    greedy = tfrlhf.Sampler(0.0, max_new_tokens=ANSWER_TOKENS)
    found: list[str] = []
    # Batches of one size, so that nothing is compiled twice.
    filled = texts + texts[-1:] * (-len(texts) % BATCH)
    for start in range(0, len(filled), BATCH):
        part = [text + ASKED for text in filled[start : start + BATCH]]
        found += policy.generate(part, sampler=greedy, seed=0)
    return [read_labels(response) for response in found[: len(texts)]]


def watch(
    run: cli.Run,
    settings: Settings,
    truth: list[Sentence],
    flags: dict[str, list[int]],
) -> dict[str, Any]:
    """Simulates streams of held-out sentences and alerts on them."""
    import numpy as np

    is_negative = np.array(
        [s.labels["sentiment"] == settings.negative for s in truth]
    )
    if is_negative.all() or not is_negative.any():
        raise cli.UserError(
            f"--negative {settings.negative}: the held-out sentences must "
            "have this sentiment and another one."
        )
    random_numbers = np.random.default_rng(settings.seed)
    share = np.full(STREAM, SHARE)
    quiet = stream(is_negative, share, settings.streams, random_numbers)
    share[JUMP:] = JUMPED_SHARE
    jumping = stream(is_negative, share, settings.streams, random_numbers)
    log_stream(run, settings, np.array(flags["after"])[jumping[0]], share)
    result = {}
    for name, flag in {"truth": is_negative, **flags}.items():
        false = first_alert(np.array(flag)[quiet], settings.alert_z)
        found = first_alert(np.array(flag)[jumping], settings.alert_z)
        early, late = found < JUMP, found < STREAM
        delays = found[late & ~early] - JUMP + 1
        result[name] = {
            "false_alarms": share_of(false < STREAM),
            "early": share_of(early),
            "detected": share_of(late & ~early),
            "delay": float(np.median(delays)) if len(delays) else None,
        }
    return result


def stream(
    is_negative: Any, share: Any, streams: int, random_numbers: Any
) -> Any:
    """Draws streams of sentences, by number, of a negative share in time."""
    import numpy as np

    shape = streams, len(share)
    drawn = random_numbers.random(shape) < share
    bad, other = np.flatnonzero(is_negative), np.flatnonzero(~is_negative)
    return np.where(
        drawn,
        random_numbers.choice(bad, shape),
        random_numbers.choice(other, shape),
    )


def z_scores(flags: Any) -> Any:
    """Compares the newest window with the items before it, at each time.

    The two-proportion z-test with a pooled share; 0 until there are enough.
    """
    import numpy as np

    sums = np.cumsum(np.pad(flags, [(0, 0), (1, 0)]), axis=1)
    end, middle = sums[:, WINDOW + BEFORE :], sums[:, BEFORE:-WINDOW]
    start = sums[:, : -WINDOW - BEFORE]
    new, old = (end - middle) / WINDOW, (middle - start) / BEFORE
    pooled = (end - start) / (WINDOW + BEFORE)
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / WINDOW + 1 / BEFORE))
    z = (new - old) / np.maximum(deviation, 1e-6)
    return np.pad(z, [(0, 0), (WINDOW + BEFORE - 1, 0)])


def first_alert(flags: Any, threshold: float) -> Any:
    """Returns when each stream first alerts; its length if it never does."""
    import numpy as np

    alert = z_scores(flags) > threshold
    return np.where(alert.any(axis=1), alert.argmax(axis=1), flags.shape[1])


def log_stream(
    run: cli.Run, settings: Settings, flags: Any, share: Any
) -> None:
    """Writes a stream to TensorBoard and prints its alert."""
    import tensorflow as tf

    from tfrlhf import evaluation

    z = z_scores(flags[None])[0]
    writer = tf.summary.create_file_writer(str(run.logs / "stream"))
    with writer.as_default():
        for time in range(WINDOW - 1, len(flags)):
            window = flags[time + 1 - WINDOW : time + 1]
            tf.summary.scalar("stream/negative_share", window.mean(), time)
            tf.summary.scalar("stream/true_share", share[time], time)
            tf.summary.scalar("stream/z", z[time], time)
    time = int(first_alert(flags[None], settings.alert_z)[0])
    if time < len(flags):
        window = flags[time + 1 - WINDOW : time + 1]
        text = (
            f"item {time}: {window.mean():.0%} of the last {WINDOW} are "
            f"negative (95% interval {evaluation.wilson_interval(window)}), "
            f"z = {z[time]:.1f}"
        )
        cli.console.print(f"   alert in a stream that jumps at {JUMP}: {text}")
        with writer.as_default():
            tf.summary.text("stream/alert", text, time)
    writer.close()


def share_of(events: Any) -> list[float]:
    """Returns a share and its standard error."""
    from tfrlhf import evaluation

    return list(evaluation.accuracy(events.astype(float)))


def is_right(kind: str) -> Callable[..., list[float]]:
    """Returns a reward: 1 where the label of a kind is right."""

    def score(
        prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        return [
            float(read_labels(response).get(kind) == truth)
            for response, truth in zip(responses, columns[kind], strict=True)
        ]

    return score


def prompt(sentence: Sentence) -> str:
    """Returns what a policy reads."""
    return sentence.text + ASKED


def answer(sentence: Sentence) -> str:
    """Returns what a policy should write."""
    return " " + show(sentence.labels)


def show(labels: Labels) -> str:
    """Writes labels."""
    return "; ".join(f"{kind}: {label}" for kind, label in labels.items())


def read_labels(response: str) -> Labels:
    """Reads labels out of what a policy wrote."""
    return {kind: label.strip() for kind, label in ANSWER.findall(response)}


def load_data(settings: Settings) -> Data:
    """Returns authored sentences, or the user's."""
    draw = random.Random(settings.seed)
    if settings.data is None:
        train = authored(draw, settings.sentences)
        count = 200 if settings.tiny else 1200
        held_out = authored(draw, count, held_out=True)
        frames = authored(draw, count // 4, True, "held_out_frames")
    else:
        train = read_sentences(settings)
        draw.shuffle(train)
        count = min(1200, len(train) // 5)
        held_out, train, frames = train[:count], train[count:], []
    cut = round(settings.labelled * len(train))
    if not 0 < cut < len(train) or len(held_out) < 2:
        raise cli.UserError(
            f"--labelled {settings.labelled} of {len(train)} sentences leaves "
            "none to show or none to judge: give more sentences or another "
            "share between 0 and 1."
        )
    return Data(train[:cut], train[cut:], held_out, frames)


def read_sentences(settings: Settings) -> list[Sentence]:
    """Reads the user's sentences."""
    from tfrlhf import data

    found = []
    for record in data.load(
        settings.data, columns={"prompt": settings.text}, kind="prompts"
    ):
        labels = {
            kind: str(record[column])
            for kind, column in (
                ("topic", settings.topic),
                ("sentiment", settings.sentiment),
            )
            if column in record
        }
        if "sentiment" not in labels:
            raise cli.UserError(
                f"{record['_where']} has no {settings.sentiment!r}: name the "
                "column by --sentiment."
            )
        found.append(Sentence(record["prompt"], labels))
    return found


def authored(
    draw: random.Random,
    count: int,
    held_out: bool = False,
    frames: str = "frames",
) -> list[Sentence]:
    """Puts sentences together out of the parts in finance.json.

    Args:
        draw: the random numbers.
        count: how many, all different.
        held_out: whether with the firms, and the pairs of noun and verb, that
            are held out, or with the others.
        frames: which frames.
    """
    parts = json.loads(PARTS.read_text("utf-8"))
    found: dict[str, Sentence] = {}
    while len(found) < count:
        topic, aside_topic = draw.sample(list(parts["topics"]), 2)
        main_clause, sentiment = clause(draw, parts, topic, held_out)
        aside, _ = clause(draw, parts, aside_topic, False)
        firm = draw.choice(parts["firm_starts"])
        firm += draw.choice(parts["firm_ends"])
        if is_held_out(firm) != held_out:
            continue
        text = draw.choice(parts[frames]).format(
            main=main_clause,
            aside=aside,
            firm=firm,
            time=draw.choice(parts["times"]),
        )
        text = text[0].upper() + text[1:]
        found[text] = Sentence(text, {"topic": topic, "sentiment": sentiment})
    return list(found.values())


def clause(
    draw: random.Random, parts: dict[str, Any], topic: str, held_out: bool
) -> tuple[str, str]:
    """Draws noun and verb; returns them with the sentiment."""
    while True:
        # News is more often of good things, and of bad ones that grow.
        kind = draw.choices(["good", "bad"], [65, 35])[0]
        weights = [40, 30, 30] if kind == "good" else [50, 25, 25]
        direction = draw.choices(["up", "down", "flat"], weights)[0]
        noun = draw.choice(parts["topics"][topic][kind])
        verb = draw.choice(parts["verbs"][direction])
        text = f"{noun} {verb}"
        if is_held_out(text) == held_out:
            return text, POLARITY.get((kind, direction), "neutral")


def is_held_out(text: str) -> bool:
    """Picks a fifth of all texts, whatever the seed."""
    return zlib.crc32(text.encode()) % 5 == 0


def print_result(summary: dict[str, Any]) -> None:
    """Prints the tables."""
    frames = {
        "held_out": f"{summary['sentences']} held-out sentences",
        "frames": "The same in frames that no training sentence has",
    }
    for part, found in summary["rules"].items():
        kinds = list(found["after"])
        rows = []
        for name, measured in found.items():
            row: list[Any] = [TITLES[name]]
            for kind in kinds:
                cell = measured.get(kind)
                row += (
                    [
                        "{:.3f} ± {:.3f}".format(*cell["accuracy"]),
                        cell["macro_f1"],
                    ]
                    if cell
                    else [None, None]
                )
            rows.append(row)
        columns = [f"{k} {m}" for k in kinds for m in ("accuracy", "macro-F1")]
        cli.print_table(frames[part], ("", *columns), rows)
    cli.print_table(
        f"Alert by sentiments of: {STREAM} items, the negative share jumps "
        f"from {SHARE} to {JUMPED_SHARE} after {JUMP}",
        ("", "found after the jump", "items until then", "alert without one"),
        [
            [
                TITLES[name],
                "{:.3f} ± {:.3f}".format(*found["detected"]),
                found["delay"],
                "{:.3f} ± {:.3f}".format(*found["false_alarms"]),
            ]
            for name, found in summary["alerts"].items()
        ],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
