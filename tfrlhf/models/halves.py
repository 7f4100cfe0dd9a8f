"""Dense layers of a new token as two products of half the columns each.

XLA shares a product of few rows out to its threads, which seldom come to its
end at the same time. Of two products that do not wait for each other, one
begins where a thread is done with the other.
"""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.lean_dense import Product
from tfrlhf.models.lean_dense import as_product
from tfrlhf.models.lean_products import sizes
from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.types import Tensor


def halves(model: keras.Model) -> list[list[Tensor]]:
    """Returns the kernels that `in_halves` multiplies with, as they are now.

    Outside of XLA they are made in less time.

    Args:
        model: any that `decode` takes.

    Returns:
        Two matrices [H, W / 2] for each of its layers that are meant.
    """
    found = []
    for layer, product in _halved(model):
        kernel = tf.reshape(layer.kernel, [product.height, product.width])
        kernel = tf.cast(kernel, layer.compute_dtype)
        found.append(tf.split(kernel, 2, axis=1))
    return found


@contextmanager
def in_halves(
    model: keras.Model, kernels: Sequence[Sequence[Tensor]]
) -> Iterator[None]:
    """Lets layers multiply with the halves of their kernels.

    Args:
        model: whose passes are traced inside the block.
        kernels: of `halves`.

    Example:
        >>> with in_halves(model, halves(model)):
        ...     logits, hidden, cache = model.call_with_cache(ids, cache, 3)
    """
    calls = [
        (layer, _call(layer, product, both))
        for (layer, product), both in zip(_halved(model), kernels, strict=True)
    ]
    with replaced_calls(calls):
        yield


def _halved(model: keras.Model) -> list[tuple[Any, Product]]:
    """Returns the dense layers whose result is a row, of a cached step.

    Queries, keys and values are more than one product already. On a GPU a
    product is no faster in parts.
    """
    if tf.config.list_physical_devices("GPU") or not isinstance(
        model, keras_hub.models.CausalLM
    ):
        return []
    layers = model._flatten_layers(include_self=False)
    return [
        (layer, product)
        for layer in layers
        if (product := as_product(layer)) is not None
        and product.of_rows
        and product.width % 2 == 0
    ]


def _call(
    layer: Any, product: Product, kernels: Sequence[Tensor]
) -> Callable[..., Tensor]:
    def call(inputs: Tensor, training: bool | None = None) -> Tensor:
        x = tf.convert_to_tensor(inputs)
        rows = tf.reshape(x, [-1, product.height])
        found = tf.concat([rows @ kernel for kernel in kernels], axis=1)
        if layer.bias is not None:
            found += tf.cast(layer.bias, found.dtype)
        before = sizes(x)[: x.shape.rank - product.inner]
        found = tf.reshape(found, [*before, product.width])
        return found if layer.activation is None else layer.activation(found)

    return call
