import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models.packing import within_segments

SIZES = dict(
    vocabulary_size=50, num_layers=2, hidden_dim=16, intermediate_dim=32
)
HEADS = dict(num_query_heads=4, num_key_value_heads=2)
BACKBONES = {
    "GPT2Backbone": dict(num_heads=2, max_sequence_length=16, **SIZES),
    "LlamaBackbone": SIZES | HEADS,
    "Llama3Backbone": SIZES | HEADS,
    "MistralBackbone": SIZES | HEADS | {"sliding_window": 4},
    "QwenBackbone": SIZES | HEADS,
    "Qwen3Backbone": SIZES | HEADS | {"head_dim": 4},
    "GemmaBackbone": SIZES | HEADS | {"head_dim": 4},
    "Gemma3Backbone": SIZES
    | HEADS
    | {"head_dim": 4, "image_size": None, "vision_encoder": None},
    "SmolLM3Backbone": dict(
        vocabulary_size=50,
        hidden_dim=16,
        intermediate_dim=32,
        num_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        rope_layer_enabled_list=[True, True],
        layer_types=["attention"] * 2,
        mlp_bias=False,
        attention_bias=False,
        attention_dropout=0.0,
        layer_norm_epsilon=1e-6,
        max_position_embeddings=64,
        rope_theta=1e4,
        partial_rotary_factor=1.0,
    ),
}
FIRST, SECOND, OTHER = [7, 3, 9], [4, 8, 2, 5, 6, 1], [11, 12, 13]
SEGMENTS = [[1] * 3 + [2] * 6 + [0]]


def made(name, **changes):
    """A backbone of a family, with weights that are not small."""
    keras.utils.set_random_seed(1)
    model = getattr(keras_hub.models, name)(**(BACKBONES[name] | changes))
    draw = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(weight + 0.3 * draw.normal(size=weight.shape))
    return model


@pytest.fixture(params=BACKBONES)
def backbone(request):
    return made(request.param)


def inputs(*rows):
    ids = tf.constant(rows, tf.int32)
    return {"token_ids": ids, "padding_mask": tf.cast(ids > 0, tf.int32)}


def test_packed_examples_are_as_if_alone(backbone):
    @tf.function
    def packed(inputs, segments):
        with within_segments(backbone, segments):
            return backbone(inputs)

    segments = tf.constant(SEGMENTS)
    row = packed(inputs([*FIRST, *SECOND, 0]), segments)
    first, second = backbone(inputs(FIRST)), backbone(inputs(SECOND))
    np.testing.assert_allclose(row[:, :3], first, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(row[:, 3:9], second, rtol=1e-4, atol=1e-5)
    # A neighbour changes nothing at all.
    other = packed(inputs([*OTHER, *SECOND, 0]), segments)
    np.testing.assert_array_equal(row[:, 3:9], other[:, 3:9])
    # Without it, it would.
    leaking = [
        backbone(inputs([*neighbour, *SECOND, 0]))
        for neighbour in (FIRST, OTHER)
    ]
    assert np.abs(leaking[0] - leaking[1])[:, 3:9].max() > 1e-3
    # And nothing stays behind.
    np.testing.assert_array_equal(backbone(inputs(SECOND)), second)


def test_no_gradient_reaches_a_neighbour():
    keras.utils.set_random_seed(1)
    model = keras_hub.models.LlamaBackbone(**BACKBONES["LlamaBackbone"])
    with tf.GradientTape() as tape:
        with within_segments(model, tf.constant(SEGMENTS)):
            row = model(inputs([*FIRST, *SECOND, 0]))
        loss = tf.reduce_sum(row[:, 3:9] ** 2)
    table = tape.gradient(loss, model.token_embedding.embeddings.value)
    table = tf.convert_to_tensor(table).numpy()
    assert not table[FIRST].any()
    assert table[SECOND].any(axis=-1).all()


def test_other_families_are_refused():
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match="known for GPT2Backbone, .*Sequential"
    ):
        with within_segments(model, tf.constant(SEGMENTS)):
            pass
