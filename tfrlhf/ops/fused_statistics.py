"""Log-probabilities straight from hidden states, without all the logits.

[N, V] logits and their gradient are what an update of a language model needs
most memory for. Here they exist for a chunk of rows at a time. The gradient
finds those of the first chunk again and makes the others once more, so that
memory does not grow with N·V.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor

# Logits that exist at a time: 64 MB in float32.
CHUNK_ELEMENTS = 2**24
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
        chunk_elements: logits to hold at a time.

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
    head = _Head(temperature, entropy_has_gradient)
    most = tf.maximum(chunk_elements // tf.shape(kernel)[0], 1)
    first = tf.minimum(tf.shape(hidden)[0], most)
    rest = _Chunks(tf.shape(hidden)[0] - first, most)

    @tf.custom_gradient
    def statistics(hidden: Tensor, kernel: Tensor) -> Any:
        given = (hidden, token_ids)
        kept, *here = head.look(kernel, *(x[:first] for x in given))

        def look(_: Any, *rows: Tensor) -> tuple[Any, list[Tensor]]:
            return (), head.look(kernel, *rows)[1:]

        _, later = rest.loop(look, (), [x[first:] for x in given], here)
        log_probs, entropy, log_total, best = (
            tf.concat(parts, axis=0) for parts in zip(here, later, strict=True)
        )

        def gradient(*upstream: Tensor) -> tuple[Tensor, Tensor]:
            known = (*given, *upstream[:2], log_total, entropy)
            to_kernel, to_first = head.gradients(
                kernel, kept, *(x[:first] for x in known)
            )

            def step(so_far: Tensor, *rows: Tensor) -> tuple[Tensor, Any]:
                log_p = head.logits(kernel, rows[0]) - rows[4][:, None]
                found = head.gradients(kernel, tf.exp(log_p), *rows)
                return so_far + found[0], [found[1]]

            to_kernel, (to_rest,) = rest.loop(
                step, to_kernel, [x[first:] for x in known], [to_first]
            )
            to_hidden = tf.concat([to_first, to_rest], axis=0)
            return to_hidden, tf.cast(to_kernel, kernel.dtype)

        return (log_probs, entropy, best), gradient

    log_probs, entropy, best = statistics(hidden, kernel)
    return FusedStatistics(log_probs, entropy, tf.stop_gradient(best) > 0.0)


class _Head:
    """What is done with a chunk of rows."""

    def __init__(self, temperature: Any, entropy_has_gradient: bool) -> None:
        self.temperature = temperature
        self.entropy_has_gradient = entropy_has_gradient

    def logits(self, kernel: Tensor, rows: Tensor) -> Tensor:
        """Returns float32 [n, V]."""
        product = tf.matmul(rows, kernel, transpose_b=True)
        return tf.cast(product, tf.float32) / self.temperature

    def look(self, kernel: Tensor, rows: Tensor, ids: Tensor) -> list[Tensor]:
        """Returns probabilities [n, V] and four numbers a row."""
        logits = self.logits(kernel, rows)
        largest = tf.reduce_max(logits, axis=-1)
        weights = tf.exp(logits - largest[:, None])
        total = tf.reduce_sum(weights, axis=-1)
        log_total = largest + tf.math.log(total)
        mean = tf.reduce_sum(weights * logits, axis=-1) / total
        chosen = tf.gather(logits, ids, batch_dims=1)
        best = tf.cast(chosen >= largest, tf.float32)
        return [
            weights / total[:, None],
            chosen - log_total,
            log_total - mean,
            log_total,
            best,
        ]

    def gradients(
        self,
        kernel: Tensor,
        p: Tensor,
        rows: Tensor,
        ids: Tensor,
        to_log_prob: Tensor,
        to_entropy: Tensor,
        log_total: Tensor,
        entropy: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Returns the gradients of kernel, float32, and rows."""
        index = tf.range(tf.shape(ids)[0])
        # What the log-probability wants of the logits, with the sign turned.
        slope = tf.tensor_scatter_nd_sub(
            p, tf.stack([index, ids], axis=1), tf.ones_like(to_log_prob)
        )
        scale = -to_log_prob / self.temperature
        if self.entropy_has_gradient:
            surprise = tf.math.log(p + _TINY) + entropy[:, None]
            slope = to_log_prob[:, None] * slope
            slope += to_entropy[:, None] * p * surprise
            scale = -tf.ones_like(to_log_prob) / self.temperature
        slope = tf.cast(slope, rows.dtype)
        # Scaled where it is small: [n, H], not [n, V].
        scale = tf.cast(scale, rows.dtype)[:, None]
        to_kernel = tf.matmul(slope, scale * rows, transpose_a=True)
        return tf.cast(to_kernel, tf.float32), scale * tf.matmul(slope, kernel)


class _Chunks:
    """Rows in runs of equal length, the last one filled up with zeros."""

    def __init__(self, rows: Tensor, most: Tensor) -> None:
        self.rows = rows
        self.count = tf.maximum(-(-rows // most), 1)
        self.size = -(-rows // self.count)

    def loop(
        self,
        step: Callable[..., Any],
        first: Any,
        given: list[Tensor],
        like: list[Tensor],
    ) -> tuple[Any, list[Tensor]]:
        """Goes over the runs.

        Args:
            step: from (carried, *rows of `given`) to (carried, results).
            first: what the first step is handed.
            given: tensors [rows, ...].
            like: tensors of the dtypes of the results.

        Returns:
            What the last step hands on, and the joined results.
        """
        missing = self.count * self.size - self.rows
        full = [
            tf.pad(x, [[0, missing]] + [[0, 0]] * (x.shape.rank - 1))
            for x in given
        ]
        arrays = [tf.TensorArray(x.dtype, self.count) for x in like]

        def body(i: Tensor, carried: Any, arrays: Any) -> tuple[Any, ...]:
            carried, found = step(carried, *(self._run(x, i) for x in full))
            pairs = zip(arrays, found, strict=True)
            return i + 1, carried, [a.write(i, x) for a, x in pairs]

        _, carried, arrays = tf.while_loop(
            lambda i, *_: i < self.count,
            body,
            (0, first, arrays),
            parallel_iterations=1,
        )
        return carried, [a.concat()[: self.rows] for a in arrays]

    def _run(self, x: Tensor, i: Tensor) -> Tensor:
        begin = [i * self.size] + [0] * (x.shape.rank - 1)
        return tf.slice(x, begin, tf.concat([[self.size], tf.shape(x)[1:]], 0))
