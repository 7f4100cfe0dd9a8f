"""Search without training, against exact laws where there are any."""

import math

import keras
import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.learning import exact
from tests.learning import tables
from tfrlhf import rollout

LONG = tfrlhf.Sampler(max_new_tokens=8)
PROMPTS = ["The weather", "The park.", "今天公园，", "1234 trees"]


def letters(prompts, responses, **columns):
    """The share of ASCII letters."""
    return [
        sum(c.isascii() and c.isalpha() for c in r) / max(1, len(r))
        for r in responses
    ]


def likeness(text):
    """How many characters are those of the sentence; many texts tie."""
    return float(
        sum(a == b for a, b in zip(text, tables.SENTENCE, strict=False))
        - len(text) / 2
    )


def best_of_n_law(chances, scores, n):
    """P(best = y): the group of y's score wins, and y within the group."""
    law = []
    for chance, score in zip(chances, scores, strict=True):
        at_most = chances[scores <= score].sum()
        below = chances[scores < score].sum()
        group = at_most - below
        law.append((at_most**n - below**n) * chance / group)
    return np.array(law)


@pytest.fixture(scope="module")
def every():
    """All responses of the tabular policy: text to chance and score."""
    table = tables.start_table()
    found = {}
    for episode in exact.episodes(table, 0, tables.STOP, tables.LIMIT):
        text = "".join(tables.LETTERS[i] for i in episode.token_ids)
        found[text] = episode.probability, likeness(text)
    return found


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_best_follows_its_exact_law(every, n):
    trials = 1500
    found = tfrlhf.best_of_n(
        tables.policy(),
        lambda prompts, responses: [likeness(r) for r in responses],
        [tables.START] * trials,
        n,
        tables.SAMPLER,
        seed=7,
        batch_size=1000,
    )
    chances, scores = np.array(list(every.values())).T
    exactly = best_of_n_law(chances, scores, n)
    law = dict(zip(every, exactly, strict=True))
    assert exactly.sum() == pytest.approx(1.0, abs=1e-6)
    likely = sorted(law, key=law.get)[-8:]
    for text in likely:
        share = np.mean([r == text for r in found.responses])
        error = math.sqrt(law[text] * (1 - law[text]) / trials)
        assert abs(share - law[text]) < 4 * error, text
    expected = exactly @ scores
    error = found.scores.std() / trials**0.5
    assert abs(found.scores.mean() - expected) < 4 * error
    # The exact divergence keeps to the bound.
    exact_kl = np.sum(exactly * np.log(exactly / chances))
    assert -1e-9 <= exact_kl <= found.kl_bound + 1e-9
    assert found.kl_bound == pytest.approx(math.log(n) - 1 + 1 / n)


def test_the_bound_is_met_by_many_unlikely_responses():
    count, n = 20_000, 4
    at_most = np.arange(1, count + 1) / count
    law = at_most**n - (at_most - 1 / count) ** n
    kl = np.sum(law * np.log(law * count))
    assert kl == pytest.approx(tfrlhf.best_of_n_kl(n), abs=1e-4)
    assert tfrlhf.best_of_n_kl(1) == 0.0


def test_the_best_and_the_worst_make_a_pair():
    found = rollout.BestOfN(
        prompts=["a", "b", "c"],
        responses=["2", "1", "3"],
        scores=np.array([2.0, 1.0, 3.0]),
        all_responses=[["1", "2", "0"], ["1", "1", "1"], ["3", "0", "3 "]],
        all_scores=np.array([[1, 2, 0], [1, 1, 1], [3, 0, 3]], float),
        all_finished=np.ones([3, 3], int),
        kl_bound=0.0,
    )
    assert found.pairs() == [
        {"prompt": "a", "chosen": "2", "rejected": "0"},
        {"prompt": "c", "chosen": "3", "rejected": "0"},
    ]


@pytest.fixture(scope="module")
def policy():
    """Not to be changed; decodes 4 rows at a time in these tests."""
    return small.gpt2_policy(sharpness=4.0)


def test_what_is_returned_belongs_together(policy):
    seen = []

    def reward(prompts, responses, number, kind):
        seen.extend(zip(prompts, responses, number, kind, strict=True))
        return letters(prompts, responses)

    records = [
        {"prompt": p, "number": i, "kind": "a", "_where": "here"}
        for i, p in enumerate(PROMPTS[:3])
    ]
    found = tfrlhf.best_of_n(policy, reward, records, 3, LONG, 1, batch_size=4)
    assert found.prompts == PROMPTS[:3]
    assert found.all_scores.shape == found.all_finished.shape == (3, 3)
    flat = [r for row in found.all_responses for r in row]
    numbers = [i for i in range(3) for _ in range(3)]
    # The shortest prompts come first.
    assert [s[2] for s in seen] != numbers
    seen.sort(key=lambda each: each[2])
    assert [(s[1], s[2]) for s in seen] == list(zip(flat, numbers, strict=True))
    assert [s[0] for s in seen] == [PROMPTS[i] for i in numbers]
    np.testing.assert_allclose(
        found.all_scores.ravel(), letters(None, flat), rtol=1e-6
    )
    np.testing.assert_array_equal(found.scores, found.all_scores.max(axis=1))
    for row, best in enumerate(found.all_scores.argmax(axis=1)):
        assert found.responses[row] == found.all_responses[row][best]
    # Rows of one prompt and of two batches are drawn apart.
    assert len(set(flat)) == 9
    again = tfrlhf.best_of_n(policy, reward, records, 3, LONG, 1, batch_size=4)
    assert again.all_responses == found.all_responses
    other = tfrlhf.best_of_n(policy, reward, records, 3, LONG, 2, batch_size=4)
    assert other.all_responses != found.all_responses


