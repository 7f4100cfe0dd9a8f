"""Activations computed again for the gradient, instead of kept."""

from typing import Any

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.packing import MASKS
from tfrlhf.models.replaced_calls import replaced_methods
from tfrlhf.types import Tensor


def rematerialize(backbone: keras.Model) -> None:
    """Lets every layer of a backbone keep its input alone.

    Keras' own `RematScope` does not work with KerasHub's layers on TensorFlow.
    A layer that reads a cache is left as it is: decoding has no gradient.

    Args:
        backbone: a KerasHub `Backbone` without dropout, whose second pass
            would drop something else.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(backbone, keras_hub.models.Backbone) or not hasattr(
        backbone, "transformer_layers"
    ):
        raise ValueError(
            "Only KerasHub's transformers can be rematerialised. Received: "
            f"{type(backbone).__name__}."
        )
    for layer in backbone._flatten_layers():
        if isinstance(layer, keras.layers.Dropout) and layer.rate > 0:
            raise ValueError(
                f"`{layer.path}` drops out at {layer.rate}: build the model "
                "with `dropout=0` to rematerialise it."
            )
    for layer in backbone.transformer_layers:
        if "call" not in vars(layer):
            object.__setattr__(layer, "call", _twice(layer))


def _twice(layer: Any) -> Any:
    plain = layer.call

    def call(inputs: Tensor, *args: Any, **kwargs: Any) -> Any:
        if any("cache" in n and x is not None for n, x in kwargs.items()):
            return plain(inputs, *args, **kwargs)
        # The gradient is taken outside of the block of an adapter or a mask.
        methods = _own_methods(layer)

        def compute(inputs: Tensor) -> Tensor:
            with replaced_methods(methods):
                return plain(inputs, *args, **kwargs)

        return tf.recompute_grad(compute)(inputs)

    return call


def _own_methods(layer: Any) -> list[tuple[Any, str, Any]]:
    parts = layer._flatten_layers(include_self=False)
    calls = [(part, "call", vars(part).get("call")) for part in parts]
    return calls + [(layer, x, vars(layer).get(x)) for x in MASKS]
