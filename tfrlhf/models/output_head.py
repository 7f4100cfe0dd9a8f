"""The output head: from hidden states to what a policy says of tokens."""

import keras
import keras_hub
import tensorflow as tf

from tfrlhf import ops
from tfrlhf.models.statistics import TokenStatistics
from tfrlhf.models.statistics import aligned
from tfrlhf.models.statistics import token_statistics
from tfrlhf.types import Tensor

# Families whose logits are their embedding, turned, and nothing else.
PLAIN_HEADS = (
    keras_hub.models.GPT2CausalLM,
    keras_hub.models.LlamaCausalLM,
    keras_hub.models.MistralCausalLM,
    keras_hub.models.QwenCausalLM,
    keras_hub.models.Qwen3CausalLM,
    keras_hub.models.SmolLM3CausalLM,
)


def head_kernel(model: keras.Model) -> Tensor | None:
    """Returns the matrix of a head that is one product.

    Args:
        model: any that `Policy` takes.

    Returns:
        float [V, H] in the dtype the head computes in; None where there is
        more to the head, or its weights are quantised.
    """
    embedding = getattr(
        getattr(model, "backbone", None), "token_embedding", None
    )
    if (
        not isinstance(embedding, keras.layers.ReversibleEmbedding)
        or not isinstance(model, PLAIN_HEADS)
        or embedding.quantization_mode is not None
        or getattr(embedding, "lora_enabled", False)
    ):
        return None
    kernel = (
        tf.convert_to_tensor(embedding.embeddings)
        if embedding.tie_weights
        else tf.transpose(embedding.reverse_embeddings)
    )
    return tf.cast(kernel, embedding.reverse_dtype or embedding.compute_dtype)


def head_statistics(
    model: keras.Model,
    hidden: Tensor,
    token_ids: Tensor,
    temperature: float = 1.0,
    where: Tensor | None = None,
    entropy_has_gradient: bool = False,
) -> TokenStatistics:
    """Describes the distribution tokens were drawn from.

    Args:
        model: of `PLAIN_HEADS`.
        hidden: float [B, S, H], what the head takes.
        token_ids: int32 [B, S].
        temperature: divides the logits, as the sampler does.
        where: int32 [B, S], 1 on the tokens to speak about, for which alone
            there are logits then; None for all. XLA, which has no shapes that
            depend on values, needs None.
        entropy_has_gradient: see `token_statistics`.

    Returns:
        `TokenStatistics`, aligned, column 0 is 0.
    """
    kernel = head_kernel(model)
    if kernel is None:
        logits = model.backbone.token_embedding(hidden, reverse=True)
        return token_statistics(
            logits, token_ids, temperature, entropy_has_gradient
        )
    token_ids = token_ids[:, 1:]
    shape = tf.shape(token_ids)
    if where is None:
        rows = tf.reshape(hidden[:, :-1], [-1, hidden.shape[-1]])
        targets = tf.reshape(token_ids, [-1])
    else:
        places = tf.where(where[:, 1:] > 0)
        rows, targets = (tf.gather_nd(x, places) for x in (hidden, token_ids))
    found = ops.fused_token_statistics(
        tf.cast(rows, kernel.dtype),
        kernel,
        targets,
        temperature,
        entropy_has_gradient,
        in_place=where is not None,
    )

    def put_back(x: Tensor) -> Tensor:
        if where is None:
            return tf.reshape(x, shape)
        shape64 = tf.cast(shape, places.dtype)
        if x.dtype == tf.bool:
            return tf.scatter_nd(places, tf.cast(x, tf.int32), shape64) > 0
        return tf.scatter_nd(places, x, shape64)

    return aligned(*map(put_back, found))
