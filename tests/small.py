"""Small models with tokenizers, made anew for whoever asks."""

import functools

import keras
import keras_hub
import numpy as np

import tfrlhf
from tests.texts import BILINGUAL

CONTEXT = 64


@functools.cache
def tokenizer():
    """Byte-level BPE of 300 tokens; the same object each time."""
    return tfrlhf.Tokenizer.train(BILINGUAL, 300)


def gpt2_policy(seed=1, dropout=0.0, sharpness=1.0):
    """A 2-layer GPT-2 of width 32.

    Args:
        seed: of the weights.
        dropout: of every layer.
        sharpness: factor of the weights; with 1 every token is as likely.
    """
    return _policy(
        keras_hub.models.GPT2CausalLM, gpt2_backbone(seed, dropout, sharpness)
    )


def gpt2_backbone(seed=1, dropout=0.0, sharpness=1.0):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=tokenizer().vocabulary_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=CONTEXT,
        dropout=dropout,
    )
    _scale(backbone, sharpness)
    return backbone


def llama_policy(seed=1, sharpness=1.0):
    """A 2-layer Llama of width 32 with tied embeddings."""
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=tokenizer().vocabulary_size,
        num_layers=2,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        tie_word_embeddings=True,
    )
    _scale(backbone, sharpness)
    return _policy(keras_hub.models.LlamaCausalLM, backbone)


def reward_model(seed=2, sharpness=1.0):
    """A reward model with a GPT-2 of its own and the policy's tokenizer."""
    backbone = gpt2_backbone(seed, sharpness=sharpness)
    return tfrlhf.RewardModel(backbone, tokenizer(), CONTEXT)


def weights(model):
    """Copies of a model's weights."""
    return [np.asarray(v).copy() for v in model.weights]


def _policy(family, backbone):
    model = family(backbone=backbone, preprocessor=None)
    return tfrlhf.Policy(model, tokenizer(), CONTEXT)


def _scale(backbone, sharpness):
    for weight in backbone.trainable_weights:
        if "kernel" in weight.path or "embedding" in weight.path:
            weight.assign(weight * sharpness)
