import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tests.losses.test_ranking import ABSENT
from tests.losses.test_ranking import RANKS
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import losses
from tfrlhf.types import PreferenceOutput
from tfrlhf.types import RatingOutput

ROWS = 7
# Log-probabilities of responses, all below 0.
PAIRS = [-0.1 - np.abs(normal(60 + n, ROWS)) for n in range(4)]
RATED = [
    *PAIRS[:2],
    np.array([1, 0, 1, 1, 0, 0, 1], np.float32),
    np.full(ROWS, 0.3, np.float32),
]
MATRICES = [-0.1 - np.abs(normal(70 + n, *RANKS.shape)) for n in range(2)]

# The function, its replica, what both read, and their numbers.
CASES = {
    "dpo": ("dpo_loss", PAIRS, (0.3, 0.0)),
    "cdpo": ("dpo_loss", PAIRS, (0.5, 0.2)),
    "robust_dpo": ("robust_dpo_loss", PAIRS, (0.5, 0.2)),
    "ipo": ("ipo_loss", PAIRS, (0.4,)),
    "simpo": ("simpo_loss", PAIRS[:2], (2.0, 0.7)),
    "orpo": ("orpo_loss", PAIRS[:2], (0.4,)),
    "kto": ("kto_loss", RATED, (0.5, 1.5, 0.6)),
}


def of_numbers(module, name, numbers):
    function = getattr(module, name)
    return lambda *arrays: function(*arrays, *numbers)


@functools.cache
def here(case):
    name, _, numbers = CASES[case]
    return of_numbers(losses, name, numbers)


def replica(case):
    name, _, numbers = CASES[case]
    return of_numbers(references, name, numbers)


@pytest.mark.parametrize("case", CASES)
def test_losses_agree(evaluate, case):
    assert_agrees(evaluate, here(case), replica(case), *CASES[case][1])


@pytest.mark.parametrize("case", CASES)
def test_losses_are_exact(case):
    arrays = CASES[case][1]
    expected = replica(case)(*(x.astype(np.float64) for x in arrays))
    received = here(case)(*arrays)
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_losses_stay_finite_far_out(evaluate, case):
    far = np.array([-1e4, -1e-9, 0.0, -1e4], np.float32)
    near = np.array([-1e-9, -1e4, 0.0, -1e4], np.float32)
    arrays = [far, near, near, far][: len(CASES[case][1])]
    result = evaluate(here(case), *arrays)
    for x in result.values + result.gradients:
        assert np.all(np.isfinite(x))


def test_no_margin_is_a_coin_flip():
    same = [-1.0], [-1.0], [-1.0], [-1.0]
    for loss in (losses.dpo_loss, losses.robust_dpo_loss):
        np.testing.assert_allclose(loss(*same), [np.log(2.0)], rtol=1e-6)
    np.testing.assert_allclose(losses.ipo_loss(*same, beta=0.1), [25.0])


def test_the_kl_of_kto_is_not_negative():
    rated = [[-1.0], [-2.0], [1.0]]
    np.testing.assert_array_equal(
        losses.kto_loss(*rated, [-3.0]), losses.kto_loss(*rated, [0.0])
    )


def test_wrong_labels_do_not_move_the_robust_loss():
    """Its mean under flipped labels is DPO's on the right ones."""
    share, beta = 0.2, 0.5
    swapped = [PAIRS[1], PAIRS[0], PAIRS[3], PAIRS[2]]
    mean = (1 - share) * losses.robust_dpo_loss(*PAIRS, beta, share)
    mean += share * losses.robust_dpo_loss(*swapped, beta, share)
    expected = losses.dpo_loss(*PAIRS, beta)
    np.testing.assert_allclose(mean, expected, rtol=1e-5)


OBJECTIVES = {
    "dpo": losses.DPOLoss(0.3),
    "cdpo": losses.DPOLoss(0.5, 0.2),
    "robust_dpo": losses.RobustDPOLoss(0.5, 0.2),
    "ipo": losses.IPOLoss(0.4),
    "simpo": losses.SimPOLoss(2.0, 0.7),
    "orpo": losses.ORPOLoss(0.4),
}
RATING = losses.KTOLoss(0.5, 1.5, 0.6)


@functools.cache
def of_log_probs(case):
    def call(log_probs, ref_log_probs, ranks):
        output = PreferenceOutput(log_probs, ref_log_probs)
        return OBJECTIVES[case](ranks, output)

    return call


