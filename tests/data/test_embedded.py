"""The shipped corpus: what is in it, and that nothing leaks."""

import json
from itertools import combinations
from pathlib import Path

import pytest

from tfrlhf.data import embedded
from tfrlhf.rewards import courtesy
from tfrlhf.rewards.courtesy import words

FOLDER = Path(embedded.__file__).parent


@pytest.fixture(scope="module")
def corpus():
    return embedded.load(seed=0)


def read(language):
    text = (FOLDER / f"reviews_{language}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def margin(pair):
    chosen, rejected = courtesy(
        [pair["prompt"]] * 2, [pair["chosen"], pair["rejected"]]
    )
    return chosen - rejected


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_file_holds_its_training_and_120_held_out_reviews(language):
    rows = read(language)
    training = [row for row in rows if "replies" in row]
    held_out = [row for row in rows if "replies" not in row]
    assert len(training) == {"en": 579, "zh": 580}[language]
    assert len(held_out) == 120
    assert all(set(row) == {"review", "replies"} for row in training)
    assert all(len(row["replies"]) == 3 for row in training)
    assert all(row["held_out"] is True for row in held_out)


def test_no_text_occurs_twice():
    rows = read("en") + read("zh")
    texts = [row["review"] for row in rows]
    texts += [reply for row in rows for reply in row.get("replies", [])]
    assert all(text == text.strip() != "" for text in texts)
    assert len(set(texts)) == len(texts)


def test_no_two_reviews_are_nearly_equal():
    bags = [set(words(row["review"])) for row in read("en") + read("zh")]
    for one, other in combinations(bags, 2):
        assert len(one & other) <= 0.8 * len(one | other)


def test_counts(corpus):
    assert len(corpus.examples) == 3477
    assert len(corpus.prompts) == len(set(corpus.prompts)) == 1159
    assert len(corpus.held_out_prompts) == 240
    assert 3300 <= len(corpus.preferences) <= 3400
    assert 110 <= len(corpus.held_out_preferences) <= 120


def test_prompts_and_replies_are_framed(corpus):
    for example in corpus.examples:
        prompt, response = example["prompt"], example["response"]
        if prompt.startswith("Review: "):
            assert prompt.endswith("\nReply:")
            assert response[0] == " " and response[1] != " "
        else:
            assert prompt.startswith("评价：") and prompt.endswith("\n回复：")
            assert response == response.strip()


def test_held_out_prompts_are_nowhere_else(corpus):
    held_out = set(corpus.held_out_prompts)
    assert not held_out & set(corpus.prompts)
    for part in corpus[:3]:
        assert not held_out & {record["prompt"] for record in part}


def test_held_out_preferences_are_40_other_reviews(corpus):
    measured = {pair["prompt"] for pair in corpus.held_out_preferences}
    learned = {pair["prompt"] for pair in corpus.preferences}
    english = [prompt for prompt in measured if prompt.startswith("Review")]
    assert (len(measured), len(english)) == (40, 20)
    assert not measured & learned


@pytest.mark.parametrize("seed", [0, 1])
def test_a_tenth_of_the_labels_is_flipped(seed):
    corpus = embedded.load(seed)
    margins = [margin(pair) for pair in corpus.preferences]
    flipped = sum(value < 0 for value in margins)
    assert flipped == round(0.1 * len(margins))
    assert all(value != 0 for value in margins)
    assert all(margin(pair) > 0 for pair in corpus.held_out_preferences)


def test_the_seed_decides_everything_but_what_is_held_out(corpus):
    assert embedded.load(seed=0) == corpus
    other = embedded.load(seed=1)
    for mine, its in zip(corpus, other, strict=True):
        assert mine != its
    assert sorted(corpus.prompts) == sorted(other.prompts)
    assert sorted(corpus.held_out_prompts) == sorted(other.held_out_prompts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_warm_replies_score_over_plain_over_curt(language):
    rows = [row for row in read(language) if "replies" in row]
    reviews = [row["review"] for row in rows]
    warm, plain, curt = (
        sum(courtesy(reviews, [row["replies"][kind] for row in rows]))
        / len(rows)
        for kind in range(3)
    )
    assert warm > 2.3
    assert -0.1 < plain < 0.6
    assert curt < -0.5
