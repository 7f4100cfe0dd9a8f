"""The precision a model computes in, for a while."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf


@contextmanager
def widened(model: keras.Model) -> Iterator[None]:
    """Lets passes that are traced compute in float32 on processors.

    XLA has no kernels of shorter floats there: it would turn every weight to
    bfloat16 and back for each product. On other devices nothing changes.

    Args:
        model: whose layers' passes are meant; its variables stay as they are,
            and so do layers with quantised weights.

    Example:
        >>> with widened(model):
        ...     logits = model(inputs)
    """
    if tf.config.list_physical_devices("GPU"):
        yield
        return
    wide = keras.DTypePolicy("float32")
    changed = [
        (layer, layer.dtype_policy)
        for layer in (model, *model._flatten_layers(include_self=False))
        if layer.dtype_policy.quantization_mode is None
        and layer.compute_dtype in ("bfloat16", "float16")
    ]
    try:
        for layer, _ in changed:
            layer.dtype_policy = wide
        yield
    finally:
        for layer, policy in changed:
            layer.dtype_policy = policy
