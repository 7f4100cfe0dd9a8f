import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.models.test_packing import BACKBONES
from tests.models.test_packing import made
from tfrlhf.models import heads
from tfrlhf.models.packed_rows import packed_for
from tfrlhf.models.packed_rows import packed_rows
from tfrlhf.models.packed_rows import rows_are_packed

# The last two share a row with others; none of the first three can.
LENGTHS = [12, 10, 11, 3, 7, 5]


def batch(lengths=LENGTHS, width=12, seed=0):
    """Ids of sequences so long, and the mask of their tokens."""
    draw = np.random.default_rng(seed)
    mask = (np.arange(width) < np.array(lengths)[:, None]).astype(np.int32)
    ids = draw.integers(1, 50, mask.shape).astype(np.int32)
    return tf.constant(ids * mask), tf.constant(mask)


def read(mask):
    """All but the first two states of a sequence."""
    return tf.where((mask * (np.arange(mask.shape[1]) > 1)) > 0)


def states_and_gradients(backbone, ids, mask, packed):
    """States at places, gradients of what is made of them, cells computed."""
    cells = []
    layer = backbone.transformer_layers[0]
    plain = layer.call

    def counted(x, *args, **kwargs):
        cells.append(tf.shape(x)[0] * tf.shape(x)[1])
        return plain(x, *args, **kwargs)

    weights = [v.value for v in backbone.trainable_variables]

    def function(ids, mask):
        object.__setattr__(layer, "call", counted)
        with tf.GradientTape() as tape, rows_are_packed(packed):
            hidden = heads.hidden_states(
                backbone, ids, mask, training=False, places=read(mask)
            )
            states = tf.gather_nd(hidden, read(mask))
            loss = tf.reduce_sum(tf.sin(states))
        object.__delattr__(layer, "call")
        found = tape.gradient(loss, weights, unconnected_gradients="zero")
        found = [tf.convert_to_tensor(x) for x in found]
        return states, found, cells.pop()

    # As in training, how many rows there are is not known to the graph.
    shape = tf.TensorSpec([None, ids.shape[1]], tf.int32)
    compiled = tf.function(function, [shape, shape], autograph=False)
    return compiled(ids, mask)


@pytest.mark.parametrize(
    ("family", "lengths", "packed_cells"),
    [
        *((family, LENGTHS, 5 * 12) for family in BACKBONES),
        # Of twice the width, which is wider than the context of the GPT-2.
        ("GPT2Backbone", [8] * 6, 2 * 24),
        ("MistralBackbone", [8] * 6, 2 * 24),
        ("SmolLM3Backbone", [8] * 6, 2 * 24),
    ],
)
def test_states_and_gradients_are_those_of_a_row_for_each(
    family, lengths, packed_cells
):
    backbone = made(family)
    inputs = batch(lengths)
    states, gradients, cells = states_and_gradients(backbone, *inputs, False)
    same, also, fewer = states_and_gradients(backbone, *inputs, True)
    np.testing.assert_allclose(same, states, rtol=1e-4, atol=2e-5)
    for received, expected in zip(also, gradients, strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-3, atol=1e-4)
    assert int(cells) == 6 * 12
    assert int(fewer) == packed_cells


def plainly_laid_out(lengths, width):
    """Rows of numbers of sequences, by a loop."""
    rows = []
    for which in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        for row in rows:
            if sum(lengths[i] for i in row) + lengths[which] <= width:
                row.append(which)
                break
        else:
            rows.append([which])
    return rows


@pytest.mark.parametrize(
    "lengths", [LENGTHS, [12] * 4, [1] * 9, [9, 0, 4], [5]]
)
def test_the_longest_goes_first_into_the_first_row_with_room(lengths):
    ids, mask = batch(lengths)
    packed = packed_rows(ids, mask, hidden_size=1)
    found = np.asarray(packed.token_ids)
    width = found.shape[1]
    expected = plainly_laid_out(lengths, width)
    assert len(found) == len(expected)
    for row, members in enumerate(expected):
        tokens = [np.asarray(ids)[i, : lengths[i]] for i in members]
        tokens = np.concatenate(tokens)
        rest = np.zeros(width - len(tokens), np.int32)
        np.testing.assert_array_equal(found[row], [*tokens, *rest])
        numbers = [i for i in members for _ in range(lengths[i])]
        np.testing.assert_array_equal(
            packed.segments[row], [*numbers, *(rest - 1)]
        )
        positions = [p for i in members for p in range(lengths[i])]
        np.testing.assert_array_equal(
            packed.positions[row], [*positions, *rest]
        )
    np.testing.assert_array_equal(packed.padding_mask, packed.segments >= 0)


