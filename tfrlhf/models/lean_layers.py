"""Layers that remember less for their gradients.

Keras spells GELU and layer normalisation out in many operations, each of which
keeps what its own gradient needs. With one gradient for the whole, a step
remembers less, and its elementwise part takes less time (docs/performance.md).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub  # noqa: F401, registers its activation.
import tensorflow as tf

from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.types import Tensor

# u = x·(A + B·x²) is twice what tanh is taken of.
A = 2.0 * 0.7978845608028654
B = A * 0.044715


@contextmanager
def lean_layers(model: keras.Model) -> Iterator[None]:
    """Lets passes that are traced use `gelu` and `layer_norm`.

    Args:
        model: whose layers with KerasHub's approximate GELU and whose
            normalisations over the last axis are meant. They are as they were
            afterwards.

    Example:
        >>> with lean_layers(policy), tf.GradientTape() as tape:
        ...     log_probs = policy.log_probs(token_ids, padding_mask)
    """
    layers = model._flatten_layers(include_self=False)
    plain = keras.saving.get_registered_object("keras_hub>gelu_approximate")
    active = [
        layer
        for layer in layers
        if getattr(layer, "activation", None) is plain is not None
    ]
    norms = [(x, _norm_call(x)) for x in layers if _is_plain_norm(x)]
    try:
        for layer in active:
            layer.activation = gelu
        with replaced_calls(norms):
            yield
    finally:
        for layer in active:
            layer.activation = plain


def _is_plain_norm(layer: Any) -> bool:
    return (
        type(layer) is keras.layers.LayerNormalization
        and layer.built
        and "call" not in vars(layer)
        and layer.center
        and layer.scale
        and not layer.rms_scaling
        and list(layer.axis) in ([-1], [2])
    )


def _norm_call(layer: Any) -> Any:
    def call(inputs: Tensor) -> Tensor:
        x = tf.cast(inputs, tf.float32)
        scale, shift = (
            tf.cast(v, tf.float32) for v in (layer.gamma, layer.beta)
        )
        found = layer_norm(x, scale, shift, layer.epsilon)
        return tf.cast(found, layer.compute_dtype)

    return call


@tf.custom_gradient
def gelu(x: Tensor) -> Any:
    """The tanh approximation of GELU (https://arxiv.org/abs/1606.08415).

    0.5·(1 + tanh(u / 2)) = σ(u).

    Args:
        x: float tensor of any shape.

    Returns:
        The same shape and dtype.

    Example:
        >>> round(float(gelu(tf.constant(1.0))), 4)
        0.8412
    """
    gate = tf.sigmoid(x * (A + B * (x * x)))
    y = x * gate

    def gradient(upstream: Tensor) -> Tensor:
        slope = A + (3.0 * B) * (x * x)
        return gate * (1.0 + (x - y) * slope) * upstream

    return y, gradient


def layer_norm(
    x: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> Tensor:
    """Normalises the last axis (https://arxiv.org/abs/1607.06450).

    Args:
        x: float32 [..., H].
        scale: float32 [H].
        shift: float32 [H].
        epsilon: added to the variance.

    Returns:
        float32 [..., H].

    Example:
        >>> layer_norm(
        ...     tf.constant([[1.0, 3.0]]), tf.ones([2]), tf.zeros([2]), 0.0
        ... ).numpy().tolist()
        [[-1.0, 1.0]]
    """

    @tf.custom_gradient
    def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Any:
        centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
        variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
        inverse = tf.math.rsqrt(variance + epsilon)
        unit = centred * inverse

        def gradient(upstream: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            rows = tf.reshape(upstream, [-1, upstream.shape[-1]])
            product = upstream * unit
            to_scale = tf.reduce_sum(tf.reshape(product, tf.shape(rows)), 0)
            to_unit = upstream * scale
            along = tf.reduce_mean(product * scale, axis=-1, keepdims=True)
            mean = tf.reduce_mean(to_unit, axis=-1, keepdims=True)
            to_x = inverse * (to_unit - mean - unit * along)
            return to_x, to_scale, tf.reduce_sum(rows, axis=0)

        return unit * scale + shift, gradient

    return normalized(x, scale, shift)
