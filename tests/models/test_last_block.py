import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.test_packing import BACKBONES
from tests.models.test_packing import inputs
from tests.models.test_packing import made
from tfrlhf.models import last_block
from tfrlhf.models.last_block import PARTS
from tfrlhf.models.last_block import states_read

ROWS = [7, 3, 9, 4, 8, 2], [11, 12, 13, 5, 0, 0]
# Of the first row all but two, of the second one.
READ = [[0, 0, 1, 1, 1, 1], [0, 1, 0, 0, 0, 0]]


def states_and_gradients(model, places):
    weights = [v.value for v in model.trainable_variables]
    read = tf.where(tf.constant(READ) > 0)
    with tf.GradientTape() as tape, states_read(model, places):
        states = tf.gather_nd(model(inputs(*ROWS), training=False), read)
        loss = tf.reduce_sum(tf.sin(states))
    found = tape.gradient(loss, weights, unconnected_gradients="zero")
    return states, [tf.convert_to_tensor(x) for x in found]


@pytest.mark.parametrize("family", BACKBONES)
@pytest.mark.parametrize("compiled", [False, True])
def test_states_that_are_read_are_those_of_the_whole_block(family, compiled):
    backbone = made(family)
    expected, expected_gradients = states_and_gradients(backbone, None)
    function = states_and_gradients
    if compiled:
        function = tf.function(states_and_gradients, autograph=False)
    places = tf.where(tf.constant(READ) > 0)
    found, gradients = function(backbone, places)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    for received, each in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(received, each, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", PARTS)
def test_only_states_that_are_read_reach_the_feed_forward_part(
    family, monkeypatch
):
    backbone = made(family)
    layer = getattr(backbone.transformer_layers[-1], PARTS[family][0])
    seen = []
    plain = layer.call

    def noted(x, *args, **kwargs):
        seen.append(x.shape)
        return plain(x, *args, **kwargs)

    object.__setattr__(layer, "call", noted)
    places = tf.where(tf.constant(READ) > 0)
    with states_read(backbone, places):
        backbone(inputs(*ROWS))
    assert seen == [(5, backbone.hidden_dim)]
    assert vars(layer)["call"] is noted
    # Counts that no trace knows are rounded up, so that few are compiled.
    monkeypatch.setattr(last_block, "BUCKET", 4)
    rounded_up = tf.function(
        last_block._rounded_up,
        input_signature=[tf.TensorSpec([None, 2], tf.int64)],
    )
    assert rounded_up(places).shape == (8, 2)


def test_no_state_at_all_is_no_error():
    model = small.gpt2_backbone()
    function = tf.function(
        lambda mask: _hidden(model, tf.where(mask > 0)), autograph=False
    )
    assert function(tf.zeros([2, 6], tf.int32)).shape == (2, 6, 32)


def _hidden(model, places):
    with states_read(model, places):
        return model(inputs(*ROWS))


def test_quantised_blocks_compute_all_states():
    policy = small.gpt2_policy()
    policy.quantize("int8")
    model = policy.trunk
    expected = model(inputs(*ROWS))
    np.testing.assert_array_equal(
        _hidden(model, tf.where(tf.constant(READ) > 0)), expected
    )