@pytest.mark.parametrize("case", OBJECTIVES)
def test_classes_average_over_the_pairs_of_a_record(evaluate, case):
    count = 2 if OBJECTIVES[case].needs_reference else 1

    def expected(log_probs, ref_log_probs, ranks):
        arrays = (log_probs, ref_log_probs)[:count]
        return references.mean_over_pairs(replica(case), ranks, *arrays)

    assert_agrees(
        evaluate,
        of_log_probs(case),
        expected,
        *MATRICES,
        RANKS,
        hidden=[ABSENT, ABSENT, None],
    )


def test_the_class_of_kto_agrees():
    policy, reference, ratings, kl = RATED
    output = RatingOutput(policy, reference, kl)
    received = RATING(tf.constant(ratings), output)
    np.testing.assert_allclose(received, replica("kto")(*RATED), rtol=1e-5)


@pytest.mark.parametrize("loss", [*OBJECTIVES.values(), RATING])
def test_classes_round_trip(loss):
    again = type(loss).from_config(loss.get_config())
    assert again.get_config() == loss.get_config()
    assert again.beta == loss.beta
    saved = keras.saving.serialize_keras_object(loss)
    assert saved["registered_name"] == f"tfrlhf>{type(loss).__name__}"
    loaded = keras.saving.deserialize_keras_object(saved)
    assert loaded.get_config() == loss.get_config()
    assert loaded.reduction == "none"


def test_what_each_loss_reads():
    reads = {
        type(loss).__name__: (
            loss.needs_reference,
            loss.mean_over_tokens,
            loss.reads_ratings,
        )
        for loss in (*OBJECTIVES.values(), RATING)
    }
    assert reads == {
        "DPOLoss": (True, False, False),
        "RobustDPOLoss": (True, False, False),
        "IPOLoss": (True, True, False),
        "SimPOLoss": (False, True, False),
        "ORPOLoss": (False, True, False),
        "KTOLoss": (True, False, True),
    }


TWO = [[-1.0, -2.0]]
WRONG = [
    (losses.dpo_loss, ([1], *PAIRS[1:]), "`policy_chosen` must be float32"),
    (losses.dpo_loss, (*PAIRS[:3], TWO), "`ref_rejected` must have 1 axes"),
    (losses.dpo_loss, (*PAIRS[:3], [1.0]), "`ref_rejected` must have the"),
    (losses.dpo_loss, (*PAIRS, 0.0), "`beta` must be positive"),
    (losses.dpo_loss, (*PAIRS, 0.1, 1.5), "`label_smoothing` must be betwe"),
    (losses.robust_dpo_loss, (*PAIRS, 0.1, 0.5), "label_smoothing` must be po"),
    (losses.ipo_loss, (*PAIRS, -1.0), "`beta` must be positive"),
    (losses.simpo_loss, (PAIRS[0], TWO), "`policy_rejected` must have 1 axes"),
    (losses.simpo_loss, (*PAIRS[:2], 0.0), "`beta` must be positive"),
    (losses.orpo_loss, (PAIRS[0], [1]), "`policy_rejected` must be float32"),
    (losses.orpo_loss, (*PAIRS[:2], 0.0), "`beta` must be positive"),
    (losses.kto_loss, (*PAIRS[:3], [1.0]), "`kl` must have the shape"),
    (losses.kto_loss, (*PAIRS, 0.1, -1.0), "`desirable_weight` must be at le"),
    (losses.kto_loss, (*PAIRS, 0.1, 1.0, -1.0), "`undesirable_weight` must b"),
    (losses.DPOLoss, (0.0,), "`beta` must be positive"),
    (losses.DPOLoss, (0.1, -0.1), "`label_smoothing` must be between"),
    (losses.RobustDPOLoss, (0.1, 0.5), "`label_smoothing` must be|positive"),
    (losses.KTOLoss, (0.1, -0.1), "`desirable_weight` must be at least"),
    (losses.KTOLoss, (0.1, 1.0, -0.1), "`undesirable_weight` must be at leas"),
]


@pytest.mark.parametrize(("function", "arguments", "message"), WRONG)
def test_wrong_input_is_refused(function, arguments, message):
    with pytest.raises(ValueError, match=message):
        function(*arguments)


def test_classes_refuse_other_shapes():
    loss = losses.DPOLoss()
    with pytest.raises(ValueError, match="`ranks` must be int32"):
        loss([[0.0, 1.0]], PreferenceOutput(TWO, TWO))
    with pytest.raises(ValueError, match="`log_probs` must have the shape"):
        loss([[0, 1]], PreferenceOutput(TWO, [[-1.0, -2.0, -3.0]]))
