"""What a request must be, checked in the graph that answers it.

A broken limit fails with one sentence that names it, made of core ops. Knows
nothing of models.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tfrlhf.types import Prompts
from tfrlhf.types import Tensor

# The characters that Python's `str.strip` takes away.
BLANK = r"[\t-\r\x1c-\x20\x{85}\pZ]*"


def text_input(name: str) -> tf.TensorSpec:
    """Returns the signature of texts, string [B]."""
    return tf.TensorSpec([None], tf.string, name)


def id_inputs() -> list[tf.TensorSpec]:
    """Returns the signature of ids and their mask, int32 [B, S]."""
    return [
        tf.TensorSpec([None, None], tf.int32, name)
        for name in ("token_ids", "padding_mask")
    ]


def signature(function: Callable[..., Any], inputs: list[tf.TensorSpec]) -> Any:
    """Returns a `tf.function` with an output for each key of the result."""
    # Nothing here branches on tensors in Python, and rewriting takes longer.
    return tf.function(function, input_signature=inputs, autograph=False)


def require(
    condition: Tensor, message: str, values: Sequence[Tensor] = ()
) -> tf.Operation:
    """Makes an op that fails, with a message, unless a condition holds.

    Args:
        condition: bool scalar.
        message: one sentence, `{}` for every value.
        values: scalars.
    """
    sentence = tf.strings.format(message, list(values))
    return tf.debugging.Assert(condition, [sentence])


def after(checks: Sequence[tf.Operation], value: Any) -> Any:
    """Returns a value, or a structure, that waits for the checks.

    Without it an op that cannot digest the request may fail first, with a
    message of its own.
    """
    with tf.control_dependencies(checks):
        return tf.nest.map_structure(tf.identity, value)


def require_some(name: str, texts: Tensor) -> tf.Operation:
    """Refuses a request of no texts at all."""
    return require(
        tf.size(texts) > 0, f"`{name}` is empty: send at least one text."
    )


def require_filled(name: str, texts: Tensor) -> tf.Operation:
    """Refuses texts, string [B], of white space alone."""
    blank = tf.strings.regex_full_match(texts, BLANK)
    row = tf.argmax(tf.cast(blank, tf.int32))
    return require(
        ~tf.reduce_any(blank), f"`{name}` {{}} is blank: write its text.", [row]
    )


def require_rows(token_ids: Tensor, padding_mask: Tensor) -> tf.Operation:
    """Refuses int32 [B, S] that are no right-padded rows of a token or more."""
    lengths = tf.reduce_sum(padding_mask, axis=1)
    rows = tf.sequence_mask(lengths, tf.shape(padding_mask)[1], tf.int32)
    return require(
        tf.reduce_all(tf.shape(token_ids) == tf.shape(padding_mask))
        & tf.reduce_all(lengths > 0)
        & tf.reduce_all(rows == padding_mask),
        "`padding_mask` must have the shape of `token_ids`, and in every row "
        "one 1 or more with nothing but 0 behind.",
    )


def padded(rows: tf.RaggedTensor, pad_id: int) -> Prompts:
    """Returns rows of ids, int32 [B, (S)], with their mask."""
    token_ids = rows.to_tensor(pad_id)
    mask = tf.sequence_mask(
        rows.row_lengths(), tf.shape(token_ids)[1], tf.int32
    )
    return Prompts(token_ids, mask)
