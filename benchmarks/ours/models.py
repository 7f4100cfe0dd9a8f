"""Random models in KerasHub, and text that is made of so many tokens."""

import math
from typing import Any

import keras_hub
import numpy as np
import tensorflow as tf
from tokenizers import Tokenizer
from tokenizers import models
from tokenizers import pre_tokenizers

import tfrlhf
from benchmarks.shapes import MEAN_LENGTH
from benchmarks.shapes import Shape


def awaken() -> None:
    """Keeps TensorFlow's threads busy for some milliseconds."""
    tf.matmul(tf.zeros([1024, 1024]), tf.zeros([1024, 1024]))


def policy(
    shape: Shape, dtype: str = "float32", ragged: bool = False
) -> tfrlhf.Policy:
    """Builds a policy with random weights.

    Args:
        shape: its size.
        dtype: a Keras dtype policy.
        ragged: whether responses end by themselves.

    Returns:
        The policy, with a tokenizer of one word a token.
    """
    family = keras_hub.models
    if shape.family == "gpt2":
        trunk = family.GPT2Backbone(
            vocabulary_size=shape.vocabulary,
            num_layers=shape.layers,
            num_heads=shape.heads,
            hidden_dim=shape.width,
            intermediate_dim=shape.feed_forward,
            max_sequence_length=max(shape.length, 128),
            dropout=0.0,
            dtype=dtype,
        )
        model = family.GPT2CausalLM(backbone=trunk, preprocessor=None)
    else:
        trunk = family.LlamaBackbone(
            vocabulary_size=shape.vocabulary,
            num_layers=shape.layers,
            num_query_heads=shape.heads,
            num_key_value_heads=shape.key_heads or shape.heads,
            hidden_dim=shape.width,
            intermediate_dim=shape.feed_forward,
            tie_word_embeddings=True,
            dtype=dtype,
        )
        model = family.LlamaCausalLM(backbone=trunk, preprocessor=None)
    if ragged:
        end_at_random(trunk, shape)
    return tfrlhf.Policy(model, tokenizer(shape), max(shape.length, 128))


def end_at_random(trunk: Any, shape: Shape) -> None:
    """Makes every token the last one with the same probability.

    The first number of the hidden state below the head becomes 1, and the end
    token's row of the head reads nothing else; so its logit is a constant, and
    lengths are geometric.
    """
    norm = trunk.get_layer("layer_norm")
    norm.gamma.assign(np.r_[0.0, np.ones(shape.width - 1)])
    norm.beta.assign(np.r_[1.0, np.zeros(shape.width - 1)])
    table = np.array(trunk.token_embedding.embeddings)
    table[:, 0] = 0.0
    end = shape.vocabulary - 1
    table[end] = 0.0
    # The other logits are normal: unit inputs times weights of this spread.
    variance = shape.width * float(table[:end].var())
    others = math.log(end) + variance / 2
    chance = 1.0 / (MEAN_LENGTH * shape.response)
    table[end, 0] = others + math.log(chance / (1.0 - chance))
    trunk.token_embedding.embeddings.assign(table)


def tokenizer(shape: Shape) -> tfrlhf.Tokenizer:
    """A tokenizer whose id 17 is the word t17; the last id ends a response."""
    words = {f"t{i}": i for i in range(shape.vocabulary)}
    backend = Tokenizer(models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return tfrlhf.Tokenizer(
        backend, bos_id=None, eos_id=shape.vocabulary - 1, pad_id=0
    )


def texts(shape: Shape, count: int, length: int, seed: int = 0) -> list[str]:
    """Makes texts of as many words, each one token."""
    ids = random_ids(shape, count, length, seed)
    return [" ".join(f"t{i}" for i in row) for row in ids]


def random_ids(
    shape: Shape, count: int, length: int, seed: int = 0
) -> np.ndarray:
    """Ids that are neither padding nor the end, int32 [count, length]."""
    numbers = np.random.default_rng(seed)
    return numbers.integers(
        1, shape.vocabulary - 1, [count, length], dtype=np.int32
    )


def prompts(shape: Shape) -> tfrlhf.types.Prompts:
    """A batch of prompts of full length."""
    ids = tf.constant(random_ids(shape, shape.batch, shape.prompt))
    return tfrlhf.types.Prompts(ids, tf.ones_like(ids))
