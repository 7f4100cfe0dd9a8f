"""The authored finance news."""

import doctest
import random

from tfrlhf.data.embedded import news


def test_held_out_sentences_have_parts_of_their_own():
    parts = news.read_parts()
    draw = random.Random(1)
    train = news.write(draw, 600)
    held_out = news.write(draw, 200, held_out=True)
    assert len({s["text"] for s in train + held_out}) == 800
    pairs = {
        (noun, verb)
        for kinds in parts["topics"].values()
        for nouns in kinds.values()
        for noun in nouns
        for verbs in parts["verbs"].values()
        for verb in verbs
    }
    unseen = {
        f"{noun} {verb}"
        for noun, verb in pairs
        if not any(f"{noun} {verb}" in s["text"].lower() for s in train)
    }
    assert 0.1 < len(unseen) / len(pairs) < 0.7
    firms = {a + b for a in parts["firm_starts"] for b in parts["firm_ends"]}
    known = {firm for firm in firms if any(firm in s["text"] for s in train)}
    assert len(known) > 100
    for sentence in held_out:
        assert any(pair in sentence["text"].lower() for pair in unseen)
        assert not any(firm in sentence["text"] for firm in known)
    counts = [
        sum(s["sentiment"] == x for s in train)
        for x in ("negative", "neutral", "positive")
    ]
    assert min(counts) > 120


def test_the_sentiment_of_a_clause():
    parts = {
        "topics": {"rates": {"good": ["hope"], "bad": ["fear"]}},
        "verbs": {
            "up": [f"rose {i}" for i in range(9)],
            "down": [f"fell {i}" for i in range(9)],
            "flat": [f"stood {i}" for i in range(9)],
        },
    }
    draw = random.Random(0)
    found = [news.clause(draw, parts, "rates", False) for _ in range(300)]
    assert {(*text.split()[:2], named) for text, named in found} == {
        ("hope", "rose", "positive"),
        ("hope", "fell", "negative"),
        ("hope", "stood", "neutral"),
        ("fear", "rose", "negative"),
        ("fear", "fell", "positive"),
        ("fear", "stood", "neutral"),
    }


def test_the_example_in_the_docstring_holds():
    failed, attempted = doctest.testmod(news)
    assert attempted > 0
    assert failed == 0
