"""Layers that take less time and remember less for their gradients.

Keras spells GELU and layer normalisation out in many operations, each of which
goes over memory and keeps what its own gradient needs. Here each is one pass,
and so is its gradient (docs/performance.md).
"""

import functools
from collections.abc import Callable
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub  # noqa: F401, registers its activation.
import tensorflow as tf

from tfrlhf.models.lean_attention import attention_method
from tfrlhf.models.lean_dense import dense_call
from tfrlhf.models.lean_products import lean_products
from tfrlhf.models.lean_products import sizes
from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.models.replaced_calls import replaced_methods
from tfrlhf.types import Tensor

# u = x·(A + B·x²) is twice what tanh is taken of.
A = 2.0 * 0.7978845608028654
B = A * 0.044715


@contextmanager
def lean_layers(model: keras.Model) -> Iterator[None]:
    """Lets passes that are traced use `gelu`, `layer_norm` and plain products.

    Args:
        model: whose layers with KerasHub's approximate GELU, whose
            normalisations over the last axis and whose dense layers are meant.
            They are as they were afterwards.

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
    calls = [(x, _norm_call(x)) for x in layers if _is_plain_norm(x)]
    calls += [(x, call) for x in layers if (call := dense_call(x)) is not None]
    methods = [
        (layer, "_compute_attention", method)
        for layer in layers
        if (method := attention_method(layer)) is not None
    ]
    try:
        for layer in active:
            layer.activation = gelu
        with replaced_calls(calls), replaced_methods(methods), lean_products():
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
        x = tf.cast(inputs, layer.compute_dtype)
        scale, shift = (
            tf.cast(v, tf.float32) for v in (layer.gamma, layer.beta)
        )
        return layer_norm(x, scale, shift, layer.epsilon)

    return call


# Rows as wide as these are worth the 30 ms that a program of XLA takes to
# compile, for every number of tokens: those of models of width 256.
WIDE, WIDE_INSIDE = 256, 1024


def _fused(least: int) -> Callable[[Any], Any]:
    """Makes a function of wide rows one pass over memory, by XLA.

    Args:
        least: numbers in a row that are worth it.

    Returns:
        A decorator of functions, whose first argument is what turns float32
        into another dtype. It is left out when they are called.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        compiled = tf.function(
            functools.partial(function, _rounded),
            jit_compile=True,
            autograph=False,
            reduce_retracing=True,
        )

        @functools.wraps(function)
        def chosen(x: Tensor, *others: Any) -> Any:
            if x.shape.rank and (x.shape[-1] or 0) >= least:
                return compiled(x, *others)
            return function(tf.cast, x, *others)

        return chosen

    return decorate


def _rounded(x: Tensor, dtype: Any) -> Tensor:
    """Casts float32, bfloat16 to the nearest, of two the even one.

    Spelt out XLA does it with whole vectors, in half the time of its own cast.
    """
    if dtype != tf.bfloat16:
        return tf.cast(x, dtype)
    bits = tf.bitcast(x, tf.uint32)
    odd = tf.bitwise.bitwise_and(_high(bits), 1)
    # NaN stays NaN: the lower half of its bits is 0.
    return tf.bitcast(tf.cast(_high(bits + odd + 0x7FFF), tf.uint16), dtype)


def _high(bits: Tensor) -> Tensor:
    return tf.bitwise.right_shift(bits, tf.constant(16, tf.uint32))


@tf.custom_gradient
def gelu(x: Tensor) -> Any:
    """The tanh approximation of GELU (https://arxiv.org/abs/1606.08415).

    0.5·(1 + tanh(u / 2)) = σ(u).

    Args:
        x: float tensor of any shape; computed in float32.

    Returns:
        The same shape and dtype.

    Example:
        >>> round(float(gelu(tf.constant(1.0))), 4)
        0.8412
    """
    return _gelu(x), functools.partial(_gelu_gradient, x)


@_fused(WIDE_INSIDE)
def _gelu(cast: Any, x: Tensor) -> Tensor:
    wide = tf.cast(x, tf.float32)
    return cast(wide * _gate(wide), x.dtype)


@_fused(WIDE_INSIDE)
def _gelu_gradient(cast: Any, x: Tensor, upstream: Tensor) -> Tensor:
    wide = tf.cast(x, tf.float32)
    gate = _gate(wide)
    slope = A + (3.0 * B) * (wide * wide)
    found = gate * (1.0 + (wide - wide * gate) * slope)
    return cast(found * tf.cast(upstream, tf.float32), x.dtype)


def _gate(x: Tensor) -> Tensor:
    return tf.sigmoid(x * (A + B * (x * x)))


def layer_norm(
    x: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> Tensor:
    """Normalises the last axis (https://arxiv.org/abs/1607.06450).

    Args:
        x: float [..., H]; computed in float32.
        scale: float32 [H].
        shift: float32 [H].
        epsilon: added to the variance.

    Returns:
        The shape and dtype of `x`.

    Example:
        >>> layer_norm(
        ...     tf.constant([[1.0, 3.0]]), tf.ones([2]), tf.zeros([2]), 0.0
        ... ).numpy().tolist()
        [[-1.0, 1.0]]
    """

    @tf.custom_gradient
    def normalized(x: Tensor, scale: Tensor, shift: Tensor) -> Any:
        found, mean, inverse = _norm(x, scale, shift, epsilon)
        return found, functools.partial(_norm_gradient, x, scale, mean, inverse)

    if x.shape.rank == 2:
        return normalized(x, scale, shift)
    rows = tf.reshape(x, [-1, x.shape[-1]])
    return tf.reshape(normalized(rows, scale, shift), sizes(x))


@_fused(WIDE)
def _norm(
    cast: Any, x: Tensor, scale: Tensor, shift: Tensor, epsilon: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns [N, H] normalised, and float32 [N, 1] mean and 1 / deviation."""
    wide = tf.cast(x, tf.float32)
    mean = tf.reduce_mean(wide, axis=-1, keepdims=True)
    centred = wide - mean
    variance = tf.reduce_mean(centred * centred, axis=-1, keepdims=True)
    inverse = tf.math.rsqrt(variance + epsilon)
    return cast(centred * inverse * scale + shift, x.dtype), mean, inverse


@_fused(WIDE)
def _norm_gradient(
    cast: Any,
    x: Tensor,
    scale: Tensor,
    mean: Tensor,
    inverse: Tensor,
    upstream: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    unit = (tf.cast(x, tf.float32) - mean) * inverse
    upstream = tf.cast(upstream, tf.float32)
    product = upstream * unit
    to_unit = upstream * scale
    along = tf.reduce_mean(product * scale, axis=-1, keepdims=True)
    even = tf.reduce_mean(to_unit, axis=-1, keepdims=True)
    to_x = inverse * (to_unit - even - unit * along)
    return (
        cast(to_x, x.dtype),
        tf.reduce_sum(product, axis=0),
        tf.reduce_sum(upstream, axis=0),
    )
