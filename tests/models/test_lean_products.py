import numpy as np
import pytest
import tensorflow as tf

from tfrlhf.models import lean_products
from tfrlhf.models.lean_products import product

# Sizes of the axes: all different, so that none is taken for another.
SIZES = dict(zip("abcdeghkst", (2, 3, 4, 5, 6, 7, 8, 9, 10, 11), strict=True))


def operands(equation):
    draw = np.random.default_rng(0)
    return [
        tf.constant(draw.normal(size=[SIZES[a] for a in axes]), tf.float32)
        for axes in equation.partition("->")[0].split(",")
    ]


@pytest.mark.parametrize(
    "equation",
    [
        # Projections, and the way back.
        "abc,cde->abde",
        "abcd,cde->abe",
        "abc,dc->abd",
        # Queries by keys, weights by values, as different families have them.
        "aecd,abcd->acbe",
        "acbe,aecd->abcd",
        "bskh,btkh->bkst",
        "bkst,btkh->bskh",
        "btkgh,bskh->bkgts",
        "bkgts,bskh->btkgh",
        # Operands whose matrices have to be turned.
        "ca,cb->ab",
        "cab,cd->abd",
        "abc,abd->cd",
    ],
)
def test_it_is_an_einsum_and_so_are_its_gradients(equation, monkeypatch):
    pair = operands(equation)
    with tf.GradientTape() as tape:
        tape.watch(pair)
        expected = tf.einsum(equation, *pair)
        loss = tf.reduce_sum(tf.sin(expected))
    to_expected = tape.gradient(loss, pair)
    # Without falling back on it.
    monkeypatch.setattr(lean_products, "_einsum", None)
    asked = tf.function(
        lambda *pair: product(equation, *pair),
        input_signature=[tf.TensorSpec([None] * x.shape.rank) for x in pair],
    )
    with tf.GradientTape() as tape:
        tape.watch(pair)
        found = product(equation, *pair)
        loss = tf.reduce_sum(tf.sin(found))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(asked(*pair), expected, rtol=1e-5, atol=1e-5)
    for received, each in zip(
        tape.gradient(loss, pair), to_expected, strict=True
    ):
        np.testing.assert_allclose(received, each, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "equation",
    ["abc->cab", "ab,ab->ab", "ab,cd->abcd", "abc,bd->bd", "...a,ab->...b"],
)
def test_what_is_no_product_of_matrices_is_left_to_tensorflow(equation):
    given = operands(equation.replace("...", "c"))
    np.testing.assert_allclose(
        product(equation, *given), tf.einsum(equation, *given), rtol=1e-5
    )


def test_tensorflow_is_as_before():
    before = tf.einsum
    with lean_products.lean_products():
        assert tf.einsum is product
    assert tf.einsum is before
