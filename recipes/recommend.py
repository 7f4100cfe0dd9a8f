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
CHOICES = {"loss": ("listwise", "pairwise"), "compare": ("skipped", "all")}
TITLES = {
    "random": "random order",
    "shown": "the order of the shop",
    "popular": "clicks of an item before",
    "shared_words": "words shared with the profile",
    "reader": "likelihood of a clicked item",
    "ranker": "ranking loss on clicks",
    "truth": "the true order",
}


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
    for name, allowed in CHOICES.items():
        if getattr(settings, name) not in allowed:
            raise cli.UserError(
                f"--{name} must be {' or '.join(allowed)}, not "
                f"{getattr(settings, name)!r}."
            )
    run = cli.Run("recommend", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    from tfrlhf import data

    train, held_out = load_data(settings)

    # 1. Clicks say which of two books is better, where both were seen.
    lists = data.click_preferences(train, settings.compare, settings.rivals)

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
    counts = {"sessions": len(train), "lists": len(lists)}
    summary = run.write_summary(measured | counts)
    print_result(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def read(
    run: cli.Run, settings: Settings, train: list[Record]
) -> dict[str, Any]:
    """Makes a language model of profiles and the books they clicked."""
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
    losses = cli.fine_tune(
        run,
        policy,
        examples,
        rate=3e-3,
        epochs=settings.read_epochs,
        stage="reading",
    )
    run.save(policy, "reader")
    return {"clicks": len(examples), "loss": losses[-1]}


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
    history = run.fit(
        reward,
        lists,
        "ranking",
        {"loss": "loss", "accuracy": "accuracy"},
        batch_size=settings.batch_size,
        epochs=settings.epochs,
    )
    run.save(reward, "ranker")
    return {"loss_first": history["loss"][0], "loss_last": history["loss"][-1]}


def evaluate(
    run: cli.Run,
    settings: Settings,
    train: list[Record],
    held_out: list[Record],
) -> dict[str, Any]:
    """Orders the lists of held-out readers in several ways."""
    import numpy as np

    import tfrlhf
    from tfrlhf import evaluation
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
    result: Record = {"held_out": len(held_out), "orders": {}}
    ends = np.cumsum([len(s["responses"]) for s in held_out])[:-1]
    grades = [s["grades"] for s in held_out]
    for name, scores in flat.items():
        each = np.split(np.asarray(scores, float), ends)
        found = evaluation.ranking_estimates(each, grades, TOP, BLOCKS)
        result["orders"][name] = {x: list(found[x]) for x in found}
    ranked = np.split(np.asarray(flat["ranker"]), ends)
    samples = map(sample, held_out[:3], ranked)
    result["samples"] = list(samples) if settings.data is None else []
    return result


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
    orders = summary["orders"]
    cli.print_table(
        f"{summary['held_out']} held-out sessions",
        ("", f"NDCG@{TOP}", f"MRR@{TOP}"),
        [
            (title, orders[name]["ndcg"], orders[name]["mrr"])
            for name, title in TITLES.items()
            if name in orders
        ],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
