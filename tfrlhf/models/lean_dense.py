"""Dense layers as one product of two matrices, the bias added within it."""

import math
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import tensorflow as tf

from tfrlhf.models.lean_products import sizes
from tfrlhf.types import Tensor


class Product(NamedTuple):
    """A dense layer as a product of two matrices.

    Attributes:
        height: of the kernel [H, W], a product of its first axes.
        width: of the kernel, a product of its other axes.
        inner: how many axes its first ones are.
        of_rows: whether the others are one axis.
    """

    height: int
    width: int
    inner: int
    of_rows: bool


def as_product(layer: Any) -> Product | None:
    """Describes a dense layer by the matrices it multiplies.

    Args:
        layer: any Keras layer.

    Returns:
        The product; None for other layers, and for those with quantised
        weights or adapters.
    """
    if (
        type(layer) not in (keras.layers.Dense, keras.layers.EinsumDense)
        or "call" in vars(layer)
        or not layer.built
        or layer.quantization_mode is not None
        or layer.lora_enabled
    ):
        return None
    shape = tuple(layer.kernel.shape)
    inner = 1
    if isinstance(layer, keras.layers.EinsumDense):
        inner = _contracted(layer.equation)
    if not inner or (
        layer.bias is not None and tuple(layer.bias.shape) != shape[inner:]
    ):
        return None
    height, width = math.prod(shape[:inner]), math.prod(shape[inner:])
    return Product(height, width, inner, of_rows=len(shape) == inner + 1)


def dense_call(layer: Any) -> Callable[..., Tensor] | None:
    """Returns what may be called in the place of a dense layer's `call`.

    Args:
        layer: any Keras layer.

    Returns:
        The function; None where `as_product` knows none.
    """
    product = as_product(layer)
    if product is None:
        return None
    height, width, inner, of_rows = product

    def call(inputs: Tensor, training: bool | None = None) -> Tensor:
        x = tf.convert_to_tensor(inputs)
        kernel = tf.cast(_shaped(layer.kernel, [height, width]), x.dtype)
        bias = None
        if layer.bias is not None:
            bias = tf.cast(_shaped(layer.bias, [width]), x.dtype)
        found = dense(tf.reshape(x, [-1, height]), kernel, bias)
        activation = layer.activation or keras.activations.linear
        # Of rows where it can, as XLA compiles it for each shape.
        found = activation(found) if of_rows else found
        before = sizes(x)[: x.shape.rank - inner]
        found = tf.reshape(found, [*before, *layer.kernel.shape[inner:]])
        return found if of_rows else activation(found)

    return call


def _shaped(x: Any, shape: list[int]) -> Tensor:
    # Operations that do nothing take their time while a graph is made.
    x = tf.convert_to_tensor(x)
    return x if x.shape == shape else tf.reshape(x, shape)


def _contracted(equation: str) -> int:
    """Returns how many axes of a kernel are summed over, its first ones.

    0 where there is more to the equation than a product of two matrices.
    """
    inputs, _, rest = equation.partition(",")
    kernel, _, result = rest.partition("->")
    inner = "".join(axis for axis in kernel if axis in inputs)
    plain = (
        kernel.startswith(inner)
        and inputs.endswith(inner)
        and result == inputs[: len(inputs) - len(inner)] + kernel[len(inner) :]
    )
    return len(inner) if plain else 0


def dense(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """Returns x · kernel + bias.

    Args:
        x: float [N, H].
        kernel: [H, W], of the same dtype.
        bias: [W]; None for none.

    Returns:
        [N, W].

    Example:
        >>> dense(tf.ones([1, 2]), tf.ones([2, 1]), tf.ones([1])).numpy()
        array([[3.]], dtype=float32)
    """

    @tf.custom_gradient
    def product(x: Tensor, kernel: Tensor, *bias: Tensor) -> Any:
        found = tf.matmul(x, kernel)
        for each in bias:
            found = tf.nn.bias_add(found, each)

        def gradient(upstream: Tensor) -> tuple[Tensor, ...]:
            to_x = _times_turned(upstream, kernel)
            to_kernel = tf.matmul(x, upstream, transpose_a=True)
            return to_x, to_kernel, *(_column_sums(upstream) for _ in bias)

        return found, gradient

    return product(x, kernel, *(() if bias is None else (bias,)))


def _times_turned(x: Tensor, kernel: Tensor) -> Tensor:
    """Returns x [N, W] times a kernel [H, W], turned."""
    height, width = kernel.shape
    if width <= height or x.dtype != tf.float32:
        return tf.matmul(x, kernel, transpose_b=True)
    # oneDNN is a third slower where it turns a wide matrix itself. Without
    # the check of its shape TensorFlow would let it do so all the same.
    turned = tf.ensure_shape(tf.transpose(kernel), [width, height])
    return tf.matmul(x, turned)


def _column_sums(x: Tensor) -> Tensor:
    # Of float32 in half the time of `tf.reduce_sum`.
    if x.dtype == tf.float32:
        return tf.raw_ops.BiasAddGrad(out_backprop=x)
    return tf.reduce_sum(x, axis=0)
