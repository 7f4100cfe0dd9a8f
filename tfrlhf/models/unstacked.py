"""KerasHub's cache without its copies.

KerasHub keeps keys and values of all layers in one tensor. It takes it apart
for every token and stacks it anew, so that each token copies the whole cache.
Here stacking along axis 1 is put off while the cached step is traced: what is
stacked only to be taken apart again is never made.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.types import Tensor


class Stacked:
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

    def __tf_tensor__(self, dtype: Any = None, name: Any = None) -> Tensor:
        tensor = self.tensor()
        return tensor if dtype is None else tf.cast(tensor, dtype)

    @property
    def shape(self) -> tf.TensorShape:
        """The shape of the stacked tensor."""
        first = self.parts[0].shape
        return tf.TensorShape([first[0], len(self.parts), *first[1:]])

    @property
    def dtype(self) -> Any:
        """The dtype of the parts."""
        return self.parts[0].dtype


def as_tensor(x: Any) -> Tensor:
    """Stacks what is `Stacked`, and leaves a tensor as it is."""
    return x.tensor() if isinstance(x, Stacked) else x


@contextlib.contextmanager
def unstacked() -> Iterator[None]:
    """Puts off `keras.ops.stack(..., axis=1)` while a step is traced."""
    original = keras.ops.stack

    def stack(x: Any, axis: int = 0) -> Any:
        if axis == 1:
            return Stacked(list(x))
        return original([as_tensor(part) for part in x], axis)

    keras.ops.stack = stack
    try:
        yield
    finally:
        keras.ops.stack = original


def to_nest(cache: Any) -> Any:
    """Turns `Stacked` into lists, which tf.nest and loops know."""
    if isinstance(cache, Stacked):
        return [to_nest(part) for part in cache.parts]
    return cache


def from_nest(nest: Any) -> Any:
    """Turns the lists of `to_nest` into `Stacked` again."""
    if isinstance(nest, list):
        return Stacked([from_nest(part) for part in nest])
    return nest
