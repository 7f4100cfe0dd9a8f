"""Learns from clicks which items to show first.

    python recipes/recommend.py
    python recipes/recommend.py --data sessions.jsonl

A session is a reader's profile, the books that were shown, best place first,
and which were clicked. What was skipped above a click was seen and left
(Joachims, 2002): each click becomes a list in which the clicked book is better
than the nearest skipped ones above it, and a reward model learns to score
lists by the ranking loss, on a language model that has read which book was
clicked by whom. Prints NDCG@5 and the mean reciprocal rank on
readers that no training session has, beside random order, the order shown,
popularity, shared words and the true order.

Books, readers and clicks are authored and simulated: recipes/data/books.json
has the parts. A hidden preference (genre, place, mood, how good the author is)
decides what a reader would click; the lower a place, the less it is looked at;
some clicks are by mistake. Profile and books say the same things in different
words, so that counting shared words does not help. Clicks are collected in
random order: where good books are always above (--shuffled 0), a click below
what was skipped speaks against the order itself, and the lists of clicks with
skipped ones above teach to turn it round.
"""

import dataclasses
import json
import math
import pathlib
import random
from collections import Counter
from typing import Any

from tfrlhf import cli

PARTS = pathlib.Path(__file__).with_name("data") / "books.json"
SHOWN = 8
TOP = 5
HELD_OUT = 400
BLOCKS = 20
"""Groups of sessions whose spread gives the standard error."""