@pytest.mark.parametrize("shares", [True, False], ids=["ids", "text"])
def test_reward_models_score_as_in_ppo(policy, shares):
    reward = small.reward_model(sharpness=4.0)
    if not shares:
        reward.tokenizer = tfrlhf.Tokenizer.train(["The park is"] * 3, 270)
    shortest_first = [PROMPTS[1], PROMPTS[0]]
    found = tfrlhf.best_of_n(policy, reward, shortest_first, 2, LONG, 3)
    twice = [p for p in shortest_first for _ in range(2)]
    completions = policy.generate(
        policy.encode_prompts(twice, 8), sampler=LONG, seed=3
    )
    responses = policy.decode_responses(completions)
    assert [r for row in found.all_responses for r in row] == responses
    read = twice, responses
    if shares:
        read = rollout.with_end(completions, policy.tokenizer.eos_id)
    np.testing.assert_allclose(
        found.all_scores.ravel(), reward.score(*read), rtol=0, atol=1e-5
    )


# Rejection sampling.


def fixed(monkeypatch, responses, scores, finished):
    """Stands in for the search, one prompt."""
    found = rollout.BestOfN(
        ["Q"],
        [],
        np.max([scores], axis=1),
        [responses],
        np.array([scores]),
        np.array([finished]),
        0.0,
    )
    monkeypatch.setattr(rollout.search, "best_of_n", lambda *_: found)


@pytest.mark.parametrize(
    ("threshold", "kept"), [(None, ["b"]), (0.5, ["a", "b"]), (0.95, [])]
)
def test_what_is_kept(policy, monkeypatch, threshold, kept):
    fixed(
        monkeypatch,
        ["a", "b", "cut", " ", "a", "d"],
        [0.5, 0.9, 1.0, 2.0, 0.5, 0.1],
        [1, 1, 0, 1, 1, 1],
    )

    def sample():
        return tfrlhf.rejection_sample(
            policy, letters, ["Q"], 6, LONG, threshold
        )

    if not kept:
        with pytest.raises(ValueError, match="None of 6 .* 5 ended"):
            sample()
        return
    scores = {"a": 0.5, "b": 0.9}
    assert sample() == [
        {"prompt": "Q", "response": r, "score": scores[r]} for r in kept
    ]


def test_a_sampler_without_stop_keeps_what_was_cut(policy, monkeypatch):
    fixed(monkeypatch, ["a", "b"], [0.0, 1.0], [0, 0])
    sampler = tfrlhf.Sampler(max_new_tokens=8, stop_token_ids=())
    (kept,) = tfrlhf.rejection_sample(policy, letters, ["Q"], 2, sampler)
    assert kept["response"] == "b"


def test_learning_from_the_winners_raises_the_reward():
    policy = small.gpt2_policy(sharpness=3.0)
    sampler = tfrlhf.Sampler(max_new_tokens=8, stop_token_ids=())
    prompts = PROMPTS * 8

    def mean_score(seed):
        return tfrlhf.best_of_n(
            policy, letters, prompts, 1, sampler, seed, batch_size=32
        ).scores

    before = mean_score(99)
    records = tfrlhf.rejection_sample(
        policy, letters, prompts, 8, sampler, batch_size=32
    )
    assert len(records) == len(prompts)
    sft = tfrlhf.SFT(policy)
    sft.compile(keras.optimizers.Adam(5e-3), jit_compile=False)
    sft.fit(records, batch_size=32, epochs=12, verbose=0)
    after = mean_score(99)
    error = math.hypot(before.std(), after.std()) / len(prompts) ** 0.5
    assert after.mean() - before.mean() > 3 * error


def test_wrong_arguments_are_refused(policy):
    for prompts, n, message in [
        (PROMPTS, 0, "`n` must be at least 1. Received: n=0"),
        ([], 2, "`prompts` is empty"),
        ("The", 2, "Received one string"),
        ([{"text": "a"}], 2, "Prompt 0 must be a string, a list of messages"),
    ]:
        with pytest.raises(ValueError, match=message):
            tfrlhf.best_of_n(policy, letters, prompts, n, LONG)
