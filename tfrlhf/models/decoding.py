"""Decoding: prompts in, completions out, one compiled program.

Knows nothing of text. Every family of KerasHub is decoded by its own cached
`generate_step`; any other Keras model by full passes without a cache.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from typing import NamedTuple

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.decode_loop import DecodeLoop
from tfrlhf.models.decode_loop import Standing
from tfrlhf.models.halves import halves
from tfrlhf.models.halves import in_halves
from tfrlhf.models.output_head import head_kernel
from tfrlhf.models.precision import widened
from tfrlhf.models.sampler import BLOCK
from tfrlhf.models.unstacked import unstacked
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Tensor


class DecodeWeights(NamedTuple):
    """Weights as a decode loop multiplies with them.

    Attributes:
        head: of `head_matrix`.
        kernels: of `halves`.
    """

    head: Tensor | None
    kernels: list[list[Tensor]]


def decode_weights(model: keras.Model) -> DecodeWeights:
    """Prepares weights, as they are now, for the tokens of a rollout.

    Outside of XLA, which takes up to ten times as long for it.

    Args:
        model: any that `decode` takes.
    """
    with widened(model):
        return DecodeWeights(head_matrix(model), halves(model))


def decode(
    model: keras.Model,
    prompts: Prompts,
    draws: Tensor,
    *,
    temperature: Tensor = 1.0,
    top_k: Tensor = 0,
    top_p: Tensor = 1.0,
    stop_token_ids: tuple[int, ...] = (),
    pad_id: int = 0,
) -> Completions:
    """Continues every prompt in place until it stops or is full.

    Args:
        model: a KerasHub `CausalLM`, or a Keras model from `{"token_ids",
            "padding_mask"}` to logits [B, S, V].
        prompts: `Prompts` of at least one token a row.
        draws: float32 [B, T] in [0, 1), a random number for each new token;
            T is the largest number of new tokens. With n times as many rows
            as there are prompts, each is continued n times and read once.
        temperature: float scalar; 0 is greedy.
        top_k: int32 scalar; 0 keeps all tokens.
        top_p: float scalar; 1 keeps all tokens.
        stop_token_ids: ids that end a response.
        pad_id: what follows a response.

    Returns:
        `Completions` of length S + T.

    Example:
        >>> decode(model, prompts, uniform_draws((0, 0), 8, 32))
    """
    return decode_until(
        *(model, prompts, draws, lambda left: 0),
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        stop_token_ids=stop_token_ids,
        pad_id=pad_id,
    )[0]


def decode_until(
    model: keras.Model,
    begin: Prompts | Standing,
    draws: Tensor,
    few: Callable[[Tensor], Tensor],
    weights: DecodeWeights | None = None,
    **settings: Any,
) -> tuple[Completions, Standing]:
    """Continues rows until all of them have stopped, or all but a few.

    Args:
        model: see `decode`.
        begin: `Prompts`, or rows as this function has left them.
        draws: see `decode`, of these rows.
        few: from the number of positions that are left to the number of rows
            with which the loop is left; int32 scalars.
        weights: of `decode_weights`; None makes them here.
        **settings: see `decode`.

    Returns:
        `Completions` of all rows, and where they stand.
    """
    weights = weights or decode_weights(model)
    with widened(model), in_halves(model, weights.kernels):
        head = head_of(model, weights.head)
        loop = DecodeLoop(*(draws, few, head, cache_grows(model)), **settings)
        if isinstance(begin, Standing):
            loop.standing = begin
            position = tf.range(tf.shape(begin.token_ids)[1])[None, :]
            known = position < begin.prompt_length[:, None]
            # That KerasHub reads these again is never computed.
            begin = Prompts(begin.token_ids, tf.cast(known, tf.int32))
        _run(model, begin, loop)
    return loop.completions(), loop.standing


def _run(model: keras.Model, prompts: Prompts, loop: DecodeLoop) -> None:
    padding_mask = prompts.padding_mask
    token_ids = tf.where(padding_mask > 0, prompts.token_ids, loop.pad_id)
    if not loop.cache_grows and loop.standing is None:
        token_ids, padding_mask = loop.with_room(token_ids, padding_mask)
    if isinstance(model, keras_hub.models.CausalLM):
        original = model.sampler
        model.sampler = loop
        try:
            with unstacked() if stacks_anew(model) else nullcontext():
                model.generate_step(
                    {"token_ids": token_ids, "padding_mask": padding_mask},
                    stop_token_ids=None,
                )
        finally:
            model.sampler = original
    else:
        loop(
            _full_pass(model),
            token_ids,
            index=tf.reduce_min(tf.reduce_sum(padding_mask, axis=-1)),
            mask=padding_mask,
        )


def stacks_anew(model: keras.Model) -> bool:
    """Tells whether the cache is stacked for every token, and may be left so.

    SmolLM3 hands it on by a name that Keras wants a tensor for.
    """
    return isinstance(model, keras_hub.models.CausalLM) and not isinstance(
        model, keras_hub.models.SmolLM3CausalLM
    )


def cache_grows(model: keras.Model) -> bool:
    """Tells whether the cached step knows no more than the cache's length.

    Gemma 3's step slices the mask of the prompts at every token, for which it
    has to be as long as the result.
    """
    if not stacks_anew(model):
        return False
    parameters = inspect.signature(model.call_with_cache).parameters
    return "cache_update_mask" not in parameters


def head_matrix(model: keras.Model) -> Tensor | None:
    """Returns what `head_of` multiplies with, for the weights as they are.

    Args:
        model: any that `decode` takes.

    Returns:
        float [H, W], of at least as many columns as there are tokens; None
        where the model's own head does as well.
    """
    rows = head_kernel(model)
    if rows is None:
        return None
    more = -rows.shape[0] % BLOCK
    if (rows.shape[0] + more) % 1024 == 0:
        more += 64
    return tf.transpose(tf.pad(rows, [[0, more], [0, 0]]))


def head_of(
    model: keras.Model, matrix: Tensor | None
) -> Callable[[Tensor], Tensor] | None:
    """Returns hidden states [B, H] to logits in an aligned product.

    XLA multiplies with a matrix of an odd number of columns up to nine times
    slower (GPT-2 has 50257), and a fifth slower where all of its rows begin
    at the same place of a page, which is one place of the caches. The matrix
    is turned and filled up once, before the loop.

    Args:
        model: any that `decode` takes.
        matrix: of `head_matrix`.

    Returns:
        The function, to [B, V] filled up with -inf to whole blocks of the
        sampler; None where the model's own head does as well.
    """
    if matrix is None:
        return None
    size = model.backbone.token_embedding.input_dim
    full = size + -size % BLOCK
    is_token = tf.range(full) < size

    def head(hidden: Tensor) -> Tensor:
        logits = tf.matmul(tf.cast(hidden, matrix.dtype), matrix)[:, :full]
        if full == size:
            return logits
        return tf.where(is_token, logits, -float("inf"))

    return head


def _full_pass(model: keras.Model) -> Callable[..., tuple[Tensor, None, Any]]:
    def step(
        token_ids: Tensor, cache: Any, index: Tensor
    ) -> tuple[Tensor, None, Any]:
        shape = tf.shape(token_ids)
        mask = tf.broadcast_to(tf.range(shape[1]) < index, shape)
        inputs = {
            "token_ids": token_ids,
            "padding_mask": tf.cast(mask, "int32"),
        }
        logits = model(inputs, training=False)
        return tf.gather(logits, index - 1, axis=1), None, cache

    return step
