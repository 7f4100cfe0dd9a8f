"""Classifiers as rewards: functions and Keras models on strings."""

import math

import keras
import numpy as np
import pytest

from tfrlhf.rewards import Classifier

TEXTS = ["good", "bad food", "good good"]


def give(output):
    return lambda texts: output[: len(texts)]


@pytest.mark.parametrize(
    ("output", "label", "from_logits", "expected"),
    [
        ([[0.25, 0.75], [1.0, 0.0]], 1, False, [0.75, 0.0]),
        ([[0.25, 0.75], [1.0, 0.0]], 0, False, [0.25, 1.0]),
        ([0.25, 0.75], 0, False, [0.25, 0.75]),
        ([[0.25], [0.75]], 0, False, [0.25, 0.75]),
        ([[0.0, math.log(3.0)], [1000.0, 0.0]], 1, True, [0.75, 0.0]),
        ([math.log(3.0), -1000.0], 0, True, [0.75, 0.0]),
    ],
)
def test_probabilities(output, label, from_logits, expected):
    reward = Classifier(give(output), label, from_logits)
    assert reward(["x"] * 2, ["a", "b"]) == pytest.approx(expected)


def test_texts_come_in_batches_and_order():
    seen = []

    def lengths(texts):
        seen.append(texts)
        return [len(text) / 10 for text in texts]

    scores = Classifier(lengths, 0, batch_size=2)(["x"] * 3, TEXTS)
    assert scores == [0.4, 0.8, 0.9]
    assert seen == [TEXTS[:2], TEXTS[2:]]


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_keras_model_on_strings(shape):
    words = keras.layers.TextVectorization(output_mode="count")
    words.adapt(TEXTS)
    head = keras.layers.Dense(2, use_bias=False)
    model = keras.Sequential([keras.Input(shape, dtype="string"), words, head])
    vocabulary = words.get_vocabulary()
    kernel = np.zeros((len(vocabulary), 2))
    kernel[vocabulary.index("good"), 1] = 1.0
    head.kernel.assign(kernel)
    scores = Classifier(model, 1, from_logits=True)(["x"] * 3, TEXTS)
    assert scores == pytest.approx(
        [1 / (1 + math.exp(-n)) for n in (1, 0, 2)], abs=1e-6
    )


@pytest.mark.parametrize(
    ("output", "label", "message"),
    [
        ([[0.5, 0.5]], 0, "one row of probabilities for each of 2 texts"),
        (np.zeros((2, 1, 1)), 0, "Received: shape \\(2, 1, 1\\)"),
        ([[0.5, 0.5]] * 2, 2, "one of the model's 2 labels"),
        ([[0.5, 0.5]] * 2, -1, "Received: label=-1"),
        ([[2.0, -1.0]] * 2, 0, "if it gives logits, set `from_logits=True`"),
        ([[math.nan, 0.5]] * 2, 0, "probabilities from 0 to 1"),
    ],
)
def test_outputs_are_checked(output, label, message):
    with pytest.raises(ValueError, match=message):
        Classifier(give(output), label)(["x"] * 2, ["a", "b"])
