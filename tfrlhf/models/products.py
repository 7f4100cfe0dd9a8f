"""Dense layers' products with gradients that suit a processor.

Where XLA does not compile a step, TensorFlow takes the gradient of a batch of
sequences times a matrix sequence by sequence and adds the matrices up, and that
of a flat product through a kernel which is slow on a turned matrix. Here both
are single products, through the kernel that is fast on them.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfrlhf.types import Tensor

# As they are when nothing is traced: replicas are traced in threads.
_matmul = tf.matmul
_tensordot = tf.tensordot


@contextlib.contextmanager
def flat_products() -> Iterator[None]:
    """Replaces products with matrices while a gradient is traced.

    Keras' layers and KerasHub's multiply by `tf.matmul` and `tf.tensordot`.

    Example:
        >>> with flat_products(), tf.GradientTape() as tape:
        ...     logits = model(inputs)
    """
    tf.matmul = _or_flat(_matmul, (2, 3, 4), {"output_type": None})
    tf.tensordot = _or_flat(
        _tensordot, (3, 4), {"axes": [[-1], [0]]}, needed=True
    )
    try:
        yield
    finally:
        tf.matmul, tf.tensordot = _matmul, _tensordot


def _or_flat(
    original: Any,
    ranks: tuple[int, ...],
    options: dict[str, Any],
    needed: bool = False,
) -> Any:
    """Takes the flat product where the call asks for that and no more."""

    def product(a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        plain = not args and kwargs.items() <= options.items()
        if (
            not plain
            or (needed and not kwargs)
            or not (tf.is_tensor(a) and tf.is_tensor(b))
            or a.dtype != b.dtype
            or not a.dtype.is_floating
            or a.shape.rank not in ranks
            or b.shape.rank != 2
        ):
            return original(a, b, *args, **kwargs)
        return flat_product(a, b)

    return product


@tf.custom_gradient
def flat_product(x: Tensor, kernel: Tensor) -> Any:
    """x · kernel, with the gradients of one flat product.

    Args:
        x: float [..., K].
        kernel: float [K, N] of the same dtype.

    Returns:
        [..., N].
    """
    inner, outer = kernel.shape
    rows = tf.reshape(x, [-1, inner])
    result = _with_last(_matmul(rows, kernel), x, outer)

    def gradient(upstream: Tensor) -> tuple[Tensor, Tensor]:
        slope = tf.reshape(upstream, [-1, outer])
        # As a batch of one: the kernel for batches reads a turned matrix fast.
        to_rows = _matmul(slope[None], kernel[None], transpose_b=True)[0]
        to_kernel = _matmul(rows, slope, transpose_a=True)
        return _with_last(to_rows, x, inner), to_kernel

    return result, gradient


def _with_last(rows: Tensor, like: Tensor, last: int) -> Tensor:
    """Shapes rows as another tensor but for its last axis."""
    if like.shape.rank == 2:
        return rows
    shape = tf.concat([tf.shape(like)[:-1], [last]], axis=0)
    return tf.ensure_shape(tf.reshape(rows, shape), [*like.shape[:-1], last])
