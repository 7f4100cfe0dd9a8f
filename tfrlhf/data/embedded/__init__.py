"""The corpus that ships with the package: shop reviews and their replies.

Written for this project, English and simplified Chinese in equal parts. A line
of `reviews_*.jsonl` is a review with three replies, from warm to curt, or a
review that is held out. The replies' order is not read: `rewards.courtesy`
says which of two is the better one, so that what a reward model learns can be
measured. This file knows no tokenizer.
"""

import json
import random
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from tfrlhf.rewards import courtesy

FLIPPED = 0.1
HELD_OUT_REVIEWS = 20  # of each language, for `held_out_preferences`

# The prompt around a review, and what stands before a reply, so that the reply
# begins with a new token.
FRAMES = {
    "en": ("Review: {}\nReply:", " "),
    "zh": ("评价：{}\n回复：", ""),
}

Record = dict[str, str]


class Corpus(NamedTuple):
    """The embedded task; every list is shuffled.

    Attributes:
        examples: {"prompt", "response"}; all three replies to each training
            review, the curt ones too.
        preferences: {"prompt", "chosen", "rejected"}; all pairs of replies to
            a training review that courtesy tells apart, a tenth of them the
            wrong way round.
        held_out_preferences: the same for 40 other training reviews, none the
            wrong way round, to measure a reward model's accuracy. Their
            replies are among the examples.
        prompts: the 1159 training reviews.
        held_out_prompts: the 240 reviews no reply was written for.
    """

    examples: list[Record]
    preferences: list[Record]
    held_out_preferences: list[Record]
    prompts: list[str]
    held_out_prompts: list[str]


def load(seed: int = 0) -> Corpus:
    """Reads the corpus; equal seeds give equal lists.

    Args:
        seed: decides the orders, the flipped labels and the reviews of
            `held_out_preferences`; never which prompts are held out.

    Returns:
        The corpus.

    Example:
        >>> corpus = load()
        >>> len(corpus.examples), len(corpus.prompts)
        (3477, 1159)
    """
    order = random.Random(seed)
    replies: dict[str, list[str]] = {}
    unseen: list[str] = []
    measured: list[str] = []
    for language in FRAMES:
        rows = _read(language)
        trained = {prompt: texts for prompt, texts in rows if texts}
        replies |= trained
        measured += order.sample(list(trained), HELD_OUT_REVIEWS)
        unseen += [prompt for prompt, texts in rows if not texts]
    examples = [
        {"prompt": prompt, "response": reply}
        for prompt, texts in replies.items()
        for reply in texts
    ]
    preferences: list[Record] = []
    held_out_preferences: list[Record] = []
    for prompt, texts in replies.items():
        split = held_out_preferences if prompt in measured else preferences
        split += _pairs(prompt, texts)
    corpus = Corpus(
        examples, preferences, held_out_preferences, list(replies), unseen
    )
    for part in corpus:
        order.shuffle(part)
    flips = round(FLIPPED * len(preferences))
    for pair in order.sample(preferences, flips):
        pair["chosen"], pair["rejected"] = pair["rejected"], pair["chosen"]
    return corpus


def _read(language: str) -> list[tuple[str, list[str]]]:
    """Prompts with their replies; a held-out prompt has none."""
    path = Path(__file__).with_name(f"reviews_{language}.jsonl")
    frame, space = FRAMES[language]
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        replies = [space + reply for reply in record.get("replies", [])]
        rows.append((frame.format(record["review"]), replies))
    return rows


def _pairs(prompt: str, replies: list[str]) -> list[Record]:
    scores = courtesy([prompt] * len(replies), replies)
    ranked = sorted(zip(scores, replies, strict=True), reverse=True)
    return [
        {"prompt": prompt, "chosen": better, "rejected": worse}
        for (high, better), (low, worse) in combinations(ranked, 2)
        if high > low
    ]
