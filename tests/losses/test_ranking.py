import functools

import keras
import numpy as np
import pytest

from tests import references
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import losses

# Plain, with a tie, with absent candidates, one candidate, none, all tied.
RANKS = np.array(
    [
        [2, 0, 1, 3],
        [1, 0, 1, 2],
        [-1, 1, 0, -1],
        [-1, -1, -1, 0],
        [-1, -1, -1, -1],
        [0, 0, 0, 0],
    ],
    np.int32,
)
ABSENT = RANKS < 0
SCORES = normal(50, *RANKS.shape) * 2.0
CHOSEN, REJECTED = normal(51, 5) * 3.0, normal(52, 5) * 3.0

smoothed = functools.partial(
    losses.pairwise_ranking_loss, margin=0.5, label_smoothing=0.1
)


@pytest.mark.parametrize(
    ("function", "margin", "label_smoothing"),
    [(losses.pairwise_ranking_loss, 0.0, 0.0), (smoothed, 0.5, 0.1)],
)
def test_pairwise_loss_agrees(evaluate, function, margin, label_smoothing):
    reference = functools.partial(
        references.pairwise_ranking_loss,
        margin=margin,
        label_smoothing=label_smoothing,
    )
    assert_agrees(evaluate, function, reference, CHOSEN, REJECTED)


def test_pairwise_loss_with_a_margin_per_row(evaluate):
    assert_agrees(
        evaluate,
        losses.pairwise_ranking_loss,
        references.pairwise_ranking_loss,
        CHOSEN,
        REJECTED,
        np.abs(normal(53, 5)),
    )


def test_pairwise_loss_stays_finite_far_out(evaluate):
    result = evaluate(
        losses.pairwise_ranking_loss,
        np.array([500.0, -500.0], np.float32),
        np.array([-500.0, 500.0], np.float32),
    )
    np.testing.assert_allclose(result.values[0], [0.0, 1000.0])
    assert np.all(np.isfinite(result.gradients[0]))


def test_listwise_loss_agrees(evaluate):
    assert_agrees(
        evaluate,
        losses.listwise_ranking_loss,
        references.listwise_ranking_loss,
        SCORES,
        RANKS,
        hidden=[ABSENT, None],
    )


def test_listwise_loss_golden():
    # exp(scores) are 4, 2, 1 and 1: 4/8 · 2/4 · 1/2 is the order's chance.
    scores = np.log([[4.0, 2.0, 1.0, 1.0]]).astype(np.float32)
    loss = losses.listwise_ranking_loss(scores, [[0, 1, 2, 3]])
    np.testing.assert_allclose(loss, [np.log(8.0)], rtol=1e-5)
    # Two tied for best: each against the last alone, 4/5 · 2/3.
    loss = losses.listwise_ranking_loss(scores, [[0, 0, 1, -1]])
    np.testing.assert_allclose(loss, [np.log(15.0 / 8.0)], rtol=1e-5)


def test_two_candidates_make_all_three_losses_one():
    scores, ranks = [[0.3, 1.1]], [[1, 0]]
    expected = references.pairwise_ranking_loss([1.1], [0.3])
    for loss in (
        losses.PairwiseRanking(),
        losses.ListwiseRanking(),
        losses.BestOfN(),
    ):
        np.testing.assert_allclose(loss(ranks, scores), expected, rtol=1e-5)


def test_best_of_n_loss_agrees(evaluate):
    best = np.array([1, 0, 3, 3, 2, 0], np.int32)
    assert_agrees(
        evaluate, losses.best_of_n_loss, references.best_of_n_loss, SCORES, best
    )


CLASSES = {
    "pairwise": (losses.PairwiseRanking(), references.pairwise_ranking),
    "smoothed": (
        losses.PairwiseRanking(margin=0.5, label_smoothing=0.1),
        functools.partial(
            references.pairwise_ranking, margin=0.5, label_smoothing=0.1
        ),
    ),
    "listwise": (losses.ListwiseRanking(), references.listwise_ranking_loss),
    "best_of_n": (losses.BestOfN(), references.best_of_n),
}


def of_scores(loss, scores, ranks):
    return loss(ranks, scores)


FUNCTIONS = {
    name: functools.partial(of_scores, loss)
    for name, (loss, _) in CLASSES.items()
}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_agree(evaluate, name):
    assert_agrees(
        evaluate,
        FUNCTIONS[name],
        CLASSES[name][1],
        SCORES,
        RANKS,
        hidden=[ABSENT, None],
    )


@pytest.mark.parametrize("name", CLASSES)
def test_classes_take_sample_weight(name):
    loss, reference = CLASSES[name]
    weight = np.arange(len(RANKS), dtype=np.float32)
    received = loss(RANKS, SCORES, sample_weight=weight)
    expected = weight * reference(SCORES, RANKS)
    np.testing.assert_allclose(received, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", CLASSES)
def test_classes_round_trip(name):
    loss, _ = CLASSES[name]
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    saved = keras.saving.serialize_keras_object(loss)
    assert saved["registered_name"] == f"tfrlhf>{type(loss).__name__}"
    loaded = keras.saving.deserialize_keras_object(saved)
    assert loaded.get_config() == loss.get_config()
    assert loaded.reduction == "none"


@pytest.mark.parametrize("name", CLASSES)
def test_classes_refuse_other_shapes(name):
    loss, _ = CLASSES[name]
    with pytest.raises(ValueError, match="`scores` must have 2 axes"):
        loss.call([0, 1], [0.5, 1.0])
    with pytest.raises(ValueError, match="`ranks` must have the shape"):
        loss.call([[0, 1]], [[0.5, 1.0, 1.5]])


def test_wrong_input_is_refused():
    for function, arguments, message in [
        ("pairwise", ([1], [1.0]), "`chosen_scores` must be float32"),
        ("pairwise", ([1.0], [1]), "`rejected_scores` must be float32"),
        ("pairwise", ([[1.0]], [1.0]), "`chosen_scores` must have 1 axes"),
        ("pairwise", ([1.0], [1.0, 2.0]), "`rejected_scores` must have the"),
        ("pairwise", ([1.0], [1.0], [0.1, 0.2]), "`margin` must have the shap"),
        ("pairwise", ([1.0], [1.0], 0.0, 1.5), "`label_smoothing` must be bet"),
        ("listwise", ([[1, 2]], [[0, 1]]), "`scores` must be float32"),
        ("listwise", ([[1.0]], [[0.0]]), "`ranks` must be int32"),
        ("listwise", ([1.0], [0]), "`scores` must have 2 axes"),
        ("best_of_n", ([[1, 2]], [0]), "`scores` must be float32"),
        ("best_of_n", ([[1.0]], [0.0]), "`best` must be int32"),
        ("best_of_n", ([[1.0]], [[0]]), "`best` must have 1 axes"),
        ("best_of_n", ([[1.0]], [0, 0]), "`best` must have as many rows"),
    ]:
        called = {
            "pairwise": losses.pairwise_ranking_loss,
            "listwise": losses.listwise_ranking_loss,
            "best_of_n": losses.best_of_n_loss,
        }[function]
        with pytest.raises(ValueError, match=message):
            called(*arguments)
    with pytest.raises(ValueError, match="`label_smoothing` must be between"):
        losses.PairwiseRanking(label_smoothing=-0.1)
