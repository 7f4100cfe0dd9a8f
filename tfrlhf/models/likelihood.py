"""How likely a policy finds given responses."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrlhf import data
from tfrlhf import ops
from tfrlhf.models.compilation import resolve_jit
from tfrlhf.types import Tensor


class WithLikelihood:
    """What a policy says of responses in text; a part of `Policy`."""

    log_probs: Any
    need_tokenizer: Any
    context_length: int
    _likelihood_function: Any = None

    def perplexity(
        self, prompts: list[str], responses: list[str], batch_size: int = 64
    ) -> np.ndarray:
        """Measures how unexpected responses are.

        exp(−1/T · Σ_t log p(token_t | tokens before t)) over the T tokens of a
        response, the EOS that ends it included, as in training.

        Args:
            prompts: B strings.
            responses: B strings.
            batch_size: how many to run at a time.

        Returns:
            float64 [B], at least 1.

        Raises:
            ValueError: no tokenizer, or a response too long for the context.

        Example:
            >>> policy.perplexity(["Once upon a"], [" time"])
            array([8.31])
        """
        sequences = data.sequences(
            prompts, responses, self.need_tokenizer(), self.context_length
        )
        losses = []
        for batch in data.batches(sequences, batch_size):
            log_probs = self.predict_log_probs(
                batch.token_ids, batch.padding_mask
            )
            kept = ops.zero_outside(log_probs, batch.loss_mask)
            count = tf.reduce_sum(batch.loss_mask, axis=-1)
            losses.append(-tf.reduce_sum(kept, -1) / tf.cast(count, tf.float32))
        return np.exp(np.concatenate(losses).astype(np.float64))

    def predict_log_probs(
        self, token_ids: Tensor, padding_mask: Tensor, temperature: float = 1.0
    ) -> Tensor:
        """Scores tokens as `log_probs` does, compiled once and kept.

        For measuring; inside a compiled function call `log_probs`.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S], 1 on tokens.
            temperature: that divides the logits.

        Returns:
            float32 [B, S].
        """
        if self._likelihood_function is None:
            self._likelihood_function = tf.function(
                self.log_probs,
                jit_compile=resolve_jit("auto")["collect"],
                autograph=False,
                reduce_retracing=True,
            )
        return self._likelihood_function(token_ids, padding_mask, temperature)

    def forget_likelihood(self) -> None:
        """Forgets the compiled function: the layers have changed."""
        self._likelihood_function = None
