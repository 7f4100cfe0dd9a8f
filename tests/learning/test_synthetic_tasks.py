"""Tasks whose scores can be had in full: numbers that rise, dates in text.

Of the kind of https://arxiv.org/abs/2210.01241 (RL4LMs), with scores in [0, 1]
that also count what is there in part.
"""

import keras
import numpy as np
import pytest

import tfrlhf
from tests.learning import writing

COUNTING = ["count from", "numbers up to", "count up the numbers", "and then"]
NOTES = ["the meeting is ", "we go there ", "it arrives ", "the film starts "]
OTHER_TIMES = ["on monday.", "next week.", "in may.", "soon.", "at noon."]


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("0 3 5 11 19", 1.0),
        ("1 2 2 3 4", 0.4),
        ("7 up 8 9 10", 0.2),
        ("count 1 2 3 4", 0.0),
        ("1 2 3", 0.6),
        ("", 0.0),
    ],
)
def test_the_score_of_numbers(response, score):
    assert writing.increasing_numbers([""], [response]) == [score]


@pytest.mark.parametrize(
    ("response", "score"),
    [
        ("on 12/05/2021.", 1.0),
        ("31/12/1999", 1.0),
        ("12/13/1999", 0.4),
        # 01/1 might become a date, 32 not.
        ("32/01/1999", 0.4),
        ("on 3/8", 0.1),
        ("on monday.", 0.0),
        ("", 0.0),
    ],
)
def test_the_score_of_dates(response, score):
    assert writing.date_in_text([""], [response]) == [score]


def notes(seed):
    """Prompts with times, one in five of which is a date."""
    rng = np.random.default_rng(seed)

    def time():
        if rng.random() < 0.2:
            day, month = rng.integers(1, 29), rng.integers(1, 13)
            return f"on {day:02d}/{month:02d}/{rng.integers(1950, 2030)}."
        return rng.choice(OTHER_TIMES)

    return [{"prompt": NOTES[i % 4], "response": time()} for i in range(512)]


def improve(policy, reward, prompts, iterations, max_new_tokens, seed):
    """The mean score of 256 samples before PPO and after it."""
    ppo = tfrlhf.PPO(policy, reward, tfrlhf.ValueModel.from_policy(policy))
    update_epochs = 6
    rate = keras.optimizers.schedules.CosineDecay(
        5e-3, iterations * update_epochs, alpha=0.1
    )
    ppo.compile(
        keras.optimizers.Adam(rate),
        sampler=tfrlhf.Sampler(max_new_tokens=max_new_tokens),
        kl=tfrlhf.FixedKL(0.01),
        update_epochs=update_epochs,
        value_optimizer=keras.optimizers.Adam(5e-3),
        jit_compile=False,
    )

    def mean_score():
        return ppo.evaluate(prompts * 64, seed=seed)["objective/scores"]

    before = mean_score()
    ppo.fit(
        prompts * 16, batch_size=64, epochs=iterations, seed=seed, verbose=0
    )
    return before, mean_score()


def numbers(seed=0):
    policy = writing.gpt2_policy(writing.word_tokenizer(), seed)
    return improve(
        policy,
        writing.increasing_numbers,
        COUNTING,
        iterations=50,
        max_new_tokens=writing.LENGTH,
        seed=seed,
    )


def dates(seed=0):
    policy = writing.gpt2_policy(writing.character_tokenizer(), seed)
    sft = tfrlhf.SFT(policy)
    sft.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    sft.fit(notes(seed), batch_size=32, epochs=12, seed=seed, verbose=0)
    return improve(
        policy,
        writing.date_in_text,
        NOTES,
        iterations=40,
        max_new_tokens=16,
        seed=seed,
    )


@pytest.mark.parametrize("task", [numbers, dates])
def test_it_learns_the_task(task):
    before, after = task()
    assert before <= 0.3
    assert after >= 0.8
