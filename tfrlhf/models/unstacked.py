"""KerasHub's cache without its copies.

KerasHub keeps keys and values of all layers in one tensor. It takes it apart
for every token and stacks it anew, so that each token copies the whole cache.
Here stacking along axis 1 is put off while the cached step is traced: what is
stacked only to be taken apart again is never made.

Attention multiplies keys and values in another order of axes than the one they
are kept in, so that each token turns all that came before it. Here they are
kept as they are multiplied.

Where heads of queries share keys and values, these are written out for each of
them at every token. Here they are multiplied with all of their queries at once.
"""

import contextlib
import re
import string
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.models.lean_products import sizes
from tfrlhf.types import Tensor


class Deferred:
    """A tensor that is made when something needs it."""

    def tensor(self) -> Tensor:
        """Makes it."""
        raise NotImplementedError

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Tensor:
        tensor = self.tensor()
        return tensor if dtype is None else tf.cast(tensor, dtype)


class Stacked(Deferred):
    """Tensors, or more of these, as if stacked along axis 1.

    Indexing `x[:, i, ...]` gives a part back. Whatever else needs a tensor
    gets the stacked one, so that the numbers never change.

    Args:
        parts: equal in shape and dtype.
    """

    def __init__(self, parts: list[Any]) -> None:
        self.parts = parts

    def __getitem__(self, index: Any) -> Any:
        if (
            isinstance(index, tuple)
            and len(index) >= 2
            and index[0] == slice(None)
            and isinstance(index[1], int)
            and all(i is Ellipsis or i == slice(None) for i in index[2:])
        ):
            return self.parts[index[1]]
        return self.tensor()[index]

    def tensor(self) -> Tensor:
        """Stacks the parts."""
        return tf.stack([as_tensor(part) for part in self.parts], axis=1)

    @property
    def shape(self) -> tf.TensorShape:
        """The shape of the stacked tensor."""
        first = self.parts[0].shape
        return tf.TensorShape([first[0], len(self.parts), *first[1:]])

    @property
    def dtype(self) -> Any:
        """The dtype of the parts."""
        return self.parts[0].dtype


class Turned(Deferred):
    """A tensor [B, S, N, D] that is kept in another order of its axes.

    `keras.ops.slice_update` and `repeat` take it as it is kept. Whatever else
    needs a tensor gets it in its own order.

    Args:
        kept: the tensor as it is kept.
        order: the axis of [B, S, N, D] that each axis of `kept` is.
    """

    def __init__(self, kept: Tensor, order: tuple[int, ...]) -> None:
        self.kept = kept
        self.order = order

    def tensor(self) -> Tensor:
        """Returns [B, S, N, D]."""
        back = [self.order.index(axis) for axis in range(len(self.order))]
        return tf.transpose(self.kept, back)

    def updated(self, start: Any, update: Tensor) -> "Turned":
        """Puts [b, s, n, d] where it begins at `start`."""
        kept = _slice_update(
            self.kept,
            [start[axis] for axis in self.order],
            tf.transpose(update, self.order),
        )
        return Turned(kept, self.order)

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor()[index]

    @property
    def shape(self) -> tf.TensorShape:
        """The shape in its own order."""
        axes = range(len(self.order))
        return tf.TensorShape(
            [self.kept.shape[self.order.index(axis)] for axis in axes]
        )

    @property
    def dtype(self) -> Any:
        """The dtype of the tensor."""
        return self.kept.dtype


# The axis of heads in [B, S, N, D].
HEADS = 2


class Repeated(Deferred):
    """A `Turned` with each of its heads several times, one after the other.

    `keras.ops.einsum` takes it as it is kept. Whatever else needs a tensor
    gets the repeated one.

    Args:
        once: keys or values, [B, S, N, D].
        each: how many heads of queries share one of them.
    """

    def __init__(self, once: Turned, each: int) -> None:
        self.once = once
        self.each = each

    def tensor(self) -> Tensor:
        """Returns [B, S, N · each, D]."""
        return _repeat(self.once.tensor(), self.each, HEADS)

    def product(self, equation: str, queries: Tensor) -> Tensor | None:
        """What `einsum` of the queries, or their weights, and this gives.

        Args:
            equation: of two operands, the second of them this.
            queries: the first.

        Returns:
            The result; None where the heads are not an axis of all three.
        """
        axes = re.split(",|->", equation.replace(" ", ""))
        if len(axes) != 3:
            return None
        first, second, result = axes
        head = second[HEADS]
        if first.count(head) != 1 or result.count(head) != 1:
            return None
        group = next(a for a in string.ascii_lowercase if a not in equation)
        shape = sizes(queries)
        place = first.index(head)
        shape[place : place + 1] = [self.once.shape[HEADS], self.each]
        first, result = (x.replace(head, head + group) for x in (first, result))
        found = _einsum(
            f"{first},{second}->{result}",
            tf.reshape(queries, shape),
            self.once.tensor(),
        )
        shape = sizes(found)
        place = result.index(head)
        shape[place : place + 2] = [self.shape[HEADS]]
        return tf.reshape(found, shape)

    def __getitem__(self, index: Any) -> Tensor:
        return self.tensor()[index]

    @property
    def shape(self) -> tf.TensorShape:
        """The shape of the repeated tensor."""
        shape = self.once.shape.as_list()
        shape[HEADS] *= self.each
        return tf.TensorShape(shape)

    @property
    def dtype(self) -> Any:
        """The dtype of the tensor."""
        return self.once.dtype


