"""How the next token is chosen from the logits."""

import dataclasses

import tensorflow as tf

from tfrlhf import ops
from tfrlhf.types import Tensor


@dataclasses.dataclass(frozen=True)
class Sampler:
    """Sampling settings.

    Attributes:
        temperature: divides the logits; 0 takes the most likely token.
        top_k: keeps the k most likely tokens; 0 keeps all.
        top_p: keeps the most likely tokens whose probability sums to at least
            `top_p` (nucleus sampling, https://arxiv.org/abs/1904.09751),
            after `top_k`; 1 keeps all.
        max_new_tokens: the longest response, the stop token included.
        stop_token_ids: ids that end a response; None is the tokenizer's EOS.

    Example:
        >>> Sampler(temperature=0.7, max_new_tokens=24).temperature
        0.7
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    max_new_tokens: int | None = None
    stop_token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if not self.temperature >= 0.0:
            raise ValueError(
                "`temperature` must be 0 (greedy) or positive. Received: "
                f"temperature={self.temperature}"
            )
        if self.top_k < 0:
            raise ValueError(
                "`top_k` must be 0 (all tokens) or positive. Received: "
                f"top_k={self.top_k}"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ValueError(
                f"`top_p` must be in (0, 1]. Received: top_p={self.top_p}"
            )
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise ValueError(
                "`max_new_tokens` must be at least 1. Received: "
                f"max_new_tokens={self.max_new_tokens}"
            )
        if self.stop_token_ids is not None:
            stops = tuple(int(i) for i in self.stop_token_ids)
            object.__setattr__(self, "stop_token_ids", stops)


# Tokens that are summed up together.
BLOCK = 128


def uniform_draws(seed: Tensor, rows: Tensor, steps: Tensor) -> Tensor:
    """Draws the random numbers of a whole rollout.

    A draw depends on the seed, the row and the step (and on `steps`, the row's
    length) alone, never on the number of rows or replicas: philox counts its
    outputs in row-major order.

    Args:
        seed: int32 or int64 [2].
        rows: int32 scalar, the number of sequences.
        steps: int32 scalar, the number of tokens of each.

    Returns:
        float32 [rows, steps] in [0, 1).

    Example:
        >>> uniform_draws((1, 2), 4, 3)[:2] == uniform_draws((1, 2), 2, 3)
    """
    return tf.random.stateless_uniform(
        [rows, steps], seed=seed, dtype=tf.float32, alg="philox"
    )


def sample_tokens(
    logits: Tensor,
    draws: Tensor,
    temperature: Tensor = 1.0,
    top_k: Tensor = 0,
    top_p: Tensor = 1.0,
) -> tuple[Tensor, Tensor]:
    """Chooses one token a row by inverting the cumulative distribution.

    The settings may be Python numbers, for which work that they do not need is
    left out, or scalar tensors.

    Args:
        logits: float [B, V].
        draws: float32 [B] in [0, 1).
        temperature: float scalar; 0 is greedy.
        top_k: int32 scalar; 0 keeps all tokens.
        top_p: float scalar; 1 keeps all tokens.

    Returns:
        token_ids int32 [B] and their float32 [B] log-probabilities under the
        full distribution at the temperature (at temperature 1 if greedy),
        that is before top_k and top_p.

    Example:
        >>> sample_tokens([[0.0, 0.0]], [0.7])[0]  # the second of two
        [1]
    """
    logits = tf.cast(logits, tf.float32)
    if isinstance(temperature, (int, float)):
        if temperature == 0:
            return _greedy(logits)
        return _sample(logits, draws, temperature, top_k, top_p)
    greedy = temperature <= 0.0
    safe_temperature = tf.where(greedy, 1.0, temperature)
    sampled = _sample(logits, draws, safe_temperature, top_k, top_p)
    best = _greedy(logits)
    return (
        tf.where(greedy, best[0], sampled[0]),
        tf.where(greedy, best[1], sampled[1]),
    )


def _greedy(logits: Tensor) -> tuple[Tensor, Tensor]:
    token_ids = tf.argmax(logits, axis=-1, output_type=tf.int32)
    return token_ids, ops.token_log_probs(logits, token_ids)


def _sample(
    logits: Tensor,
    draws: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
) -> tuple[Tensor, Tensor]:
    scaled = logits / temperature
    everything = (
        isinstance(top_k, int)
        and isinstance(top_p, (int, float))
        and top_k == 0
        and top_p == 1
    )
    kept = scaled if everything else _filtered(scaled, top_k, top_p)
    # Unnormalised: the draw is scaled by the total instead.
    largest = tf.reduce_max(kept, axis=-1)
    weights = tf.exp(kept - largest[:, None])
    # A cumulative sum of all tokens takes long: first the block, then the
    # token in it.
    size = tf.shape(weights)[-1]
    blocks = tf.reshape(
        tf.pad(weights, [[0, 0], [0, -size % BLOCK]]),
        [tf.shape(weights)[0], -1, BLOCK],
    )
    sums = tf.reduce_sum(blocks, axis=-1)
    total = tf.reduce_sum(sums, axis=-1)
    block, begin = _last_reached(sums, draws * total)
    within = tf.gather(blocks, block, batch_dims=1)
    place, _ = _last_reached(within, draws * total - begin)
    token_ids = BLOCK * block + place
    if not everything:
        return token_ids, ops.token_log_probs(logits, token_ids, temperature)
    # Of the same distribution, whose sum is known.
    chosen = tf.gather(scaled, token_ids, batch_dims=1)
    return token_ids, chosen - largest - tf.math.log(total)


def _last_reached(weights: Tensor, threshold: Tensor) -> tuple[Tensor, Tensor]:
    """Finds the last possible entry that begins at or below a threshold.

    Args:
        weights: float32 [B, N].
        threshold: float32 [B].

    Returns:
        Its place, int32 [B], and where it begins, float32 [B].
    """
    # An entry is asked for its own weight too, because XLA's cumulative sum
    # may fall by a rounding error.
    begins = tf.cumsum(weights, axis=-1) - weights
    reached = (weights > 0.0) & (begins <= threshold[:, None])
    rank = tf.range(tf.shape(weights)[-1])[None, :]
    place = tf.reduce_max(tf.where(reached, rank, 0), axis=-1)
    return place, tf.gather(begins, place, batch_dims=1)


def _filtered(logits: Tensor, top_k: Tensor, top_p: Tensor) -> Tensor:
    """Returns logits [B, V] with -inf outside top_k, then outside top_p."""
    vocabulary = tf.shape(logits)[-1]
    ordered = tf.sort(logits, axis=-1, direction="DESCENDING")
    kept_count = tf.where(tf.equal(top_k, 0), vocabulary, top_k)
    rank = tf.range(vocabulary)[None, :]
    in_top_k = rank < kept_count
    ordered = tf.where(in_top_k, ordered, -float("inf"))
    probabilities = tf.nn.softmax(ordered, axis=-1)
    mass_before = tf.cumsum(probabilities, axis=-1, exclusive=True)
    # `top_p` 1 keeps everything, whatever the cumulative sum rounds to.
    in_top_p = (mass_before < top_p) | (tf.cast(top_p, tf.float32) >= 1.0)
    keep = in_top_k & (in_top_p | (rank == 0))
    smallest = tf.reduce_min(
        tf.where(keep, ordered, float("inf")), axis=-1, keepdims=True
    )
    return tf.where(logits >= smallest, logits, -float("inf"))
