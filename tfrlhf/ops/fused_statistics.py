"""Log-probabilities straight from hidden states, without all the logits.

[N, V] logits and their gradient are what an update of a language model needs
most memory for. Here they exist for a chunk of the vocabulary at a time, of
which a softmax can be summed up one after the other
(https://arxiv.org/abs/1805.02867). The gradient finds the probabilities of the
first chunk again and makes the others once more, so that memory does not grow
with N·V, and every row of the kernel's gradient is written once.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor

# Logits of the chunk that is kept: 64 MB in float32.
CHUNK_ELEMENTS = 2**24
# How much shorter the others are, of which several arrays exist at a time.
PARTS = 4
# Keeps 0 · log 0 at 0.
_TINY = 1e-37


class FusedStatistics(NamedTuple):
    """What a distribution says of one token a row.

    Attributes:
        log_probs: float32 [N].
        entropy: float32 [N], in nats.
        most_likely: bool [N], whether no token was likelier.
    """

    log_probs: Tensor
    entropy: Tensor
    most_likely: Tensor


def fused_token_statistics(
    hidden: Tensor,
    kernel: Tensor,
    token_ids: Tensor,
    temperature: float = 1.0,
    entropy_has_gradient: bool = False,
    chunk_elements: int = CHUNK_ELEMENTS,
    in_place: bool = False,
) -> FusedStatistics:
    """What softmax(hidden · kernelᵀ / T) says of one token a row.

    As `token_log_probs` and `entropy` say it of the logits, with gradients to
    hidden states and kernel: of the log-probability of token y,
    ∂/∂logits = (onehot(y) − p) / T.

    Args:
        hidden: float [N, H].
        kernel: float [V, H] of the same dtype, a row for each token.
        token_ids: int32 [N], in [0, V).
        temperature: T, a number or a float32 scalar.
        entropy_has_gradient: whether something learns from the entropy.
        chunk_elements: logits of the first chunk, which are kept for the
            gradient; the others have a part of them.
        in_place: whether to save copies by an operation that XLA has not.

    Returns:
        `FusedStatistics`.

    Raises:
        ValueError: if T is not positive.

    Example:
        >>> found = fused_token_statistics(
        ...     tf.zeros([1, 2]), tf.zeros([4, 2]), [3])
        >>> round(float(found.entropy[0]), 4)
        1.3863
    """
    checks.positive("temperature", temperature)
    token_ids = checks.int_tensor("token_ids", token_ids)
    hidden, kernel = (tf.convert_to_tensor(x) for x in (hidden, kernel))
    head = _Head(temperature, entropy_has_gradient, in_place)

    @tf.custom_gradient
    def statistics(hidden: Tensor, kernel: Tensor) -> Any:
        chunks = _Chunks(kernel, tf.shape(hidden)[0], chunk_elements)
        kept, first = head.look(hidden, token_ids, chunks.first, 0)

        def look(seen: _Seen, start: Tensor, part: Tensor) -> _Seen:
            return head.look(hidden, token_ids, part, start, seen)[1]

        seen = chunks.over_rest(look, first)
        log_total = seen.largest + tf.math.log(seen.total)
        entropy = log_total - seen.product / seen.total
        best = tf.cast(seen.chosen >= seen.largest, tf.float32)

        def gradient(*upstream: Tensor) -> tuple[Tensor, Tensor]:
            known = hidden, token_ids, *upstream[:2], entropy
            mass = first.total * tf.exp(first.largest - log_total)

            def step(so_far: Any, start: Tensor, part: Tensor) -> Any:
                to_hidden, to_kernel = so_far
                log_p = head.logits(hidden, part) - log_total[:, None]
                to_part, more = head.gradients(
                    part, start, tf.exp(log_p), tf.ones_like(mass), *known
                )
                return to_hidden + more, head.add_at(
                    to_kernel, start + tf.range(chunks.size), to_part
                )

            to_first, to_hidden = head.gradients(
                chunks.first, 0, kept, mass, *known
            )
            missing = tf.shape(kernel)[0] - chunks.start
            # Not while the probabilities of the first chunk exist.
            with tf.control_dependencies([to_hidden]):
                to_kernel = tf.pad(to_first, [[0, missing], [0, 0]])
            so_far = to_hidden, to_kernel
            to_hidden, to_kernel = chunks.over_rest(step, so_far)
            return tf.cast(to_hidden, hidden.dtype), to_kernel

        return (seen.chosen - log_total, entropy, best), gradient

    log_probs, entropy, best = statistics(hidden, kernel)
    return FusedStatistics(log_probs, entropy, tf.stop_gradient(best) > 0.0)


class _Seen(NamedTuple):
    """What is known of each row after some chunks, float32 [N].

    Attributes:
        largest: of its logits.
        total: of exp(logit - largest).
        product: of exp(logit - largest) · logit.
        chosen: the logit of its token, 0 if that is still to come.
    """

    largest: Tensor
    total: Tensor
    product: Tensor
    chosen: Tensor

    def joined(self, other: "_Seen") -> "_Seen":
        """Returns what is known after the chunks of both."""
        largest = tf.maximum(self.largest, other.largest)
        here, there = (tf.exp(x.largest - largest) for x in (self, other))
        return _Seen(
            largest,
            self.total * here + other.total * there,
            self.product * here + other.product * there,
            self.chosen + other.chosen,
        )


class _Head:
    """What is done with a chunk, rows [n, H] of the kernel from `start` on."""

    def __init__(
        self, temperature: Any, entropy_has_gradient: bool, in_place: bool
    ) -> None:
        self.temperature = temperature
        self.entropy_has_gradient = entropy_has_gradient
        self.in_place = in_place

    def logits(self, hidden: Tensor, part: Tensor) -> Tensor:
        """Returns float32 [N, n]."""
        product = tf.matmul(hidden, part, transpose_b=True)
        return tf.cast(product, tf.float32) / self.temperature

    def look(
        self,
        hidden: Tensor,
        token_ids: Tensor,
        part: Tensor,
        start: Tensor | int,
        so_far: _Seen | None = None,
    ) -> tuple[Tensor, _Seen]:
        """Returns the softmax of a chunk [N, n] and what is known with it."""
        logits = self.logits(hidden, part)
        largest = tf.reduce_max(logits, axis=-1)
        p = tf.nn.softmax(logits)
        place, here = _places(token_ids, start, tf.shape(part)[0])
        chosen = tf.gather(logits, place, batch_dims=1) * here
        # The last to read the logits, so that it is made in their place, and
        # before the gradient, which waits for the total, needs p.
        with tf.control_dependencies([chosen, largest]):
            product = tf.reduce_sum(p * logits, axis=-1)
        with tf.control_dependencies([product]):
            # The likeliest token's weight is 1.
            total = 1.0 / tf.reduce_max(p, axis=-1)
        seen = _Seen(largest, total, product * total, chosen)
        return p, seen if so_far is None else so_far.joined(seen)

    def gradients(
        self,
        part: Tensor,
        start: Tensor | int,
        p: Tensor,
        mass: Tensor,
        hidden: Tensor,
        token_ids: Tensor,
        to_log_prob: Tensor,
        to_entropy: Tensor,
        entropy: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns what p · mass, probabilities [N, n], mean for the product."""
        place, here = _places(token_ids, start, tf.shape(part)[0])
        # The mass in the factors of rows spares a pass over p; a short float
        # there would round it.
        if self.entropy_has_gradient or part.dtype != tf.float32:
            p, mass = p * mass[:, None], tf.ones_like(mass)
        # Not less, as it divides.
        mass = tf.maximum(mass, _TINY)
        # What the log-probability wants of the logits, with the sign turned.
        rows = tf.range(tf.shape(place)[0])
        slope = self.add_at(p, rows, -here / mass, place)
        scale = -to_log_prob * mass / self.temperature
        if self.entropy_has_gradient:
            surprise = tf.math.log(p + _TINY) + entropy[:, None]
            slope = to_log_prob[:, None] * slope
            slope += to_entropy[:, None] * p * surprise
            scale = -tf.ones_like(to_log_prob) / self.temperature
        slope = tf.cast(slope, part.dtype)
        # Scaled where it is small: [N, H], not [N, n].
        scale = tf.cast(scale, part.dtype)[:, None]
        to_part = tf.matmul(slope, scale * hidden, transpose_a=True)
        to_hidden = scale * tf.matmul(slope, part)
        return to_part, tf.cast(to_hidden, tf.float32)

    def add_at(
        self, x: Tensor, rows: Tensor, more: Tensor, columns: Any = None
    ) -> Tensor:
        """Adds to rows of x, or to one element in each of them."""
        index = [rows] if columns is None else [rows, columns]
        add = tf.tensor_scatter_nd_add
        if self.in_place:
            add = tf.raw_ops.ScatterNdNonAliasingAdd
            return add(input=x, indices=tf.stack(index, axis=1), updates=more)
        return add(x, tf.stack(index, axis=1), more)


