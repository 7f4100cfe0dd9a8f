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

The sentences are authored and put together by `tfrlhf.data.embedded.news`.
Firms, and pairs of noun and verb, of held-out sentences are in no training
sentence. Real news is harder: take --model and --data for it.
"""

import dataclasses
import functools
import pathlib
import random
from collections import Counter
from importlib.util import find_spec
from typing import Any
from typing import NamedTuple

from tfrlhf import cli

ASKED = "\nLabels:"
ANSWER_TOKENS = 16
# Sentences that are labelled at a time.
BATCH = 250
KINDS = ("topic", "sentiment")
SIGNS = {1: "positive", 0: "neutral", -1: "negative"}
# A window of the newest items against those before it.
WINDOW, BEFORE = 60, 180
STREAM, JUMP = 480, 300
SHARE, JUMPED_SHARE = 0.25, 0.5
TITLES = {
    "majority": "most common label",
    "naive_bayes": "naive Bayes on words",
    "vader": "VADER",
    "before": "policy, fine-tuned",
    "after": "policy, after GRPO",
    "truth": "the true sentiments",
}
# With text, labels by kind, and both as prompt and response.
Record = dict[str, str]


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


class Data(NamedTuple):
    """Sentences to learn from and to measure on."""

    labelled: list[Record]
    judged: list[Record]
    held_out: list[Record]
    new_frames: list[Record]


def main(settings: Settings) -> None:
    """Labels finance news and raises an alert when bad news piles up."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            sentences=800,
            labelled=0.8,
            sft_epochs=4,
            iterations=3,
            batch_size=32,
            streams=50,
        )
    run = cli.Run("finance_sentiment", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    task = (run, settings, load_data(settings))

    # 1. A policy that writes labels, from sentences with labels.
    run.stage("sft", "Fine-tuning", lambda: fine_tune(*task))

    # 2. It goes on from being told right or wrong.
    run.stage("grpo", "GRPO", lambda: optimise(*task))

    # 3. Labels of held-out sentences, beside those of simple rules.
    measured = run.stage("evaluation", "Evaluation", lambda: evaluate(*task))

    # 4. Streams of held-out sentences in time.
    flags = measured.pop("negative")
    alerts = run.stage("alerts", "Streams", lambda: watch(*task, flags))

    samples = measured.pop("samples")
    summary = run.write_summary(measured | {"alerts": alerts})
    print_result(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def fine_tune(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Teaches a policy to write the labels of a sentence."""
    import tfrlhf

    learn = functools.partial(cli.fine_tune, run, examples=data.labelled)
    if settings.model:
        policy = tfrlhf.Policy.from_preset(settings.model)
    else:
        policy = tfrlhf.small_policy(
            [s["prompt"] + s["response"] for s in data.labelled + data.judged],
            vocabulary_size=1024,
            layers=2,
        )
        # A model from nothing learns to read first, then labels alone.
        learn(policy, rate=3e-3, epochs=settings.read_epochs, stage="reading")
    losses = learn(
        policy,
        rate=2e-3,
        epochs=settings.sft_epochs,
        learn_prompts=False,
        stage="labels",
    )
    run.save(policy, "sft")
    return {
        "loss_first": losses[0],
        "loss_last": losses[-1],
        "parameters": policy.count_params(),
    }


def optimise(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Rewards labels that are right; which are right is not shown."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    kinds, right = labels_of(data.judged[0]), tfrlhf.rewards.LabelMatch
    reward = tfrlhf.rewards.combine(
        {kind: (right(kind), 1 / len(kinds)) for kind in kinds}
    )
    grpo = tfrlhf.GRPO(policy, reward)
    grpo.compile(
        keras.optimizers.Adam(settings.learning_rate),
        sampler=tfrlhf.Sampler(max_new_tokens=ANSWER_TOKENS),
    )
    # Eight answers to each prompt.
    wanted = settings.iterations * settings.batch_size // 8
    run.fit(
        grpo,
        cli.repeated(data.judged, wanted),
        "grpo",
        {"objective/scores": "right", "objective/kl": "KL"},
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"iterations": int(grpo.state.iteration.numpy())}


def evaluate(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Compares the policies and simple rules on held-out sentences."""
    from tfrlhf import evaluation
    from tfrlhf import rewards

    both, cut = data.held_out + data.new_frames, len(data.held_out)
    texts = [s["text"] for s in both]
    found = rules(data, texts)
    for name, model in (("before", "sft"), ("after", "policy")):
        found[name] = label(run.models / model, texts)
    result: dict[str, Any] = {"sentences": cut, "rules": {}}
    for part, rows in (("held_out", slice(cut)), ("frames", slice(cut, None))):
        for name, labels in found.items() if both[rows] else ():
            result["rules"].setdefault(part, {})[name] = {
                kind: evaluation.label_quality(
                    [s[kind] for s in both[rows]],
                    [x.get(kind) for x in labels[rows]],
                )._asdict()
                for kind in labels_of(both[0])
                if name != "vader" or kind == "sentiment"
            }
    bad = settings.negative
    del found["majority"]
    result["negative"] = {
        name: [int(x.get("sentiment") == bad) for x in labels[:cut]]
        for name, labels in found.items()
    }
    result["samples"] = [
        [texts[i]]
        + [rewards.write_labels(found[x][i]) for x in ("before", "after")]
        for i in range(3)
    ]
    return result


def rules(data: Data, texts: list[str]) -> dict[str, list[Record]]:
    """Labels texts by what a policy must beat."""
    from tfrlhf import evaluation
    from tfrlhf import rewards

    known = data.labelled + data.judged
    found: dict[str, list[Record]] = {
        name: [{} for _ in texts] for name in ("majority", "naive_bayes")
    }
    for kind in labels_of(known[0]):
        labels = [s[kind] for s in known]
        usual = Counter(labels).most_common(1)[0][0]
        bayes = evaluation.naive_bayes([s["text"] for s in known], labels)
        for row, x in enumerate(bayes(texts)):
            found["majority"][row][kind] = usual
            found["naive_bayes"][row][kind] = x
    names = {s["sentiment"] for s in known}
    if names >= {"positive", "negative"} and find_spec("vaderSentiment"):
        # The thresholds of its authors.
        found["vader"] = [
            {"sentiment": SIGNS[(x >= 0.05) - (x <= -0.05)]}
            for x in rewards.vader(texts, texts)
        ]
    return found


def label(directory: pathlib.Path, texts: list[str]) -> list[Record]:
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
    return [tfrlhf.rewards.read_labels(x) for x in found[: len(texts)]]


def watch(
    run: cli.Run, settings: Settings, data: Data, flags: dict[str, list[int]]
) -> dict[str, Any]:
    """Simulates streams of held-out sentences and alerts on them."""
    import numpy as np

    from tfrlhf import evaluation

    alert = evaluation.GrowthAlert(WINDOW, BEFORE, settings.alert_z)
    truth = [s["sentiment"] == settings.negative for s in data.held_out]
    if all(truth) or not any(truth):
        raise cli.UserError(
            f"--negative {settings.negative}: the held-out sentences must "
            "have this sentiment and another one."
        )
    draw = np.random.default_rng(settings.seed)
    share = np.full(STREAM, SHARE)
    quiet = evaluation.draw_streams(truth, share, settings.streams, draw)
    share[JUMP:] = JUMPED_SHARE
    jumping = evaluation.draw_streams(truth, share, settings.streams, draw)
    # One stream to look at.
    flag = np.array(flags["after"])[jumping[:1]]
    mean = np.convolve(flag[0], np.ones(WINDOW) / WINDOW)[:STREAM]
    z = alert.z_scores(flag)[0]
    series = {"negative_share": mean, "true_share": share, "z": z}
    run.log_series("stream", series, first=WINDOW - 1)
    first = int(alert.first(flag)[0])
    if first < STREAM:
        cli.console.print(
            f"   alert in a stream that jumps at {JUMP}: item {first}, "
            f"{mean[first]:.0%} of the last {WINDOW} are negative, "
            f"z = {z[first]:.1f}"
        )
    return {
        name: alert.quality(np.array(x)[quiet], np.array(x)[jumping], JUMP)
        for name, x in {"truth": truth, **flags}.items()
    }


def load_data(settings: Settings) -> Data:
    """Returns authored sentences, or the user's."""
    from tfrlhf import rewards
    from tfrlhf.data.embedded import news

    draw = random.Random(settings.seed)
    if settings.data is None:
        count = 200 if settings.tiny else 1200
        train = news.write(draw, settings.sentences)
        held_out = news.write(draw, count, held_out=True)
        frames = news.write(draw, count // 4, True, "held_out_frames")
    else:
        train = read_sentences(settings)
        draw.shuffle(train)
        count = min(1200, len(train) // 5)
        held_out, train, frames = train[:count], train[count:], []
    for record in train + held_out + frames:
        record["prompt"] = record["text"] + ASKED
        record["response"] = " " + rewards.write_labels(labels_of(record))
    cut = round(settings.labelled * len(train))
    if not 0 < cut < len(train) or len(held_out) < 2:
        raise cli.UserError(
            f"--labelled {settings.labelled} of {len(train)} sentences leaves "
            "none to show or none to judge: give more sentences or another "
            "share between 0 and 1."
        )
    return Data(train[:cut], train[cut:], held_out, frames)


def labels_of(record: Record) -> Record:
    """Returns the labels of a sentence by kind."""
    return {kind: record[kind] for kind in KINDS if kind in record}


def read_sentences(settings: Settings) -> list[Record]:
    """Reads the user's sentences."""
    from tfrlhf import data

    columns = dict(
        zip(KINDS, (settings.topic, settings.sentiment), strict=True)
    )
    found = []
    for record in data.load(
        settings.data, columns={"prompt": settings.text}, kind="prompts"
    ):
        if settings.sentiment not in record:
            raise cli.UserError(
                f"{record['_where']} has no {settings.sentiment!r}: name the "
                "column by --sentiment."
            )
        labels = {k: str(record[c]) for k, c in columns.items() if c in record}
        found.append({"text": record["prompt"]} | labels)
    return found


def print_result(summary: dict[str, Any]) -> None:
    """Prints the tables."""
    frames = {
        "held_out": f"{summary['sentences']} held-out sentences",
        "frames": "The same in frames that no training sentence has",
    }
    for part, found in summary["rules"].items():
        kinds = list(found["after"])
        columns = [f"{k} {m}" for k in kinds for m in ("accuracy", "macro-F1")]
        rows = [
            [TITLES[name]]
            + [
                measured.get(kind, {}).get(metric)
                for kind in kinds
                for metric in ("accuracy", "macro_f1")
            ]
            for name, measured in found.items()
        ]
        cli.print_table(frames[part], ("", *columns), rows)
    cli.print_table(
        f"Alert by sentiments of: {STREAM} items, the negative share jumps "
        f"from {SHARE} to {JUMPED_SHARE} after {JUMP}",
        ("", "found after the jump", "items until then", "alert without one"),
        [
            [TITLES[name]]
            + [found[key] for key in ("detected", "delay", "false_alarms")]
            for name, found in summary["alerts"].items()
        ],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
