"""Authored finance news: sentences with a topic and a sentiment.

`news.json` has nouns of four topics, verbs, frames, times and parts of firms'
names, written for this project. What went up or down decides the sentiment
only together with the noun (profit, loss); some frames have an aside on another
topic.
"""

import functools
import json
import random
import zlib
from pathlib import Path
from typing import Any

POLARITY = {
    ("good", "up"): "positive",
    ("good", "down"): "negative",
    ("bad", "up"): "negative",
    ("bad", "down"): "positive",
}


def write(
    draw: random.Random,
    count: int,
    held_out: bool = False,
    frames: str = "frames",
) -> list[dict[str, str]]:
    """Puts sentences together out of the parts.

    Args:
        draw: the random numbers.
        count: how many, all different.
        held_out: whether with the fifth of firms, and of pairs of noun and
            verb, that is held out whatever the seed, or with the others.
        frames: "frames", or "held_out_frames" for two others.

    Returns:
        Records {"text", "topic", "sentiment"}; the topic is earnings, rates,
        mergers or markets, the sentiment positive, neutral or negative.

    Example:
        >>> write(random.Random(0), 1)[0]["topic"]
        'markets'
    """
    parts = read_parts()
    found: dict[str, dict[str, str]] = {}
    while len(found) < count:
        topic, aside_topic = draw.sample(list(parts["topics"]), 2)
        main, sentiment = clause(draw, parts, topic, held_out)
        aside, _ = clause(draw, parts, aside_topic, False)
        firm = draw.choice(parts["firm_starts"])
        firm += draw.choice(parts["firm_ends"])
        if _is_held_out(firm) != held_out:
            continue
        frame, time = draw.choice(parts[frames]), draw.choice(parts["times"])
        text = frame.format(main=main, aside=aside, firm=firm, time=time)
        text = text[0].upper() + text[1:]
        found[text] = {"text": text, "topic": topic, "sentiment": sentiment}
    return list(found.values())


@functools.cache
def read_parts() -> dict[str, Any]:
    """Reads what sentences are made of."""
    path = Path(__file__).with_name("news.json")
    return dict(json.loads(path.read_text("utf-8")))


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
        if _is_held_out(text) == held_out:
            return text, POLARITY.get((kind, direction), "neutral")


def _is_held_out(text: str) -> bool:
    """Picks a fifth of all texts, whatever the seed."""
    return zlib.crc32(text.encode()) % 5 == 0
