"""The loop that draws a token of every row at a time, until all have stopped.

Knows neither the family of the model nor how its cache is kept.
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import keras
import keras_hub
import tensorflow as tf

from tfrlhf.models.sampler import sample_tokens
from tfrlhf.models.unstacked import from_nest
from tfrlhf.models.unstacked import to_nest
from tfrlhf.models.unstacked import with_room
from tfrlhf.types import Completions
from tfrlhf.types import Tensor


class Standing(NamedTuple):
    """How far a decode loop has come; B rows of at most L tokens.

    Attributes:
        token_ids: int32 [B, L].
        cache: what the model keeps of the tokens, by rows.
        index: int32 scalar, the position that is chosen next.
        prompt_length: int32 [B].
        length: int32 [B], of the responses so far.
        active: bool [B], which rows have not stopped.
        log_probs: float32 [B, L], of the responses.
    """

    token_ids: Tensor
    cache: Any
    index: Tensor
    prompt_length: Tensor
    length: Tensor
    active: Tensor
    log_probs: Tensor


class DecodeLoop(keras_hub.samplers.Sampler):
    """Stands in for KerasHub's sampler, which hands over the cached step.

    KerasHub's own loop gives no log-probabilities, draws the same numbers on
    every replica and goes on sampling after a row has stopped.
    """

    def __init__(
        self,
        draws: Tensor,
        few: Callable[[Tensor], Tensor],
        head: Callable[[Tensor], Tensor] | None,
        cache_grows: bool,
        *,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        stop_token_ids: tuple[int, ...],
        pad_id: int,
    ) -> None:
        super().__init__()
        self.draws = draws
        self.few = few
        self.head = head
        self.cache_grows = cache_grows
        self.settings = temperature, top_k, top_p
        self.stop_token_ids = stop_token_ids
        self.pad_id = pad_id
        # Where to begin; None for the prompts.
        self.standing: Any = None

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
        """Runs the loop from the prompts, or from `standing`, and keeps it."""
        begin = self.standing or self._begun(prompt, cache, index, mask)
        (self.standing,) = tf.while_loop(
            self._unfinished,
            lambda standing: [self._step(next, standing)],
            [begin],
            maximum_iterations=tf.shape(begin.token_ids)[1] - begin.index,
        )
        return self.standing.token_ids

    def _begun(
        self, prompt: Tensor, cache: Any, index: Tensor, mask: Tensor
    ) -> Standing:
        mask = tf.cast(mask, tf.int32)
        if self.cache_grows:
            prompt, mask = self.with_room(prompt, mask)
            cache = with_room(cache, tf.shape(self.draws)[1])
        cache = () if cache is None else to_nest(cache)
        prompt, cache, mask = self._for_each_draw((prompt, cache, mask))
        prompt_length = tf.reduce_sum(mask, axis=-1)
        return Standing(
            token_ids=tf.cast(prompt, tf.int32),
            cache=cache,
            index=tf.cast(index, tf.int32),
            prompt_length=prompt_length,
            length=tf.zeros_like(prompt_length),
            active=tf.ones_like(prompt_length, tf.bool),
            log_probs=tf.zeros_like(prompt, tf.float32),
        )

    def _unfinished(self, standing: Standing) -> Tensor:
        active = tf.reduce_sum(tf.cast(standing.active, tf.int32))
        left = tf.shape(standing.token_ids)[1] - standing.index
        return active > self.few(left)

    def _step(
        self,
        next: Callable[..., tuple[Tensor, Tensor, Any]],  # noqa: A002
        standing: Standing,
    ) -> Standing:
        token_ids, cache, index, prompt_length, length, active, log_probs = (
            standing
        )
        limit = tf.shape(self.draws)[1]
        logits, hidden, cache = next(token_ids, from_nest(cache), index)
        if self.head is not None:
            logits = self.head(hidden)
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
        return Standing(
            *(token_ids, to_nest(cache), index + 1),
            *(prompt_length, length, active, log_probs),
        )

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

    def completions(self) -> Completions:
        """Returns the rows as they stand."""
        token_ids, _, _, prompt_length, length, _, log_probs = self.standing
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
