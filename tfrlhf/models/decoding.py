"""The decode loop: prompts in, completions out, one compiled program.

Knows nothing of text. Every family of KerasHub is decoded by its own cached
`generate_step`; any other Keras model by full passes without a cache.
"""

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.output_head import head_kernel
from tfrlhf.models.precision import widened
from tfrlhf.models.sampler import sample_tokens
from tfrlhf.models.unstacked import from_nest
from tfrlhf.models.unstacked import to_nest
from tfrlhf.models.unstacked import unstacked
from tfrlhf.models.unstacked import with_room
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Tensor


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
    settings = temperature, top_k, top_p
    with widened(model):
        head = head_of(model)
        loop = _DecodeLoop(
            draws, settings, stop_token_ids, pad_id, head, cache_grows(model)
        )
        return _completed(model, prompts, loop)


def _completed(
    model: keras.Model, prompts: Prompts, loop: "_DecodeLoop"
) -> Completions:
    padding_mask = prompts.padding_mask
    token_ids = tf.where(padding_mask > 0, prompts.token_ids, loop.pad_id)
    if not loop.cache_grows:
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
    return loop.completions


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


def head_of(model: keras.Model) -> Callable[[Tensor], Tensor] | None:
    """Returns hidden states [B, H] to logits [B, V] in an aligned product.

    XLA multiplies with a matrix of an odd number of columns up to nine times
    slower: GPT-2 has 50257. The matrix is turned and filled up once, before
    the loop.

    Args:
        model: any that `decode` takes.

    Returns:
        The function; None where the model's own head does as well.
    """
    rows = head_kernel(model)
    if rows is None:
        return None
    size = rows.shape[0]
    kernel = tf.pad(tf.transpose(rows), [[0, 0], [0, -size % 64]])

    def head(hidden: Tensor) -> Tensor:
        return tf.matmul(tf.cast(hidden, kernel.dtype), kernel)[:, :size]

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


class _DecodeLoop(keras_hub.samplers.Sampler):
    """Stands in for KerasHub's sampler, which hands over the cached step.

    KerasHub's own loop gives no log-probabilities, draws the same numbers on
    every replica and goes on sampling after a row has stopped.
    """

    def __init__(
        self,
        draws: Tensor,
        settings: tuple[Tensor, Tensor, Tensor],
        stop_token_ids: tuple[int, ...],
        pad_id: int,
        head: Callable[[Tensor], Tensor] | None,
        cache_grows: bool,
    ) -> None:
        super().__init__()
        self.draws = draws
        self.settings = settings
        self.stop_token_ids = stop_token_ids
        self.pad_id = pad_id
        self.head = head
        self.cache_grows = cache_grows

    def with_room(
        self, token_ids: Tensor, padding_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Makes room for the new tokens behind the longest prompt."""
        room = [[0, 0], [0, tf.shape(self.draws)[1]]]
        return (
            tf.pad(token_ids, room, constant_values=self.pad_id),
            tf.pad(padding_mask, room),
        )

    def __call__(
        self,
        next: Callable[..., tuple[Tensor, Tensor, Any]],  # noqa: A002
        prompt: Tensor,
        cache: Any = None,
        index: Tensor = 0,
        mask: Tensor = None,
        **kwargs: Any,
    ) -> Tensor:
        """Runs the loop and keeps its result as `completions`."""
        mask = tf.cast(mask, tf.int32)
        if self.cache_grows:
            prompt, mask = self.with_room(prompt, mask)
            cache = with_room(cache, tf.shape(self.draws)[1])
        cache = () if cache is None else to_nest(cache)
        prompt, cache, mask = self._for_each_draw((prompt, cache, mask))
        prompt_length = tf.reduce_sum(mask, axis=-1)
        limit = tf.shape(self.draws)[1]

        def unfinished(
            token_ids: Tensor,
            cache: Any,
            index: Tensor,
            length: Tensor,
            active: Tensor,
            log_probs: Tensor,
        ) -> Tensor:
            return tf.reduce_any(active)

        def step(
            token_ids: Tensor,
            cache: Any,
            index: Tensor,
            length: Tensor,
            active: Tensor,
            log_probs: Tensor,
        ) -> tuple[Any, ...]:
            logits, hidden, cache = next(token_ids, from_nest(cache), index)
            if self.head is not None:
                logits = self.head(hidden)
            cache = to_nest(cache)
            # Outside its response a row's draw is not used.
            number = tf.clip_by_value(index - prompt_length, 0, limit - 1)
            draws = tf.gather(self.draws, number, batch_dims=1)
            sampled, log_prob = sample_tokens(logits, draws, *self.settings)
            responding = active & (index >= prompt_length)
            given = tf.gather(token_ids, index, axis=1)
            column = tf.where(responding, sampled, given)
            token_ids = keras.ops.slice_update(
                token_ids, [0, index], column[:, None]
            )
            log_probs = keras.ops.slice_update(
                log_probs,
                [0, index],
                tf.where(responding, log_prob, 0.0)[:, None],
            )
            length += tf.cast(responding, tf.int32)
            stopped = responding & self._is_stop(column)
            active &= ~stopped & (length < limit)
            return token_ids, cache, index + 1, length, active, log_probs

        state = (
            tf.cast(prompt, tf.int32),
            cache,
            tf.cast(index, tf.int32),
            tf.zeros_like(prompt_length),
            tf.ones_like(prompt_length, tf.bool),
            tf.zeros_like(prompt, tf.float32),
        )
        token_ids, _, _, length, _, log_probs = tf.while_loop(
            unfinished,
            step,
            state,
            maximum_iterations=tf.shape(prompt)[1] - state[2],
        )
        self.completions = self._completions(
            token_ids, prompt_length, length, log_probs
        )
        return token_ids

    def _for_each_draw(self, rows: Any) -> Any:
        """Repeats what was read of a prompt for each of its responses."""
        if rows[0].shape[0] == self.draws.shape[0] is not None:
            return rows
        count = tf.shape(rows[0])[0]
        each = tf.shape(self.draws)[0] // count

        def repeat(x: Tensor) -> Tensor:
            rest = tf.shape(x)[1:]
            shape = tf.concat([[count, each], rest], axis=0)
            copies = tf.broadcast_to(x[:, None], shape)
            flat = tf.concat([[count * each], rest], axis=0)
            return tf.ensure_shape(
                tf.reshape(copies, flat), [self.draws.shape[0], *x.shape[1:]]
            )

        return tf.nest.map_structure(repeat, rows)

    def _is_stop(self, token_ids: Tensor) -> Tensor:
        stops = tf.constant(
            self.stop_token_ids, tf.int32, [len(self.stop_token_ids)]
        )
        return tf.reduce_any(token_ids[:, None] == stops[None, :], axis=-1)

    def _completions(
        self,
        token_ids: Tensor,
        prompt_length: Tensor,
        length: Tensor,
        log_probs: Tensor,
    ) -> Completions:
        position = tf.range(tf.shape(token_ids)[1])[None, :]
        start, end = prompt_length[:, None], (prompt_length + length)[:, None]
        last = tf.gather(token_ids, prompt_length + length - 1, batch_dims=1)
        return Completions(
            token_ids=tf.where(position < end, token_ids, self.pad_id),
            padding_mask=tf.cast(position < end, tf.int32),
            response_mask=tf.cast(
                (position >= start) & (position < end), tf.int32
            ),
            finished=tf.cast(self._is_stop(last), tf.int32),
            sampler_log_probs=log_probs,
        )
