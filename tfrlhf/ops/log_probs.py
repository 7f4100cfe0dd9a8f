"""From logits to log-probabilities of tokens and entropies.

The temperature of the sampler belongs into every log-probability: sampling,
old, new and reference alike. Nothing here shifts by one position: logits [...,
V] belong to the tokens [...] they are passed with.
"""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def token_log_probs(
    logits: Tensor, token_ids: Tensor, temperature: float = 1.0
) -> Tensor:
    """Log-probability of each token: log_softmax(logits / T)[token].

    A logit of -inf takes a token out; its gradient is 0.

    Args:
        logits: float [..., V], computed with as float32.
        token_ids: int32 [...], in [0, V).
        temperature: T, a number or a float32 scalar.

    Returns:
        float32 [...].

    Raises:
        ValueError: if a dtype or shape is wrong, or T is not positive.

    Example:
        >>> round(float(token_log_probs([0.0, 0.0], 1)), 4)
        -0.6931
    """
    logits = _scaled(logits, temperature)
    token_ids = checks.int_tensor("token_ids", token_ids)
    positions = tf.TensorShape(logits.shape[:-1])
    if not positions.is_compatible_with(token_ids.shape):
        raise ValueError(
            "`token_ids` must have the shape of `logits` without its last "
            f"axis, {positions}. Received: shape {token_ids.shape}."
        )
    # The fused kernel never holds the [..., V] log-probabilities, and reads
    # only the token's own logit, so that a -inf elsewhere does no harm.
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(
        labels=token_ids, logits=logits
    )


def entropy(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """Entropy in nats: -Σ_v p_v·log p_v with p = softmax(logits / T).

    A logit of -inf takes a token out; its gradient is 0.

    Args:
        logits: float [..., V], computed with as float32.
        temperature: T, a number or a float32 scalar.

    Returns:
        float32 [...].

    Raises:
        ValueError: if `logits` is not floating, or T is not positive.

    Example:
        >>> round(float(entropy([0.0, 0.0])), 4)
        0.6931
    """
    log_probs = tf.nn.log_softmax(_scaled(logits, temperature))
    # 0·(-inf) would be NaN, in the value and in the gradient.
    finite = tf.where(log_probs > log_probs.dtype.min, log_probs, 0.0)
    return -tf.reduce_sum(tf.exp(log_probs) * finite, axis=-1)


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    logits = tf.convert_to_tensor(logits)
    if not logits.dtype.is_floating:
        raise ValueError(
            f"`logits` must be floating. Received: {logits.dtype.name}."
        )
    if logits.shape.rank == 0:
        raise ValueError("`logits` must have a vocabulary axis.")
    checks.positive("temperature", temperature)
    return tf.cast(logits, tf.float32) / temperature
