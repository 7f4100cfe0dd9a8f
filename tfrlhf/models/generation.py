"""How a policy answers prompts."""

import functools
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrlhf.data import encode_prompts
from tfrlhf.data.messages import is_messages
from tfrlhf.models import adapters
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.decode_loop import Standing
from tfrlhf.models.decoder import Decoder
from tfrlhf.models.decoding import DecodeWeights
from tfrlhf.models.decoding import decode
from tfrlhf.models.decoding import decode_until
from tfrlhf.models.decoding import decode_weights
from tfrlhf.models.sampler import Sampler
from tfrlhf.models.sampler import uniform_draws
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Tensor


class WithGeneration:
    """Prompts in, responses out; a part of `Policy`."""

    model: keras.Model
    tokenizer: Tokenizer | None
    context_length: int
    adapter: Adapter | None
    need_tokenizer: Any
    _decoders: dict[Sampler, Decoder]

    def generate(
        self,
        prompts: str | list[Any] | Prompts,
        max_new_tokens: int | None = None,
        sampler: Sampler | None = None,
        seed: int | tuple[int, int] | None = None,
    ) -> str | list[str] | Completions:
        """Answers prompts.

        Args:
            prompts: a string or a list of messages ({"role", "content"}) for
                the tokenizer's chat template, a list of either, or `Prompts`.
            max_new_tokens: the longest response in tokens, the stop token
                included; wins over the sampler's.
            sampler: `Sampler`; None samples at temperature 1.
            seed: int or a pair of them; the same seed gives the same
                responses, None draws one.

        Returns:
            The responses without prompt and special tokens (a string for one
            prompt, a list for a list), or `Completions` for `Prompts`.

        Raises:
            ValueError: no maximum length, no tokenizer for text, an empty
                prompt, or a prompt too long for the model's context.
        """
        sampler = sampler or Sampler()
        limit = max_new_tokens
        if limit is None:
            limit = sampler.max_new_tokens
        if limit is None:
            raise ValueError(
                "`generate` needs the longest response: give `max_new_tokens` "
                "or a sampler that has it."
            )
        if limit < 1:
            raise ValueError(
                "`max_new_tokens` must be at least 1. Received: "
                f"max_new_tokens={limit}"
            )
        if seed is None:
            seed = int(np.random.default_rng().integers(2**31))
        if isinstance(prompts, Prompts):
            return self._generate_ids(prompts, limit, sampler, seed)
        alone = isinstance(prompts, str) or is_messages(prompts)
        texts = [prompts] if alone else list(prompts)
        completions = self._generate_ids(
            self.encode_prompts(texts, limit), limit, sampler, seed
        )
        responses = self.decode_responses(completions)
        return responses[0] if alone else responses

    def encode_prompts(self, texts: list[Any], max_new_tokens: int) -> Prompts:
        """Tokenises prompts, leaving room for the response.

        Args:
            texts: B strings or lists of messages.
            max_new_tokens: the room to leave, in tokens.

        Returns:
            `Prompts`, S a multiple of 32 where the context allows.

        Raises:
            ValueError: no tokenizer, an empty prompt, or one too long.
        """
        room = self.context_length - max_new_tokens
        if room < 1:
            raise ValueError(
                f"`max_new_tokens` is {max_new_tokens}, but the model's "
                f"context is {self.context_length} tokens: it must be "
                "smaller, to leave room for a prompt."
            )
        return encode_prompts(texts, self.need_tokenizer(), room)

    def decode_responses(self, completions: Completions) -> list[str]:
        """Turns the responses of B completions into B strings."""
        tokenizer = self.need_tokenizer()
        token_ids = np.asarray(completions.token_ids)
        response = np.asarray(completions.response_mask) > 0
        prompt = (np.asarray(completions.padding_mask) > 0) & ~response
        return [
            tokenizer.decode_response(
                token_ids[row][prompt[row]].tolist(),
                token_ids[row][response[row]].tolist(),
            )
            for row in range(len(token_ids))
        ]

    def decode(
        self, prompts: Prompts, draws: Tensor, sampler: Sampler
    ) -> Completions:
        """Continues prompts inside a compiled function; see `decode`."""
        with adapters.active(self.adapter):
            return decode(
                self.model, prompts, draws, **self._decode_settings(sampler)
            )

    def decoder(
        self, sampler: Sampler, compiled: Callable[[Any], Any]
    ) -> Decoder:
        """Returns what continues prompts outside of compiled functions.

        Args:
            sampler: how responses are drawn.
            compiled: compiles a function of tensors.
        """

        def until(
            begin: Prompts | Standing,
            draws: Tensor,
            few: Callable[[Tensor], Tensor],
            weights: DecodeWeights,
        ) -> tuple[Completions, Standing]:
            settings = self._decode_settings(sampler)
            with adapters.active(self.adapter):
                return decode_until(
                    self.model, begin, draws, few, weights, **settings
                )

        def weights() -> DecodeWeights:
            with adapters.active(self.adapter):
                return decode_weights(self.model)

        work = 2 * max(self.model.count_params(), 1)
        return Decoder(until, weights, compiled, self._pad_id, work)

    @property
    def _pad_id(self) -> int:
        return 0 if self.tokenizer is None else self.tokenizer.pad_id

    def _decode_settings(self, sampler: Sampler) -> dict[str, Any]:
        return {
            "temperature": sampler.temperature,
            "top_k": sampler.top_k,
            "top_p": sampler.top_p,
            "stop_token_ids": self.stop_token_ids(sampler),
            "pad_id": self._pad_id,
        }

    def stop_token_ids(self, sampler: Sampler) -> tuple[int, ...]:
        """Returns the ids that end a response."""
        if sampler.stop_token_ids is not None:
            return sampler.stop_token_ids
        if self.tokenizer is None or self.tokenizer.eos_id is None:
            return ()
        return (self.tokenizer.eos_id,)

    def _generate_ids(
        self,
        prompts: Prompts,
        limit: int,
        sampler: Sampler,
        seed: int | tuple[int, int],
    ) -> Completions:
        rows, length = np.asarray(prompts.token_ids).shape
        if length + limit > self.context_length:
            raise ValueError(
                f"Prompts of {length} tokens with `max_new_tokens`={limit} do "
                f"not fit the model's context of {self.context_length} tokens."
            )
        if not np.asarray(prompts.padding_mask)[:, 0].all():
            raise ValueError(
                "Every prompt needs at least one token, right-padded: row "
                f"{int(np.argmin(np.asarray(prompts.padding_mask)[:, 0]))} of "
                "`padding_mask` does not start with 1."
            )
        if sampler not in self._decoders:
            self._decoders[sampler] = self.decoder(
                sampler,
                functools.partial(
                    tf.function, jit_compile=True, autograph=False
                ),
            )
        pair = seed if isinstance(seed, tuple) else (seed, 0)
        draws = uniform_draws(pair, rows, limit)
        prompts = Prompts(*(tf.constant(x, tf.int32) for x in prompts))
        return self._decoders[sampler](prompts, draws)