# As keys and values are multiplied: by queries over D, by weights over S.
KEYS, VALUES = (0, 2, 3, 1), (0, 2, 1, 3)
_stack, _slice_update, _repeat, _einsum = (
    keras.ops.stack,
    keras.ops.slice_update,
    keras.ops.repeat,
    keras.ops.einsum,
)


def as_tensor(x: Any) -> Tensor:
    """Makes what is `Deferred`, and leaves a tensor as it is."""
    return x.tensor() if isinstance(x, Deferred) else x


@contextlib.contextmanager
def unstacked() -> Iterator[None]:
    """Puts off stacking along axis 1, and turning, while a step is traced."""

    def stack(x: Any, axis: int = 0) -> Any:
        if axis == 1:
            return Stacked(list(x))
        return _stack([as_tensor(part) for part in x], axis)

    def slice_update(inputs: Any, start_indices: Any, updates: Any) -> Any:
        if isinstance(inputs, Turned):
            return inputs.updated(start_indices, updates)
        return _slice_update(inputs, start_indices, updates)

    def repeat(x: Any, repeats: Any, axis: int | None = None) -> Any:
        if isinstance(x, Turned) and axis == HEADS and repeats > 1:
            return Repeated(x, repeats)
        return _repeat(as_tensor(x), repeats, axis)

    def einsum(subscripts: str, *operands: Any, **kwargs: Any) -> Any:
        found = None
        if len(operands) == 2 and isinstance(operands[1], Repeated):
            found = operands[1].product(subscripts, operands[0])
        if found is None:
            whole = [as_tensor(x) for x in operands]
            found = _einsum(subscripts, *whole, **kwargs)
        return found

    keras.ops.stack = stack
    keras.ops.slice_update = slice_update
    keras.ops.repeat = repeat
    keras.ops.einsum = einsum
    try:
        yield
    finally:
        keras.ops.stack = _stack
        keras.ops.slice_update = _slice_update
        keras.ops.repeat = _repeat
        keras.ops.einsum = _einsum


def with_room(cache: Any, room: Tensor) -> Any:
    """Lets keys and values [B, S, N, D] in `Stacked` be S + `room` long."""
    if isinstance(cache, Stacked):
        return Stacked([with_room(part, room) for part in cache.parts])
    return tf.pad(cache, [[0, 0], [0, room], [0, 0], [0, 0]])


def to_nest(cache: Any) -> Any:
    """Turns `Stacked` into lists, which tf.nest and loops know.

    Args:
        cache: `Stacked`, or whatever a family keeps instead.

    Returns:
        Lists of tensors; pairs of [B, S, N, D], which are keys and values, as
        they are multiplied.
    """
    if not isinstance(cache, Stacked):
        return cache
    if not _is_pair(cache.parts):
        return [to_nest(part) for part in cache.parts]
    pair = zip(cache.parts, (KEYS, VALUES), strict=True)
    return [
        x.kept if isinstance(x, Turned) else tf.transpose(x, order)
        for x, order in pair
    ]


def from_nest(nest: Any) -> Any:
    """Turns the lists of `to_nest` into `Stacked` again."""
    if not isinstance(nest, list):
        return nest
    if _is_pair(nest):
        pair = zip(nest, (KEYS, VALUES), strict=True)
        return Stacked([Turned(x, order) for x, order in pair])
    return Stacked([from_nest(part) for part in nest])


def _is_pair(parts: list[Any]) -> bool:
    return len(parts) == 2 and all(
        not isinstance(x, Stacked | list) and len(x.shape) == 4 for x in parts
    )