def test_tokens_and_states_are_found_again():
    ids, mask = batch()
    packed = packed_rows(ids, mask, hidden_size=1)
    places = tf.where(mask > 0)
    np.testing.assert_array_equal(
        tf.gather_nd(packed.token_ids, packed.moved(places)),
        tf.gather_nd(ids, places),
    )
    states = tf.cast(packed.token_ids, tf.float32)[..., None]
    with tf.GradientTape() as tape:
        tape.watch(states)
        unpacked = packed.unpacked(states)
        factors = tf.reshape(1.0 + tf.range(72.0), [6, 12, 1])
        loss = tf.reduce_sum(unpacked * factors)
    assert unpacked.shape == (6, 12, 1)
    np.testing.assert_array_equal(
        tf.boolean_mask(unpacked[..., 0], mask > 0),
        tf.boolean_mask(ids, mask > 0),
    )
    # What is no token's has no gradient, whatever is asked of it.
    gradient = tape.gradient(loss, states)
    np.testing.assert_array_equal(
        tf.gather_nd(gradient[..., 0], packed.moved(places)),
        tf.gather_nd(factors[..., 0], places),
    )
    assert not np.asarray(gradient)[np.asarray(packed.padding_mask) == 0].any()


@pytest.mark.parametrize("hidden_size", [1, 8, 512])
@pytest.mark.parametrize(
    "lengths",
    [[40] * 6, [24] * 6, [40, 21, 21, 21, 21, 24], [40, 30, 12, 9, 8, 5]],
)
def test_rows_are_as_wide_as_costs_least(lengths, hidden_size):
    packed = packed_rows(*batch(lengths, width=40), hidden_size)
    costs = {}
    for width in (40, 48, 64, 80):
        count = len(plainly_laid_out(lengths, width))
        # Of a token: products with the model's weights, and attention.
        costs[count, width] = count * width * (2 * hidden_size + width)
    assert tuple(packed.token_ids.shape) == min(costs, key=costs.get)


def test_a_large_model_has_wider_rows():
    ids, mask = batch([40, 35, 35, 35, 10, 5], width=40)
    of_small, of_large = (
        packed_rows(ids, mask, hidden_size).token_ids.shape
        for hidden_size in (1, 512)
    )
    assert of_small == (5, 40)
    assert of_large == (2, 80)


def test_there_are_few_numbers_of_rows():
    draw = np.random.default_rng(0)
    count = tf.function(
        lambda ids, mask: tf.shape(packed_rows(ids, mask, 1).token_ids)[0]
    )
    found = {
        int(count(*batch(draw.integers(1, 13, size=70)))) for _ in range(60)
    }
    assert len(found) > 1
    assert all(number % 5 == 0 for number in found)


def test_sequences_without_tokens_are_no_error():
    # The last token of a row without one is looked for at its beginning.
    ids, mask = batch([12, 0, 12])
    places = tf.constant([[0, 11], [1, 0], [2, 11]])
    backbone = small.gpt2_backbone()
    with rows_are_packed():
        hidden = heads.hidden_states(backbone, ids, mask, False, places=places)
    expected = backbone({"token_ids": ids, "padding_mask": mask})
    np.testing.assert_allclose(hidden[::2, -1], expected[::2, -1], atol=1e-5)
    assert np.isfinite(hidden).all()


def test_no_rows_stay_none():
    backbone = small.gpt2_backbone()
    ids = mask = tf.zeros([0, 12], tf.int32)
    states, gradients, _ = states_and_gradients(backbone, ids, mask, True)
    assert states.shape == (0, 32)
    assert not any(np.any(gradient) for gradient in gradients)


def test_packing_is_asked_for_and_ends():
    backbone, inputs = small.gpt2_backbone(), batch()
    other = keras.Sequential([keras.layers.Dense(2)])
    assert packed_for(backbone, *inputs) is None
    with rows_are_packed():
        assert packed_for(backbone, *inputs) is not None
        assert packed_for(other, *inputs) is None
        # What is alone has nobody to share a row with.
        assert packed_for(backbone, *batch([5])) is None
        with rows_are_packed(False):
            assert packed_for(backbone, *inputs) is None
    assert packed_for(backbone, *inputs) is None


def test_models_that_read_the_same_share_its_rows():
    ids, mask = batch()
    policy, value = small.gpt2_backbone(), small.gpt2_backbone()
    with rows_are_packed():
        first = packed_for(policy, ids, mask)
        assert packed_for(value, ids, mask) is first
        assert packed_for(policy, ids + 1, mask) is not first

        @tf.function
        def in_a_graph():
            return packed_for(policy, ids, mask).token_ids

        np.testing.assert_array_equal(in_a_graph(), first.token_ids)
    with rows_are_packed():
        assert packed_for(policy, ids, mask) is not first
