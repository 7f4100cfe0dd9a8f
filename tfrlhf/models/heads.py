"""The scalar head that reward and value models put on a backbone."""

import keras
import numpy as np
import tensorflow as tf

from tfrlhf.models import adapters
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.last_block import states_read
from tfrlhf.models.packed_rows import packed_for
from tfrlhf.models.packing import within_segments
from tfrlhf.models.shared_traces import shared_layers
from tfrlhf.types import Tensor


def scalar_head(
    hidden_size: int, stddev: float, name: str
) -> keras.layers.Dense:
    """Makes a linear layer from a hidden state to one number, in float32.

    Args:
        hidden_size: H.
        stddev: standard deviation of the initial weights; the bias is 0.
        name: name of the layer.

    Returns:
        A built `Dense` layer, [..., H] to [..., 1].
    """
    initializer = (
        keras.initializers.RandomNormal(stddev=stddev) if stddev else "zeros"
    )
    head = keras.layers.Dense(
        1, kernel_initializer=initializer, dtype="float32", name=name
    )
    head.build((None, hidden_size))
    return head


def hidden_states(
    backbone: keras.Model,
    token_ids: Tensor,
    padding_mask: Tensor,
    training: bool,
    adapter: Adapter | None = None,
    places: Tensor | None = None,
) -> Tensor:
    """Runs a backbone.

    Args:
        backbone: a KerasHub `Backbone`.
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        training: whether dropout is on.
        adapter: what is active meanwhile.
        places: int [N, 2], row and position of the states that are read, see
            `states_read`; None for all.

    Returns:
        [B, S, H], after the last normalisation.
    """
    packed = None
    if places is not None:
        packed = packed_for(backbone, token_ids, padding_mask)
    with adapters.active(adapter):
        if packed is None:
            inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
            with states_read(backbone, places), shared_layers(backbone):
                return backbone(inputs, training=training)
        inputs = {
            "token_ids": packed.token_ids,
            "padding_mask": packed.padding_mask,
        }
        with (
            within_segments(backbone, packed.segments, packed.positions),
            states_read(backbone, packed.moved(places)),
            shared_layers(backbone),
        ):
            return packed.unpacked(backbone(inputs, training=training))


def places_before(mask: Tensor | None) -> Tensor | None:
    """Finds the states from which tokens are foretold and valued.

    Args:
        mask: int32 [B, S], 1 on the tokens; None for all of them.

    Returns:
        int64 [N, 2], see `hidden_states`; None for all.
    """
    return None if mask is None else tf.where(mask[:, 1:] > 0)


def hidden_size(backbone: keras.Model) -> int:
    """Returns H, the width of the backbone's output."""
    return int(backbone.output.shape[-1])


def as_float(variable: keras.Variable) -> float:
    """Returns a scalar variable's value, mirrored over replicas or not."""
    return float(np.asarray(variable))
