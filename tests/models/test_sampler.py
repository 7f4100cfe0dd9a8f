"""How a token is chosen: exact distributions, kept sets, hostile draws."""

import functools

import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tfrlhf import Sampler
from tfrlhf.models.sampler import sample_tokens
from tfrlhf.models.sampler import uniform_draws

LARGEST_DRAW = np.float32(0.99999994)


def softmax(logits):
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def kept_tokens(logits, top_k, top_p):
    """The ids that may be drawn from one row, by a loop in float64."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    if top_k:
        order = order[:top_k]
    probabilities = softmax(np.array([logits[i] for i in order], np.float64))
    mass, count = 0.0, 0
    for probability in probabilities:
        if mass >= top_p:
            break
        mass += probability
        count += 1
    smallest = logits[order[count - 1]]
    # A token as likely as the last kept one is kept too.
    return {i for i, logit in enumerate(logits) if logit >= smallest}


def drawn_tokens(logits, steps=4000, **settings):
    """Every token of one row that evenly spaced draws reach."""
    draws = np.append(np.arange(steps) / steps, LARGEST_DRAW)
    rows = np.tile(logits, [len(draws), 1])
    token_ids, _ = sample_tokens(
        rows, tf.constant(draws, "float32"), **settings
    )
    return set(token_ids.numpy().tolist())


def test_frequencies_are_the_probabilities_at_the_temperature():
    logits = np.array([1.0, -0.5, 0.3, 2.0, -3.0], np.float32)
    draws = uniform_draws((7, 0), 20_000, 1)[:, 0]
    token_ids, log_probs = sample_tokens(
        np.tile(logits, [20_000, 1]), draws, temperature=0.7
    )
    counts = np.bincount(token_ids, minlength=5)
    exact = softmax(logits.astype(np.float64) / 0.7)
    chi_square = np.sum((counts - 20_000 * exact) ** 2 / (20_000 * exact))
    # The 99.9 % point with 4 degrees of freedom.
    assert chi_square < 18.47
    np.testing.assert_allclose(
        log_probs, np.log(exact)[token_ids], rtol=0, atol=1e-5
    )


def test_a_draw_inverts_the_cumulative_distribution():
    logits = np.log(np.tile([[0.125, 0.5, 0.25, 0.125]], [7, 1]))
    draws = [0.0, 0.12, 0.13, 0.62, 0.63, 0.87, 0.88]
    token_ids, _ = sample_tokens(logits, tf.constant(draws))
    np.testing.assert_array_equal(token_ids, [0, 0, 1, 1, 2, 2, 3])


@pytest.mark.parametrize(
    ("top_k", "top_p"), [(3, 1.0), (0, 0.6), (6, 0.8), (1, 1.0), (0, 1e-6)]
)
def test_kept_tokens(top_k, top_p):
    rng = np.random.default_rng(3)
    for _ in range(3):
        logits = rng.normal(size=12).astype(np.float32)
        expected = kept_tokens(logits, top_k, top_p)
        assert drawn_tokens(logits, top_k=top_k, top_p=top_p) == expected


@pytest.mark.parametrize(
    ("top_k", "top_p", "expected"),
    [
        # Probabilities 1/2, 1/8 ×4; ties with the last kept are kept.
        (2, 1.0, {0, 1, 2, 3, 4}),
        (0, 0.45, {0}),
        (0, 0.55, {0, 1, 2, 3, 4}),
        (1, 0.9, {0}),
        (9, 1.0, {0, 1, 2, 3, 4}),
    ],
)
def test_ties(top_k, top_p, expected):
    logits = np.log(np.array([0.5] + [0.125] * 4, np.float32))
    assert kept_tokens(logits, top_k, top_p) == expected
    assert drawn_tokens(logits, top_k=top_k, top_p=top_p) == expected


def test_log_probs_are_of_the_full_distribution():
    logits = np.random.default_rng(4).normal(size=[6, 9]).astype(np.float32)
    draws = tf.constant(np.linspace(0, 0.99, 6), tf.float32)
    token_ids, log_probs = sample_tokens(
        logits, draws, temperature=0.5, top_k=3, top_p=0.7
    )
    expected = references.token_log_probs(logits, token_ids.numpy(), 0.5)
    np.testing.assert_allclose(log_probs, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("vocabulary", [7, 8000])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_no_draw_gives_a_token_of_probability_0(vocabulary, jit_compile):
    # XLA's cumulative sum of a large vocabulary is not monotonic.
    rng = np.random.default_rng(5)
    logits = rng.normal(size=[64, vocabulary]).astype(np.float32) * 2
    outside = rng.random(logits.shape) > max(4 / vocabulary, 0.02)
    outside[:, vocabulary // 2] = False
    logits[outside] = -np.inf
    run = tf.function(sample_tokens, jit_compile=jit_compile)
    for draws in [np.zeros(64), np.full(64, LARGEST_DRAW), rng.random(64)]:
        token_ids, log_probs = run(logits, tf.constant(draws, tf.float32))
        assert not outside[np.arange(64), token_ids].any()
        assert np.isfinite(log_probs).all()


@pytest.mark.parametrize("top_k", [0, 50])
def test_no_draw_leaves_top_k(top_k):
    logits = np.random.default_rng(0).normal(size=[64, 8000]) * 2
    run = tf.function(
        functools.partial(sample_tokens, top_k=top_k, top_p=0.5),
        jit_compile=True,
    )
    allowed = [kept_tokens(row, top_k, 0.5) for row in logits[:8]]
    for draw in (0.0, LARGEST_DRAW):
        token_ids, _ = run(
            tf.constant(logits, tf.float32),
            tf.fill([64], tf.cast(draw, "float32")),
        )
        for kept, token_id in zip(allowed, token_ids.numpy(), strict=False):
            assert token_id in kept


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(0.7, 0, 1.0), (1.3, 4, 1.0), (1.0, 0, 0.5), (0.9, 5, 0.8), (0.0, 0, 1.0)],
)
def test_tensors_and_numbers_give_the_same(temperature, top_k, top_p):
    logits = np.random.default_rng(6).normal(size=[40, 9]).astype(np.float32)
    draws = uniform_draws((1, 1), 40, 1)[:, 0]
    numbers = sample_tokens(logits, draws, temperature, top_k, top_p)
    tensors = sample_tokens(
        logits,
        draws,
        tf.constant(temperature, tf.float32),
        tf.constant(top_k),
        tf.constant(top_p, tf.float32),
    )
    np.testing.assert_array_equal(numbers[0], tensors[0])
    np.testing.assert_allclose(numbers[1], tensors[1], rtol=0, atol=1e-6)


def test_temperature_0_is_the_most_likely_token():
    logits = np.random.default_rng(8).normal(size=[30, 9]).astype(np.float32)
    draws = uniform_draws((2, 0), 30, 1)[:, 0]
    token_ids, log_probs = sample_tokens(logits, draws, temperature=0)
    best = logits.argmax(axis=1)
    np.testing.assert_array_equal(token_ids, best)
    np.testing.assert_allclose(
        log_probs, references.token_log_probs(logits, best), rtol=0, atol=1e-5
    )


def test_draws_do_not_depend_on_the_rows_beside_them():
    many = uniform_draws((3, 9), 7, 5).numpy()
    np.testing.assert_array_equal(many[:3], uniform_draws((3, 9), 3, 5))
    assert len(np.unique(many)) == many.size
    assert (many >= 0).all() and (many < 1).all()
    assert not np.array_equal(many, uniform_draws((4, 9), 7, 5))
    assert not np.array_equal(many, uniform_draws((3, 8), 7, 5))


def test_draws_are_the_same_under_jit():
    compiled = tf.function(uniform_draws, jit_compile=True)
    np.testing.assert_array_equal(
        compiled((3, 9), 7, 5), uniform_draws((3, 9), 7, 5)
    )


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("temperature", [-0.1, float("nan")]),
        ("top_k", [-1]),
        ("top_p", [0.0, -0.5, 1.01, float("nan")]),
        ("max_new_tokens", [0, -3]),
    ],
)
def test_wrong_settings_are_refused(setting, values):
    for value in values:
        with pytest.raises(ValueError, match=f"`{setting}`.*{setting}={value}"):
            Sampler(**{setting: value})


def test_stop_token_ids_may_be_a_list_or_an_array():
    samplers = [
        Sampler(stop_token_ids=ids)
        for ids in ([3, 5], (3, 5), np.array([3, 5]))
    ]
    # Equal and hashable: one compiled function serves all.
    assert len(set(samplers)) == 1
    assert Sampler(stop_token_ids=[]).stop_token_ids == ()


@pytest.mark.parametrize("vocabulary", [5, 128, 300])
def test_the_middle_of_what_a_token_covers_gives_the_token(vocabulary):
    draw = np.random.default_rng(0)
    logits = draw.normal(size=vocabulary).astype(np.float32)
    weights = np.exp(logits.astype(np.float64))
    ends = np.cumsum(weights) / weights.sum()
    middles = ends - 0.5 * weights / weights.sum()
    token_ids, _ = sample_tokens(
        tf.constant(np.tile(logits, (vocabulary, 1))),
        tf.constant(middles, tf.float32),
    )
    np.testing.assert_array_equal(token_ids, np.arange(vocabulary))
