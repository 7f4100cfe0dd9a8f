"""Assertions on what the operations and losses are given.

Shape and dtype are read while a function is traced, so inside `tf.function`
a check costs nothing. A dimension that is unknown while tracing is not
compared. This file knows no formula.
"""

from collections.abc import Sequence
from numbers import Real

import tensorflow as tf

from tfrlhf.types import Tensor


def float_tensor(name: str, value: Tensor, rank: int | None = None) -> Tensor:
    """Converts to a float32 tensor and refuses every other dtype.

    Args:
        name: the argument's name, for the message.
        value: a tensor, an array or nested lists of floats.
        rank: the number of axes, or None for any.

    Returns:
        The float32 tensor.

    Raises:
        ValueError: if the dtype is not float32 or the rank is another.

    Example:
        >>> float_tensor("values", [0.5, 1.0], rank=1).shape.as_list()
        [2]
    """
    return _typed(name, value, tf.float32, rank)


def int_tensor(name: str, value: Tensor, rank: int | None = None) -> Tensor:
    """Converts to an int32 tensor and refuses every other dtype.

    Args:
        name: the argument's name, for the message.
        value: a tensor, an array or nested lists of integers.
        rank: the number of axes, or None for any.

    Returns:
        The int32 tensor.

    Raises:
        ValueError: if the dtype is not int32 or the rank is another.

    Example:
        >>> int_tensor("mask", [[1, 0]], rank=2).shape.as_list()
        [1, 2]
    """
    return _typed(name, value, tf.int32, rank)


def same_shape(**tensors: Tensor) -> None:
    """Asserts that all tensors have the shape of the first, not broadcast.

    Args:
        **tensors: tensors by the names of the arguments they came in.

    Raises:
        ValueError: if two shapes differ in a dimension that both know.

    Example:
        >>> same_shape(x=tf.zeros([2, 3]), mask=tf.ones([2, 3]))
    """
    first, *others = tensors
    expected = tensors[first].shape
    for name in others:
        received = tensors[name].shape
        if not expected.is_compatible_with(received):
            raise ValueError(
                f"`{name}` must have the shape of `{first}`, {expected}. "
                f"Received: shape {received}."
            )


def same_batch(**tensors: Tensor) -> None:
    """Asserts that all tensors have as many rows as the first.

    Args:
        **tensors: tensors by the names of the arguments they came in.

    Raises:
        ValueError: if two first dimensions differ and both are known.

    Example:
        >>> same_batch(x=tf.zeros([2, 3]), scores=tf.ones([2]))
    """
    first, *others = tensors
    expected = tensors[first].shape[:1]
    for name in others:
        received = tensors[name].shape[:1]
        if not expected.is_compatible_with(received):
            raise ValueError(
                f"`{name}` must have as many rows as `{first}`, {expected[0]}."
                f" Received: {received[0]} rows."
            )


def within(
    name: str, value: float, low: float, high: float = float("inf")
) -> None:
    """Asserts low <= value <= high; a tensor's value is not looked at.

    Args:
        name: the argument's name, for the message.
        value: a number.
        low: the smallest number allowed.
        high: the largest number allowed.

    Raises:
        ValueError: if the number is outside, or not a number.

    Example:
        >>> within("discount", 0.99, 0.0, 1.0)
    """
    if isinstance(value, Real) and not low <= value <= high:
        bounds = (
            f"at least {low}"
            if high == float("inf")
            else f"between {low} and {high}"
        )
        raise ValueError(f"`{name}` must be {bounds}. Received: {value}.")


def positive(name: str, value: float) -> None:
    """Asserts value > 0; a tensor's value is not looked at.

    Args:
        name: the argument's name, for the message.
        value: a number.

    Raises:
        ValueError: if the number is not positive.

    Example:
        >>> positive("temperature", 0.7)
    """
    if isinstance(value, Real) and not value > 0:
        raise ValueError(f"`{name}` must be positive. Received: {value}.")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    """Asserts that a choice is one of those offered.

    Args:
        name: the argument's name, for the message.
        value: what was chosen.
        allowed: what may be chosen.

    Raises:
        ValueError: if it is none of them.

    Example:
        >>> one_of("kind", "k1", ("k1", "k2", "k3"))
    """
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {', '.join(map(repr, allowed))}. "
            f"Received: {value!r}."
        )


def _typed(name: str, value: Tensor, dtype: Tensor, rank: int | None) -> Tensor:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype != dtype:
        raise ValueError(
            f"`{name}` must be {dtype.name}. Received: {tensor.dtype.name}."
        )
    if rank is not None and tensor.shape.rank not in (None, rank):
        raise ValueError(
            f"`{name}` must have {rank} axes. Received: shape {tensor.shape}."
        )
    return tensor
