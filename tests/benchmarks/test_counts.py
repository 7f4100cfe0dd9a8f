"""Counted FLOPs: by hand for one shape, and by making the products."""

import numpy as np
import pytest

from benchmarks import counts
from benchmarks.shapes import SHAPES
from benchmarks.shapes import Shape

# 2 layers of width 8 with 2 heads, 10 tokens; 3 rows of 4 + 2 tokens.
GPT2 = Shape(2, 8, 2, 10, prompt=4, response=2, batch=3)
LLAMA = Shape(
    2, 8, 4, 10, prompt=4, response=2, batch=3, family="llama",
    key_heads=2, inner=12,
)  # fmt: skip


def test_a_pass_by_hand():
    # A layer's weights: query, key, value, output 4 · 8 · 8 = 256; up and
    # down 2 · 8 · 32 = 512. So 768 multiplications a token, 1536 FLOPs.
    assert counts.projections(GPT2, 1) == 1536
    # 5 tokens see 1 + 2 + 3 + 4 + 5 = 15 tokens; 2 · 8 FLOPs for the logits
    # of both heads, 2 · 8 for the weighted values: 15 · 32 = 480 a row.
    assert counts.attention(GPT2, 1, 5) == 480
    # 3 rows of 5 tokens, 2 layers: 2 · (15 · 1536 + 3 · 480) = 48 960.
    assert counts.trunk(GPT2, 3, 5) == 48_960
    # 3 · 2 response tokens, 10 logits of 8 numbers: 6 · 2 · 80 = 960.
    assert counts.forward(GPT2) == 48_960 + 960
    # The value head: 6 · 2 · 8 = 96.
    assert counts.value_forward(GPT2) == 48_960 + 96
    # 4 epochs, each 3 passes' worth of both models.
    assert counts.update(GPT2) == 4 * 3 * (48_960 + 960 + 48_960 + 96)
    assert counts.update(GPT2, shared=True) == 4 * 3 * (48_960 + 960 + 96)
    assert counts.collect(GPT2) == 48_960 + 960 + 48_960 + 96


def test_a_step_of_a_reward_model_by_hand():
    # Pairs of 3: 6 rows of 6 tokens, which see 21; 2 layers; thrice:
    # 3 · 2 · (36 · 1536 + 6 · 21 · 32) = 355 968.
    assert counts.reward_step(GPT2) == 355_968


def test_reading_by_hand():
    # A layer: 768 in matrices, biases 3 · 8 + 8 + 32 + 8 = 72, two norms of
    # gain and bias 2 · 2 · 8 = 32; both layers 1744; last norm 16; head 80.
    assert counts.layer_weights(GPT2) == 768 + 72 + 32
    assert counts.weights_read(GPT2) == 1744 + 16 + 80
    # Keys and values of 4 tokens, 3 rows, 2 layers, 8 numbers each.
    assert counts.cache_read(GPT2, 4) == 2 * 2 * 3 * 4 * 8
    # Half the heads have keys: 8 / 4 · 2 = 4 numbers each.
    assert counts.cache_read(LLAMA, 4) == 2 * 2 * 3 * 4 * 4


def test_parameters_of_gpt2():
    shape = SHAPES["gpt2"]
    # 124 439 808 of them, 1024 · 768 of which are positions.
    assert counts.weights_read(shape) == 124_439_808 - 1024 * 768


@pytest.mark.parametrize("shape", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_pass_by_making_its_products(shape):
    made = Products()
    for _ in range(shape.batch):
        hidden = made.trunk(shape, shape.length - 1)
        made(hidden[-shape.response :], np.ones([shape.width, 10]))
    assert made.flops == counts.forward(shape)


@pytest.mark.parametrize("shape", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_a_new_token_by_making_its_products(shape):
    with_it, without = Products(), Products()
    for _ in range(shape.batch):
        with_it.trunk(shape, 4)
        without.trunk(shape, 3)
        with_it(np.ones([1, shape.width]), np.ones([shape.width, 10]))
    assert with_it.flops - without.flops == counts.decode_step(shape, 3)


def test_a_rollout_takes_what_limits_it():
    free = float("inf")
    computed = counts.prompt_pass(GPT2) + counts.decode_step(GPT2, 4)
    assert counts.rollout_seconds(GPT2, 1e3, free) == pytest.approx(
        computed / 1e3
    )
    read = counts.weights_read(GPT2) + counts.cache_read(GPT2, 4)
    assert counts.rollout_seconds(GPT2, free, 1e3) == pytest.approx(
        4 * read / 1e3
    )
    assert counts.rollout_seconds(GPT2, free, 1e3, size=2) == pytest.approx(
        2 * read / 1e3
    )


class Products:
    """Multiplies, and counts every multiplication and addition of a pair."""

    def __init__(self):
        self.flops = 0

    def __call__(self, left, right):
        rows, inner = left.shape
        result = np.zeros([rows, right.shape[1]])
        for row in range(rows):
            for column in range(right.shape[1]):
                for i in range(inner):
                    result[row, column] += left[row, i] * right[i, column]
                    self.flops += 2
        return result

    def trunk(self, shape, length):
        """A row of so many tokens through all layers, weights of ones."""
        hidden = np.ones([length, shape.width])
        for _ in range(shape.layers):
            attended = self.attention(shape, hidden)
            hidden = self(attended, np.ones([shape.width, shape.width]))
            up = np.ones([shape.width, shape.feed_forward])
            inner = self(hidden, up)
            if shape.family == "llama":
                inner = inner + self(hidden, up)
            hidden = self(inner, np.ones([shape.feed_forward, shape.width]))
            hidden /= np.abs(hidden).max()
        return hidden

    def attention(self, shape, hidden):
        """Each head by itself, each token with those before it."""
        size = shape.width // shape.heads
        groups = shape.heads // (shape.key_heads or shape.heads)
        keys = self(hidden, np.ones([shape.width, shape.key_width]))
        values = self(hidden, np.ones([shape.width, shape.key_width]))
        queries = self(hidden, np.ones([shape.width, shape.width]))
        result = np.zeros_like(queries)
        for head in range(shape.heads):
            own = slice(head * size, (head + 1) * size)
            of = slice(head // groups * size, (head // groups + 1) * size)
            for token in range(len(hidden)):
                before = slice(0, token + 1)
                logits = self(
                    queries[token : token + 1, own], keys[before, of].T
                )
                result[token, own] = self(logits, values[before, of])[0]
        return result
