"""Attention that remembers no more for its gradient than it takes.

Keras spells it out, so that scores are kept before and after they are scaled
and masked, where their softmax is enough.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.types import Tensor

# [B, T, N, H] to [B, N, T, H], and back.
TURNED = (0, 2, 1, 3)


def attention_method(layer: Any) -> Callable[..., Any] | None:
    """Returns what may stand in for a layer's `_compute_attention`.

    Args:
        layer: any Keras layer.

    Returns:
        The function; None for other layers than Keras' multi-head attention
        without dropout.
    """
    multi_head = keras.layers.MultiHeadAttention
    if (
        not isinstance(layer, multi_head)
        or type(layer)._compute_attention is not multi_head._compute_attention
        or layer._dropout > 0.0
    ):
        return None
    plain = layer._compute_attention

    def compute(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None = None,
        training: bool | None = None,
        *others: Any,
        **more: Any,
    ) -> Any:
        ranks = {x.shape.rank for x in (query, key, value)}
        asked = [*others, *more.values()]
        if attention_mask is None or any(asked) or ranks != {4}:
            return plain(
                *(query, key, value, attention_mask, training, *others), **more
            )
        mask = tf.cast(attention_mask, tf.bool)
        while mask.shape.rank < 4:
            mask = tf.expand_dims(mask, axis=-3)
        scale = layer._inverse_sqrt_key_dim
        return attention(query, key, value, mask, scale), None

    return compute


def attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float
) -> Tensor:
    """Scaled dot-product attention (https://arxiv.org/abs/1706.03762).

    Args:
        query: float [B, T, N, H].
        key: [B, S, N, H], of the same dtype.
        value: [B, S, N, H], of the same dtype.
        mask: bool [..., S], that broadcasts to [B, N, T, S].
        scale: of the scores.

    Returns:
        [B, T, N, H].

    Example:
        >>> one = tf.ones([1, 1, 1, 2])
        >>> attention(one, one, 3 * one, tf.constant([True]), 0.5).numpy().max()
        3.0
    """
    # A short float would round what is scaled before the product.
    exact = query.dtype == tf.float32
    before, after = (scale, None) if exact else (None, scale)
    sees = tf.reduce_any(mask, axis=-1, keepdims=True)

    @tf.custom_gradient
    def compute(query: Tensor, key: Tensor, value: Tensor) -> Any:
        q, k, v = (tf.transpose(x, TURNED) for x in (query, key, value))
        q = _times(q, before)
        scores = tf.cast(tf.matmul(q, k, transpose_b=True), tf.float32)
        scores = tf.where(mask, _times(scores, after), tf.float32.min)
        p = tf.nn.softmax(scores)
        found = tf.transpose(tf.matmul(tf.cast(p, v.dtype), v), TURNED)

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            up = tf.transpose(upstream, TURNED)
            to_v = tf.matmul(tf.cast(p, v.dtype), up, transpose_a=True)
            # Scores that are masked all have no say in what is found.
            up *= tf.cast(sees, up.dtype)
            to_p = tf.cast(tf.matmul(up, v, transpose_b=True), tf.float32)
            # Σ p · to_p of a query is what it found times what it is to find.
            wide = (tf.cast(x, tf.float32) for x in (found, upstream))
            mean = tf.reduce_sum(tf.multiply(*wide), axis=-1, keepdims=True)
            mean = tf.transpose(mean, TURNED) * tf.cast(sees, tf.float32)
            to_scores = (to_p - mean) * p
            to_scores = tf.cast(_times(to_scores, after), q.dtype)
            to_q = _times(tf.matmul(to_scores, k), before)
            to_k = tf.matmul(to_scores, q, transpose_a=True)
            to_q, to_k, to_v = (
                tf.transpose(x, TURNED) for x in (to_q, to_k, to_v)
            )
            return to_q, to_k, to_v

        return found, gradient

    return compute(query, key, value)


def _times(x: Tensor, scale: float | None) -> Tensor:
    return x if scale is None else x * tf.cast(scale, x.dtype)
