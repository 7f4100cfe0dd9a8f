"""Gradients of embeddings: those of a tape that knows of no lookups."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.test_adapters import IDS
from tests.models.test_adapters import MASK
from tfrlhf.models.lookups import gradients
from tfrlhf.models.lookups import noted_lookups
from tfrlhf.models.value import ValueModel


def of_policy():
    """The table is the head as well."""
    policy = small.gpt2_policy(sharpness=4.0)
    return policy, lambda: tf.reduce_sum(policy.log_probs(IDS, MASK))


def of_value():
    """The table is looked up and nothing else."""
    value = ValueModel.from_policy(small.llama_policy(sharpness=4.0))
    value.head.kernel.assign(tf.ones_like(value.head.kernel))
    return value, lambda: tf.reduce_sum(value.call(IDS, MASK) ** 2)


def of_two_passes():
    """The table is looked up twice."""
    policy, once = of_policy()
    turned = tf.reverse(tf.constant(IDS), axis=[1])
    return (
        policy,
        lambda: once() - 0.5 * tf.reduce_sum(policy.log_probs(turned, MASK)),
    )


def of_head():
    """The table is not looked up."""
    policy, _ = of_policy()
    table = policy.model.backbone.token_embedding
    return policy, lambda: tf.reduce_sum(table(tf.ones([3, 32]), reverse=True))


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("make", [of_policy, of_value, of_two_passes, of_head])
def test_gradients_are_those_of_a_plain_tape(make, in_place):
    model, loss = make()
    variables = model.trainable_variables

    @tf.function
    def plain():
        with tf.GradientTape() as tape:
            total = loss()
        found = tape.gradient(
            total, [v.value for v in variables], unconnected_gradients="zero"
        )
        return [tf.convert_to_tensor(g) for g in found]

    @tf.function
    def noted():
        with tf.GradientTape() as tape, noted_lookups(model, tape) as lookups:
            total = loss()
        return gradients(tape, total, variables, lookups, in_place)

    largest = max(float(tf.reduce_max(tf.abs(g))) for g in plain())
    assert largest > 0.1
    for expected, received in zip(plain(), noted(), strict=True):
        np.testing.assert_allclose(
            received, expected, rtol=1e-5, atol=1e-6 * largest
        )


def test_layers_are_as_before():
    policy, loss = of_policy()
    table = policy.model.backbone.token_embedding
    with tf.GradientTape() as tape, noted_lookups(policy, tape) as lookups:
        loss()
        assert "call" in vars(table)
    assert "call" not in vars(table)
    assert [x.table for x in lookups] == [table.embeddings]


@pytest.mark.parametrize("what", ["frozen", "masked", "adapted"])
def test_others_are_left_alone(what):
    layer = keras.layers.ReversibleEmbedding(5, 2, mask_zero=what == "masked")
    model = keras.Sequential([layer])
    model.build([1, 3])
    if what == "frozen":
        layer.trainable = False
    if what == "adapted":
        layer.enable_lora(1)
    with tf.GradientTape() as tape, noted_lookups(model, tape) as lookups:
        model(tf.constant([[1, 2, 3]]))
    assert lookups == []
