import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.decoding import head_matrix
from tfrlhf.models.decoding import head_of


# Filled up to 128, not at all, and by 64 where rows would be whole pages.
@pytest.mark.parametrize("vocabulary", [50, 128, 1024])
def test_logits_are_those_of_the_embedding(vocabulary):
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=vocabulary,
        num_layers=1,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=16,
        max_sequence_length=8,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    hidden = np.random.default_rng(0).normal(size=[3, 8]).astype(np.float32)
    table = np.asarray(backbone.token_embedding.embeddings)
    found = head_of(model, head_matrix(model))(tf.constant(hidden))
    assert found.shape == (3, max(vocabulary, 128))
    np.testing.assert_allclose(
        found[:, :vocabulary], hidden @ table.T, atol=1e-5
    )
    # No token, so never drawn.
    assert np.isneginf(found[:, vocabulary:]).all()
