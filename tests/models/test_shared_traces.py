import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.test_packed_rows import batch
from tests.models.test_packed_rows import read
from tests.models.test_packing import BACKBONES
from tests.models.test_packing import made
from tfrlhf.models import heads
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.last_block import PARTS
from tfrlhf.models.lean_layers import lean_layers
from tfrlhf.models.packed_rows import rows_are_packed
from tfrlhf.models.rematerialization import rematerialize
from tfrlhf.models.shared_traces import traces_are_shared

# Each layer of a SmolLM3 knows its number.
KINDS = {"SmolLM3Backbone": 3, "Gemma3Backbone": 2}
CHANGES = {
    "SmolLM3Backbone": {
        "rope_layer_enabled_list": [True, False, True, True],
        "layer_types": ["attention"] * 4,
    },
    # One of six looks at all positions, not at a window.
    "Gemma3Backbone": {
        "num_layers": 7,
        "use_sliding_window_attention": True,
        "sliding_window_size": 4,
    },
}


def deep(family):
    changes = {"num_layers": 4} | CHANGES.get(family, {})
    backbone = made(family, **changes)
    for weight in backbone.trainable_weights:
        # Rounding grows from layer to layer, with large weights fast.
        weight.assign(weight * (0.3 if len(weight.shape) > 1 else 1.0))
    return backbone


def run(backbones, shared, training=False, adapter=None):
    """States and gradients of backbones in one graph, traces, the graph."""
    ids, mask = batch()
    weights = [
        v.value for backbone in backbones for v in backbone.trainable_variables
    ]
    weights += [v.value for v in (adapter.variables if adapter else [])]
    kinds = {type(b.transformer_layers[0]) for b in backbones}
    traced = []

    def function(ids, mask):
        with (
            tf.GradientTape() as tape,
            rows_are_packed(),
            traces_are_shared(shared),
        ):
            states = [
                heads.hidden_states(
                    *(backbone, ids, mask, training, adapter),
                    places=read(mask),
                )
                for backbone in backbones
            ]
            states = [tf.gather_nd(x, read(mask)) for x in states]
            loss = sum(tf.reduce_sum(tf.sin(x)) for x in states)
        found = tape.gradient(loss, weights, unconnected_gradients="zero")
        return states, [tf.convert_to_tensor(x) for x in found]

    with pytest.MonkeyPatch.context() as patch:
        for kind in kinds:
            patch.setattr(kind, "call", counted(kind.call, traced))
        shape = tf.TensorSpec([None, ids.shape[1]], tf.int32)
        compiled = tf.function(function, [shape, shape], autograph=False)
        states, gradients = compiled(ids, mask)
    graph = compiled.get_concrete_function().graph.as_graph_def()
    return states, gradients, traced, graph


def counted(plain, traced):
    def call(layer, *args, **kwargs):
        traced.append(layer.name)
        return plain(layer, *args, **kwargs)

    return call


def assert_same(backbones, **settings):
    """What is traced once computes what is traced for each; returns traces."""
    states, gradients, all_traced, _ = run(backbones, False, **settings)
    found, same, traced, _ = run(backbones, True, **settings)
    for received, expected in zip(found, states, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)
    for received, expected in zip(same, gradients, strict=True):
        size = 1e-5 * max(1.0, np.abs(expected).max())
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=size)
    return len(traced), len(all_traced)


@pytest.mark.parametrize("family", BACKBONES)
def test_layers_that_are_alike_are_traced_once(family):
    backbone = deep(family)
    # The same trace serves other weights.
    other = deep(family)
    for i, weight in enumerate(other.weights):
        weight.assign(weight * (1.0 + 0.01 * i))
    # The last one is by itself where it spares states.
    kinds = KINDS.get(family, 1) + (family in PARTS)
    assert assert_same([backbone, other]) == (kinds, 2 * backbone.num_layers)


def test_a_graph_is_no_larger_for_more_layers():
    def operations(layers):
        graph = run([made("GPT2Backbone", num_layers=layers)], True)[-1]
        inside = [len(f.node_def) for f in graph.library.function]
        # A layer has 16 weights: they are read, and their gradients returned.
        return len(graph.node) + sum(inside) - 2 * 16 * layers

    few, many = operations(3), operations(8)
    assert many - few <= 5 * 40