def _places(
    token_ids: Tensor, start: Tensor | int, count: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns columns in a chunk, and float32 1 where the token is in it."""
    place = token_ids - start
    here = (place >= 0) & (place < count)
    return tf.where(here, place, 0), tf.cast(here, tf.float32)


class _Chunks:
    """The rows of a kernel in runs of equal length, the first a bit longer."""

    def __init__(self, kernel: Tensor, rows: Tensor, elements: int) -> None:
        vocabulary = tf.shape(kernel)[0]
        most = tf.maximum(elements // tf.maximum(rows, 1), 1)
        rest = tf.maximum(vocabulary - most, 0)
        self.count = -(-rest // tf.maximum(most // PARTS, 1))
        # Not 0 where there are none: XLA looks at what is never run, too.
        self.size = tf.maximum(rest // tf.maximum(self.count, 1), 1)
        self.start = vocabulary - self.count * self.size
        self.kernel = kernel
        self.first = kernel[: self.start]

    def over_rest(self, step: Callable[..., Any], first: Any) -> Any:
        """Goes over all runs but the first.

        Args:
            step: from (carried, start, run) to what is carried on.
            first: what the first step is handed.

        Returns:
            What the last step hands on.
        """

        def body(i: Tensor, carried: Any) -> tuple[Tensor, Any]:
            # Loops begin with what is ready: two runs would exist at a time.
            with tf.control_dependencies(tf.nest.flatten(carried)):
                start = self.start + i * self.size
                part = self.rows(start, self.size)
            return i + 1, step(carried, start, part)

        return tf.while_loop(
            lambda i, _: i < self.count,
            body,
            (0, first),
            parallel_iterations=1,
        )[1]

    def rows(self, start: Tensor | int, count: Tensor) -> Tensor:
        """Returns `count` rows of the kernel."""
        width = tf.shape(self.kernel)[1]
        return tf.slice(self.kernel, [start, 0], [count, width])
