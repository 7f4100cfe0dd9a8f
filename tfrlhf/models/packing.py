"""Attention that stays within each of several examples in one row.

KerasHub's backbones take a padding mask and no attention mask. Each of their
decoder layers makes its mask in one function, which is narrowed here while a
forward pass is traced; learned positions start anew with each example (rotary
ones are relative). No KerasHub code is replaced, and none of it afterwards
knows of packing.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.replaced_calls import UsingTensors
from tfrlhf.models.replaced_calls import replaced_methods
from tfrlhf.types import Tensor

# The functions of decoder layers that make masks.
MASKS = ("_compute_self_attention_mask", "_compute_attention_mask")
# Tested: a packed row gives what its examples give alone.
FAMILIES = (
    "GPT2Backbone",
    "LlamaBackbone",
    "Llama3Backbone",
    "MistralBackbone",
    "QwenBackbone",
    "Qwen3Backbone",
    "GemmaBackbone",
    "Gemma3Backbone",
    "SmolLM3Backbone",
)


def is_known(backbone: keras.Model) -> bool:
    """Tells whether a backbone is of `FAMILIES`."""
    return type(backbone).__name__ in FAMILIES


@contextmanager
def within_segments(
    backbone: keras.Model, segments: Tensor, positions: Tensor | None = None
) -> Iterator[None]:
    """Keeps the attention of forward passes within segments.

    Args:
        backbone: a KerasHub backbone of `FAMILIES`.
        segments: int32 [B, S], equal for the tokens of one example, which
            are side by side; the rows of the passes are these.
        positions: int32 [B, S], of the tokens in their examples; None counts
            them.

    Raises:
        ValueError: a family for which this was never tested.

    Example:
        >>> with within_segments(policy.trunk, batch.segments):
        ...     hidden = policy.trunk(inputs)
    """
    name = type(backbone).__name__
    if not is_known(backbone):
        raise ValueError(
            f"Packing is known for {', '.join(FAMILIES)}, not for {name}: "
            "train it on rows of one example."
        )
    blocks = tf.equal(segments[:, :, None], segments[:, None, :])
    masks = [
        (layer, attribute, UsingTensors(_narrowing(compute), blocks))
        for layer in backbone.layers
        for attribute in MASKS
        if (compute := getattr(layer, attribute, None)) is not None
    ]
    if len(masks) != backbone.num_layers:
        raise ValueError(
            f"This version of KerasHub makes {len(masks)} attention masks for "
            f"the {backbone.num_layers} layers of {name}: packing would "
            "leak."
        )
    if positions is None:
        positions = _positions(segments)
    moved = [
        (layer, "call", _moved(layer.call, positions))
        for layer in backbone.layers
        if isinstance(layer, keras_hub.layers.PositionEmbedding)
    ]
    with replaced_methods(masks + moved):
        yield


def _narrowing(compute: Any) -> Any:
    def to_blocks(blocks: Tensor) -> Any:
        def narrow(*args: Any, **kwargs: Any) -> Tensor:
            mask = tf.cast(compute(*args, **kwargs), tf.bool)
            return tf.logical_and(mask, blocks)

        return narrow

    return to_blocks


def _moved(call: Any, positions: Tensor) -> Any:
    def move(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return call(inputs, positions=positions)

    return move


def _positions(segments: Tensor) -> Tensor:
    """Counts from 0 in each segment, int32 [B, S]."""
    index = tf.broadcast_to(tf.range(tf.shape(segments)[1]), tf.shape(segments))
    change = tf.not_equal(segments[:, 1:], segments[:, :-1])
    starts = tf.pad(change, [[0, 0], [1, 0]], constant_values=True)
    # A running maximum, as the number of the start that came last.
    order = tf.cumsum(tf.cast(starts, tf.int32), axis=1) - 1
    places = tf.ragged.boolean_mask(index, starts).to_tensor()
    return index - tf.gather(places, order, batch_dims=1)
