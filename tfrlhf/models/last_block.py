"""The last block of a backbone, where its states are read.

What comes after the last attention looks at one position at a time: of a
prompt, nobody reads it. Two thirds of a block's products are there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.models.replaced_calls import UsingTensors
from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.types import Tensor

# Where the feed-forward part of a decoder layer begins and ends. Tested: the
# states that are read are those of the whole block.
_DENSE = "_feedforward_layernorm", "_feedforward_output_dense"
PARTS = {
    "GPT2Backbone": ("_feedforward_layer_norm", "_feedforward_output_dense"),
    "LlamaBackbone": _DENSE,
    "Llama3Backbone": _DENSE,
    "MistralBackbone": _DENSE,
    "QwenBackbone": _DENSE,
    "Qwen3Backbone": _DENSE,
    "SmolLM3Backbone": ("post_attention_layernorm", "mlp"),
}
# Numbers of states are rounded up, as layers are compiled for each.
BUCKET = 128


@contextmanager
def states_read(backbone: keras.Model, places: Tensor | None) -> Iterator[None]:
    """Spares the last block's feed-forward part the states nobody reads.

    Args:
        backbone: of any family; of one that is not in `PARTS`, all states are
            computed.
        places: int [N, 2], row and position of the states that are read; None
            for all. The other states have no meaning.

    Example:
        >>> with states_read(policy.trunk, tf.where(mask > 0)):
        ...     hidden = policy.trunk(inputs)
    """
    # Registered subclasses change settings, not the order of layers.
    names = [base.__name__ for base in type(backbone).__mro__]
    known = [PARTS[name] for name in names if name in PARTS]
    if places is None or not known:
        yield
        return
    first, last = (
        getattr(backbone.transformer_layers[-1], part) for part in known[0]
    )
    if last.quantization_mode is not None:
        # Keras calls something else of such a layer.
        yield
        return
    begin, end = first.call, last.call
    shapes: list[Any] = []

    def taking(places: Tensor) -> Any:
        def take(x: Tensor, **kwargs: Any) -> Tensor:
            shapes.append((tf.shape(x, places.dtype), x.shape))
            return begin(tf.gather_nd(x, _rounded_up(places)), **kwargs)

        return take

    def putting(places: Tensor) -> Any:
        def put(x: Tensor, **kwargs: Any) -> Tensor:
            shape, static = shapes.pop()
            found = end(x, **kwargs)[: tf.shape(places)[0]]
            return tf.ensure_shape(tf.scatter_nd(places, found, shape), static)

        return put

    calls = [
        (first, UsingTensors(taking, places)),
        (last, UsingTensors(putting, places)),
    ]
    with replaced_calls(calls):
        yield


def _rounded_up(places: Tensor) -> Tensor:
    if places.shape[0] is not None:
        return places
    # With the first position of the first row, whose result is not used.
    more = -tf.shape(places)[0] % BUCKET
    return tf.pad(places, [[0, more], [0, 0]])
