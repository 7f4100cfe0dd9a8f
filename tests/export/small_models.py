"""Models that are fast to export and whose answers differ."""

import keras
import keras_hub

from tfrlhf import Policy
from tfrlhf import RewardModel


def small_backbone(vocabulary_size, seed):
    keras.utils.set_random_seed(seed)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=vocabulary_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=32,
        intermediate_dim=64,
        max_sequence_length=64,
        dropout=0.0,
    )
    for weight in backbone.trainable_weights:
        # As initialised, every token is as likely.
        if "kernel" in weight.path or "embedding" in weight.path:
            weight.assign(weight * 12.0)
    return backbone


def small_policy(tokenizer):
    backbone = small_backbone(tokenizer.vocabulary_size, seed=1)
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return Policy(model, tokenizer)


def small_reward(tokenizer):
    backbone = small_backbone(tokenizer.vocabulary_size, seed=2)
    return RewardModel(backbone, tokenizer, context_length=64)