def test_passes_of_one_graph_have_their_own_rows():
    backbone = deep("GPT2Backbone")
    batches = [batch(), batch([5, 12, 2, 9, 4, 4], seed=1)]

    @tf.function(autograph=False)
    def function(shared):
        with rows_are_packed(), traces_are_shared(shared):
            return [
                tf.gather_nd(
                    heads.hidden_states(
                        backbone, ids, mask, training=False, places=read(mask)
                    ),
                    read(mask),
                )
                for ids, mask in batches
            ]

    for received, expected in zip(function(True), function(False), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-5)


def test_dropout_draws_for_each_layer_and_goes_on():
    def states_and_seeds(shared):
        backbone = made("GPT2Backbone", num_layers=3, dropout=0.5)
        states = run([backbone], shared, training=True)[0][0]
        return states, backbone.non_trainable_variables

    states, seeds = states_and_seeds(True)
    expected, expected_seeds = states_and_seeds(False)
    np.testing.assert_allclose(states, expected, rtol=1e-5, atol=1e-5)
    assert seeds
    for received, each in zip(seeds, expected_seeds, strict=True):
        np.testing.assert_array_equal(received, each)


def test_adapters_of_layers_stay_their_own():
    backbone = deep("LlamaBackbone")
    backbone.trainable = False
    adapter = Adapter(backbone, rank=2)
    for i, weight in enumerate(adapter.weights):
        draw = np.random.default_rng(i)
        weight.assign(0.3 * draw.normal(size=weight.shape))
    traced, all_traced = assert_same([backbone], adapter=adapter)
    assert all_traced == 4
    without = run([backbone], True)[0][0]
    with_adapter = run([backbone], True, adapter=adapter)[0][0]
    assert np.abs(with_adapter - without).max() > 0.1


def products(function):
    """Counts the products that the results of a function depend on."""
    nodes = {node.name: node for node in function.node_def}
    needed, left = set(), list(function.ret.values())
    while left:
        name = left.pop().partition(":")[0]
        if name in nodes and name not in needed:
            needed.add(name)
            left += nodes[name].input
    return sum(nodes[name].op == "MatMul" for name in needed)


def test_frozen_layers_have_no_gradients_to_compute():
    def needed(frozen):
        backbone = made("GPT2Backbone", num_layers=4)
        for layer in backbone.transformer_layers[:frozen]:
            layer.trainable = False
        if frozen == 2:
            assert_same([backbone])
        with lean_layers(backbone):
            graph = run([backbone], True)[-1]
        return sum(map(products, graph.library.function))

    # Of the dense layers of the trace that three of them share.
    assert needed(frozen=3) == needed(frozen=0) - 6
    # One that trains has another.
    assert needed(frozen=2) > needed(frozen=0)


def test_rematerialised_layers_are_traced_one_by_one():
    backbone = made("GPT2Backbone", num_layers=3, dropout=0.0)
    rematerialize(backbone)
    traced, all_traced = assert_same([backbone])
    assert traced == all_traced


def test_layers_in_bfloat16_are_as_exact_as_before():
    exact = run([made("GPT2Backbone", num_layers=3)], False)[0][0]
    backbone = made("GPT2Backbone", num_layers=3, dtype="mixed_bfloat16")
    expected = run([backbone], False)[0][0]
    found, _, traced, _ = run([backbone], True)
    assert len(traced) == 2
    assert found[0].dtype == expected.dtype == tf.bfloat16

    def error(states):
        return np.abs(tf.cast(states, tf.float32) - exact).mean()

    assert error(found[0]) < 1.1 * error(expected)


def test_quantised_layers():
    policy = small.gpt2_policy()
    policy.quantize("int8")
    states = run([policy.trunk], False)[0][0]
    found, _, traced, _ = run([policy.trunk], True)
    np.testing.assert_array_equal(found[0], states)
    assert len(traced) == 1


def test_lean_layers_are_shared_as_they_are():
    backbone = made("GPT2Backbone", num_layers=4)
    plain = run([backbone], True)
    with lean_layers(backbone):
        states, gradients, traced, _ = run([backbone], True)
        assert_same([backbone])
    np.testing.assert_allclose(states[0], plain[0][0], rtol=1e-4, atol=1e-5)
    assert len(traced) == 2


def test_nothing_is_shared_unless_it_is_asked_for():
    backbone = deep("GPT2Backbone")
    assert len(run([backbone], False)[2]) == 4
    assert all("call" not in vars(x) for x in backbone.transformer_layers)
