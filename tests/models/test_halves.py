import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.decoding import decode_weights
from tfrlhf.models.halves import halves
from tfrlhf.models.halves import in_halves


def gpt2(intermediate_dim=12, **kwargs):
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=20,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=intermediate_dim,
        max_sequence_length=8,
        **kwargs,
    )
    model = keras_hub.models.GPT2CausalLM(backbone, preprocessor=None)
    for i, weight in enumerate(model.trainable_weights):
        weight.assign(tf.random.stateless_normal(weight.shape, (i, 0)))
    return model


def llama():
    keras.utils.set_random_seed(0)
    backbone = keras_hub.models.LlamaBackbone(
        vocabulary_size=20,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
    )
    return keras_hub.models.LlamaCausalLM(backbone, preprocessor=None)


IDS = np.array([[3, 4, 5], [6, 7, 8]])
INPUTS = {"token_ids": IDS, "padding_mask": np.ones_like(IDS)}


# Output projection, and two or three layers of the feed-forward part.
@pytest.mark.parametrize(("make", "count"), [(gpt2, 2 * 3), (llama, 4)])
def test_logits_are_those_of_the_whole_kernels(make, count):
    model = make()
    kernels = halves(model)
    assert len(kernels) == count
    expected = model(INPUTS)
    with in_halves(model, kernels):
        found = model(INPUTS)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_the_halves_given_are_what_is_multiplied_with():
    model = gpt2()
    expected = model(INPUTS)
    kernels = tf.nest.map_structure(tf.zeros_like, halves(model))
    with in_halves(model, kernels):
        assert np.abs(model(INPUTS) - expected).max() > 0.1
    np.testing.assert_array_equal(model(INPUTS), expected)


def test_rows_may_come_as_a_list():
    # As a router of experts gets them.
    model = gpt2()
    layer = model.backbone.transformer_layers[0]._feedforward_output_dense
    rows = tf.random.stateless_normal([5, 12], (9, 0))
    expected = layer(rows)
    with in_halves(model, halves(model)):
        np.testing.assert_allclose(layer(rows), expected, atol=1e-5)


def test_halves_lie_beside_each_other():
    model = gpt2()
    layer = model.backbone.transformer_layers[0]._feedforward_output_dense
    both = [tf.concat(pair, axis=1) for pair in halves(model)]
    kernel = layer.kernel.numpy()
    assert any(np.array_equal(each, kernel) for each in both)


def test_adapted_layers_and_odd_widths_are_left_alone():
    model = gpt2()
    layer = model.backbone.transformer_layers[0]._feedforward_output_dense
    layer.enable_lora(2)
    assert len(halves(model)) == 2 * 3 - 1
    assert len(halves(gpt2(intermediate_dim=13))) == 2 * 2


def test_they_are_made_in_the_precision_that_decodes():
    weights = decode_weights(gpt2(dtype="mixed_bfloat16"))
    assert {x.dtype for x in tf.nest.flatten(weights)} == {tf.float32}


def test_a_model_without_a_cached_step_has_none():
    inputs = keras.Input([4])
    assert halves(keras.Model(inputs, keras.layers.Dense(8)(inputs))) == []