Record = dict[str, Any]


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to learn from, and for how long."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """JSONL of {"prompt", "responses", "clicks"}; simulated if not given."""
    loss: str = "listwise"
    """listwise or pairwise ranking."""
    compare: str = "skipped"
    """skipped: with what was skipped above; all: with all without a click."""
    rivals: int = 3
    """The most books that a clicked one is compared with."""
    sessions: int = 4000
    """Simulated sessions to learn from, of as many readers."""
    shuffled: float = 1.0
    """Share of them in which books are shown in random order."""
    read_epochs: int = 4
    """Of a model from scratch, over clicked books."""
    epochs: int = 5
    batch_size: int = 32
    learning_rate: float = 1e-3


def main(settings: Settings) -> None:
    """Trains a ranker of items on clicks."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, sessions=500, read_epochs=1, epochs=2
        )
    for name, allowed in (
        ("loss", ("listwise", "pairwise")),
        ("compare", ("skipped", "all")),
    ):
        if getattr(settings, name) not in allowed:
            raise cli.UserError(
                f"--{name} must be {' or '.join(allowed)}, not "
                f"{getattr(settings, name)!r}."
            )
    run = cli.Run("recommend", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    train, held_out = load_data(settings)

    # 1. Clicks say which of two books is better, where both were seen.
    lists = preferences(train, settings)

    # 2. A language model reads what who clicked, if none is given.
    if settings.model is None:
        run.stage("reading", "Reading", lambda: read(run, settings, train))

    # 3. A reward model on it learns to order the lists.
    run.stage("ranking", "Ranking", lambda: learn(run, settings, lists))

    # 4. Readers that no training session has.
    measured = run.stage(
        "evaluation",
        "Evaluation",
        lambda: evaluate(run, settings, train, held_out),
    )
    samples = measured.pop("samples")
    summary = measured | {
        "sessions": len(train),
        "lists": len(lists),
        "seconds": run.seconds,
        "peak_memory_mb": cli.peak_memory_mb(),
    }
    run.write_summary(summary)
    print_result(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def preferences(sessions: list[Record], settings: Settings) -> list[Record]:
    """Makes a list of each click: the clicked item, then its rivals."""
    found = []
    for session in sessions:
        shown, clicks = session["responses"], session["clicks"]
        for place in range(len(shown)):
            if not clicks[place]:
                continue
            others = range(place)
            if settings.compare == "all":
                others = range(len(shown))
            left = [
                shown[i]
                for i in sorted(others, key=lambda i: abs(i - place))
                if not clicks[i] and shown[i] != shown[place]
            ]
            rivals = list(dict.fromkeys(left))[: settings.rivals]
            if rivals:
                found.append(
                    {
                        "prompt": session["prompt"],
                        "responses": [shown[place], *rivals],
                        "ranks": [0] + [1] * len(rivals),
                    }
                )
    if not found:
        raise cli.UserError(
            "No session has a click below an item without one: give more "
            "sessions, or --compare all."
        )
    return found


def read(
    run: cli.Run, settings: Settings, train: list[Record]
) -> dict[str, Any]:
    """Makes a language model of profiles and the books they clicked."""
    import keras

    import tfrlhf

    policy = tfrlhf.small_policy(
        [s["prompt"] + r for s in train for r in s["responses"]],
        vocabulary_size=768,
        layers=2,
    )
    examples = [
        {"prompt": s["prompt"], "response": item}
        for s in train
        for item, click in zip(s["responses"], s["clicks"], strict=True)
        if click
    ]
    sft = tfrlhf.SFT(policy, learn_prompts=True)
    steps = settings.read_epochs * -(-len(examples) // 32)
    sft.compile(
        keras.optimizers.AdamW(cli.cosine(3e-3, steps), weight_decay=0.1)
    )
    history = sft.fit(
        examples,
        batch_size=32,
        epochs=settings.read_epochs,
        seed=settings.seed,
        callbacks=run.watchers("reading", {"loss": "nats/token"}),
        verbose=0,
    )
    with cli.writing(run.models / "reader") as directory:
        policy.save_to_preset(directory)
    return {"clicks": len(examples), "loss": history.history["loss"][-1]}


def learn(
    run: cli.Run, settings: Settings, lists: list[Record]
) -> dict[str, Any]:
    """Trains the reward model and saves it."""
    import keras

    import tfrlhf
    from tfrlhf import losses

    policy = tfrlhf.Policy.from_preset(settings.model or run.models / "reader")
    reward = tfrlhf.RewardModel.from_policy(policy)
    steps = settings.epochs * -(-len(lists) // settings.batch_size)
    reward.compile(
        keras.optimizers.AdamW(
            cli.cosine(settings.learning_rate, steps), weight_decay=0.1
        ),
        losses.ListwiseRanking()
        if settings.loss == "listwise"
        else losses.PairwiseRanking(),
    )
    history = reward.fit(
        lists,
        batch_size=settings.batch_size,
        epochs=settings.epochs,
        seed=settings.seed,
        callbacks=run.watchers(
            "ranking", {"loss": "loss", "accuracy": "accuracy"}
        ),
        verbose=0,
    )
    with cli.writing(run.models / "ranker") as directory:
        reward.save_to_preset(directory)
    return {
        "loss_first": history.history["loss"][0],
        "loss_last": history.history["loss"][-1],
    }


def evaluate(
    run: cli.Run,
    settings: Settings,
    train: list[Record],
    held_out: list[Record],
) -> dict[str, Any]:
    """Orders the lists of held-out readers in several ways."""
    import numpy as np

    import tfrlhf
    from tfrlhf.rewards import words

    reward = tfrlhf.RewardModel.from_preset(run.models / "ranker")
    held_out = [s for s in held_out if len(set(s["grades"])) > 1]
    if len(held_out) < BLOCKS:
        raise cli.UserError(
            f"{len(held_out)} held-out sessions have a better and a worse "
            f"item, {BLOCKS} are needed: give more sessions."
        )
    clicked, shown = popularity(train)
    draw = np.random.default_rng(settings.seed)
    pairs = [(s["prompt"], r) for s in held_out for r in s["responses"]]
    flat: dict[str, Any] = {
        "random": draw.random(len(pairs)),
        "shown": [
            -place for s in held_out for place in range(len(s["responses"]))
        ],
        "popular": [(clicked[r] + 1) / (shown[r] + 10) for _, r in pairs],
        "shared_words": [
            float(len(set(words(p)) & set(words(r)))) for p, r in pairs
        ],
        "ranker": reward.score(*map(list, zip(*pairs, strict=True))),
        "truth": [g for s in held_out for g in s["grades"]],
    }
    if settings.model is None:
        reader = tfrlhf.Policy.from_preset(run.models / "reader")
        unlikely = reader.perplexity(*map(list, zip(*pairs, strict=True)))
        flat["reader"] = -unlikely
    result: dict[str, Any] = {"held_out": len(held_out), "orders": {}}
    for name, scores in flat.items():
        result["orders"][name] = quality(held_out, np.asarray(scores, float))
    scores = np.asarray(flat["ranker"])
    result["samples"] = [
        sample(held_out[i], scores[i * SHOWN : (i + 1) * SHOWN])
        for i in range(3)
        if settings.data is None
    ]
    return result


def quality(sessions: list[Record], scores: Any) -> dict[str, list[float]]:
    """Measures an order: mean and standard error over blocks of sessions."""
    import numpy as np

    from tfrlhf import evaluation

    width = max(len(s["grades"]) for s in sessions)
    table = np.zeros([len(sessions), width])
    ranks = np.full([len(sessions), width], -1)
    start = 0
    for row, session in enumerate(sessions):
        grades = np.asarray(session["grades"])
        ranks[row, : len(grades)] = grades.max() - grades
        table[row, : len(grades)] = scores[start : start + len(grades)]
        start += len(grades)
    blocks = [
        evaluation.ranking_quality(table[rows], ranks[rows], k=TOP)
        for rows in np.array_split(np.arange(len(sessions)), BLOCKS)
    ]
    whole = evaluation.ranking_quality(table, ranks, k=TOP)
    return {
        name: [
            value,
            float(np.std([b[name] for b in blocks], ddof=1) / BLOCKS**0.5),
        ]
        for name, value in whole.items()
    }


def popularity(sessions: list[Record]) -> tuple[Counter[str], Counter[str]]:
    """Counts how often each item was clicked, and shown."""
    clicked: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    for session in sessions:
        for item, click in zip(
            session["responses"], session["clicks"], strict=True
        ):
            clicked[item] += int(click)
            shown[item] += 1
    return clicked, shown


def sample(session: Record, scores: Any) -> list[str]:
    """Returns a profile and the three items put first, before and after."""

    def first(order: Any) -> str:
        return "; ".join(
            f"{session['responses'][i].strip()} ({session['grades'][i]})"
            for i in list(order)[:3]
        )

    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    return [session["prompt"], first(range(3)), first(order)]


def load_data(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Returns sessions to learn from, and of readers that are held out."""
    draw = random.Random(settings.seed)
    if settings.data is None:
        return simulated(draw, settings)
    sessions = read_sessions(settings.data)
    prompts = list(dict.fromkeys(s["prompt"] for s in sessions))
    draw.shuffle(prompts)
    unseen = set(prompts[: math.ceil(0.1 * len(prompts))])
    return (
        [s for s in sessions if s["prompt"] not in unseen],
        [s for s in sessions if s["prompt"] in unseen],
    )


def read_sessions(path: pathlib.Path) -> list[Record]:
    """Reads the user's sessions; of relevance only their clicks are known."""
    from tfrlhf import data

    sessions = data.read_jsonl(path, ("prompt", "responses", "clicks"))
    for session in sessions:
        if len(session["responses"]) != len(session["clicks"]):
            raise cli.UserError(
                f"{session['_where']}: `clicks` must have a 0 or 1 for each "
                "of `responses`."
            )
        session["grades"] = [int(bool(x)) for x in session["clicks"]]
    return sessions


def simulated(
    draw: random.Random, settings: Settings
) -> tuple[list[Record], list[Record]]:
    """Simulates readers with a session each.

    Those who are held out see the order of the shop.
    """
    parts = json.loads(PARTS.read_text("utf-8"))
    catalogue = books(draw, parts, 400)
    good = {a: draw.gauss(0.0, 0.7) for a in parts["authors"]}
    train = [
        session(draw, parts, catalogue, good, draw.random() < settings.shuffled)
        for _ in range(settings.sessions)
    ]
    held_out = [
        session(draw, parts, catalogue, good, False) for _ in range(HELD_OUT)
    ]
    known = {s["prompt"] for s in train}
    return train, [s for s in held_out if s["prompt"] not in known]


def books(
    draw: random.Random, parts: dict[str, Any], count: int
) -> list[dict[str, str]]:
    """Makes different books."""
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        book = {
            "genre": draw.choice(list(parts["genres"])),
            "setting": draw.choice(list(parts["settings"])),
            "mood": draw.choice(list(parts["moods"])),
            "author": draw.choice(parts["authors"]),
        }
        title = f"{draw.choice(parts['first_words'])} "
        title += draw.choice(parts["last_words"])
        text = (
            f" {title}, a {book['mood']} {book['genre']} set "
            f"{book['setting']}, by {book['author']}"
        )
        found[text] = book | {"text": text}
    return list(found.values())


def session(
    draw: random.Random,
    parts: dict[str, Any],
    catalogue: list[dict[str, str]],
    good: dict[str, float],
    shuffled: bool,
) -> Record:
    """Simulates a reader: a profile, books in places, clicks.

    Utility is 1.5 for a genre liked, 1 for a place liked, -1 for a mood
    disliked, and how good the author is. A place is looked at with a chance
    of 1 / place^0.7; what is looked at is clicked with sigmoid(3·(utility -
    1.5)), anything else with 0.02. The shop's order follows the authors.
    """
    genres = draw.sample(list(parts["genres"]), 2)
    settings = draw.sample(list(parts["settings"]), 2)
    mood = draw.choice(list(parts["moods"]))
    enjoys = [draw.choice(parts["genres"][x]) for x in genres]
    enjoys += [draw.choice(parts["settings"][x]) for x in settings]
    shown = draw.sample(catalogue, SHOWN)
    shown.sort(key=lambda b: good[b["author"]] + draw.gauss(0.0, 0.7))
    shown.reverse()
    if shuffled:
        draw.shuffle(shown)
    clicks, grades = [], []
    for place, book in enumerate(shown, start=1):
        utility = (
            1.5 * (book["genre"] in genres)
            + (book["setting"] in settings)
            - (book["mood"] == mood)
            + good[book["author"]]
        )
        seen = draw.random() < place**-0.7
        likes = draw.random() < 1 / (1 + math.exp(-3 * (utility - 1.5)))
        mistake = draw.random() < 0.02
        clicks.append(int((seen and likes) or mistake))
        # 0 to 3: what a rater would say who knew all.
        grades.append(min(3, max(0, round(utility))))
    return {
        "prompt": f"Enjoys {', '.join(enjoys)}; no {parts['moods'][mood]}.\n"
        "Book:",
        "responses": [book["text"] for book in shown],
        "clicks": clicks,
        "grades": grades,
    }


def print_result(summary: Record) -> None:
    """Prints the table."""
    titles = {
        "random": "random order",
        "shown": "the order of the shop",
        "popular": "clicks of an item before",
        "shared_words": "words shared with the profile",
        "reader": "likelihood of a clicked item",
        "ranker": "ranking loss on clicks",
        "truth": "the true order",
    }
    cli.print_table(
        f"{summary['held_out']} held-out sessions",
        ("", f"NDCG@{TOP}", f"MRR@{TOP}"),
        [
            [
                titles[name],
                *(
                    "{:.3f} ± {:.3f}".format(*found[metric])
                    for metric in ("ndcg", "mrr")
                ),
            ]
            for name, found in (
                (name, summary["orders"].get(name)) for name in titles
            )
            if found
        ],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
