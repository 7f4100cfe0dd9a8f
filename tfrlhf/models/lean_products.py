"""Einsums as products of matrices.

TensorFlow turns the operands of an einsum and of both its gradients anew. As
reshaped matrices they are turned once or not at all (docs/performance.md).
"""

import contextlib
import functools
import operator
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from tfrlhf.types import Tensor

_einsum = tf.einsum


@contextlib.contextmanager
def lean_products() -> Iterator[None]:
    """Lets `tf.einsum`, which Keras' layers use, be `product` for a while.

    Example:
        >>> with lean_products():
        ...     hidden = model.backbone(inputs)
    """
    tf.einsum = product
    try:
        yield
    finally:
        tf.einsum = _einsum


def product(equation: str, *operands: Tensor, **kwargs: Any) -> Tensor:
    """What `tf.einsum` gives, by one product of matrices where it can.

    Args:
        equation: as in `tf.einsum`.
        *operands: tensors.
        **kwargs: see `tf.einsum`.

    Returns:
        The tensor of the equation.

    Example:
        >>> product("bij,jk->bik", tf.ones([2, 3, 4]), tf.ones([4, 5])).shape
        TensorShape([2, 3, 5])
    """
    plan = _plan(equation) if len(operands) == 2 else None
    if plan is None:
        return _einsum(equation, *operands, **kwargs)
    first, second = map(tf.convert_to_tensor, operands)
    if plan.swapped:
        first, second = second, first
    return plan.multiply(first, second)


class _Plan(NamedTuple):
    """How an einsum of two operands is a product of matrices.

    Attributes:
        first: the axes of the first operand, letters.
        second: those of the second.
        swapped: whether the first operand is the second of the equation.
        batch: axes of both operands and the result.
        rows: axes of the first and the result.
        inner: axes of both that are summed over.
        columns: axes of the second and the result.
        result: the axes of the result.
    """

    first: str
    second: str
    swapped: bool
    batch: str
    rows: str
    inner: str
    columns: str
    result: str

    def multiply(self, first: Tensor, second: Tensor) -> Tensor:
        size = dict(zip(self.first, sizes(first), strict=True))
        size |= dict(zip(self.second, sizes(second), strict=True))
        left, turn_left = self._matrix(
            first, self.first, self.rows, self.inner, size
        )
        right, turn_right = self._matrix(
            second, self.second, self.inner, self.columns, size
        )
        found = tf.matmul(
            left, right, transpose_a=turn_left, transpose_b=turn_right
        )
        axes = self.batch + self.rows + self.columns
        found = tf.reshape(found, [size[axis] for axis in axes])
        return _ordered(found, axes, self.result)

    def _matrix(
        self,
        x: Tensor,
        axes: str,
        before: str,
        after: str,
        size: dict[str, Any],
    ) -> tuple[Tensor, bool]:
        """Returns matrices, and whether they are yet to be turned."""
        # What is in one piece already need not be moved.
        turned = axes.endswith(before) and not axes.endswith(after)
        groups = (after, before) if turned else (before, after)
        x = _ordered(x, axes, self.batch + "".join(groups))
        shape = [size[axis] for axis in self.batch]
        shape += [
            functools.reduce(operator.mul, [size[axis] for axis in group])
            for group in groups
        ]
        return tf.reshape(x, shape), turned


def _plan(equation: str) -> _Plan | None:
    operands, arrow, result = equation.replace(" ", "").partition("->")
    first, comma, second = operands.partition(",")
    parts = first, second, result
    if not (arrow and comma and all(p.isalpha() for p in parts)):
        return None
    if any(len(set(p)) != len(p) for p in parts):
        return None
    batch = "".join(a for a in result if a in first and a in second)
    inner = "".join(a for a in second if a in first and a not in result)
    rows = "".join(a for a in result if a in first and a not in batch)
    columns = "".join(a for a in result if a in second and a not in batch)
    alone = set(first) ^ set(second)
    if not (rows and columns and inner) or alone - set(result):
        return None
    swapped = result.index(columns[0]) < result.index(rows[0])
    if swapped:
        first, second, rows, columns = second, first, columns, rows
    return _Plan(first, second, swapped, batch, rows, inner, columns, result)


def _ordered(x: Tensor, axes: str, order: str) -> Tensor:
    if axes == order:
        return x
    return tf.transpose(x, [axes.index(axis) for axis in order])


def sizes(x: Tensor) -> list[Any]:
    """Returns the sizes of all axes, numbers where they are known."""
    known = x.shape.as_list()
    if None not in known:
        return known
    # Two operations, where indexing `tf.shape` would be five for each axis.
    asked = tf.unstack(tf.shape(x), len(known))
    return [a if n is None else n for n, a in zip(known, asked, strict=True)]
