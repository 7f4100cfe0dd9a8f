import keras
import pytest

from tests import references
from tests.modes import assert_agrees
from tests.modes import normal
from tfrlhf import losses

SCORES, RATINGS = normal(60, 5), normal(61, 5)
LOSSES = {
    "score_regression_loss": losses.ScoreRegression,
    "score_cross_entropy_loss": losses.ScoreCrossEntropy,
}
every_loss = pytest.mark.parametrize("name", LOSSES)


@every_loss
def test_agrees_with_reference(evaluate, name):
    assert_agrees(
        evaluate,
        getattr(losses, name),
        getattr(references, name),
        SCORES,
        RATINGS,
    )


@every_loss
def test_class_agrees(evaluate, name):
    loss = LOSSES[name]()

    def of_scores(scores, ratings):
        return loss(ratings, scores)

    assert_agrees(
        evaluate, of_scores, getattr(references, name), SCORES, RATINGS
    )


@every_loss
def test_class_round_trip(name):
    loss = LOSSES[name](name="mine")
    saved = keras.saving.serialize_keras_object(loss)
    assert saved["registered_name"] == f"tfrlhf>{LOSSES[name].__name__}"
    loaded = keras.saving.deserialize_keras_object(saved)
    assert loaded.get_config() == loss.get_config()
    assert loaded.reduction == "none"


@every_loss
def test_wrong_input_is_refused(name):
    for arguments, message in [
        (([1], [1.0]), "`scores` must be float32"),
        (([1.0], [1]), "`ratings` must be float32"),
        (([[1.0]], [1.0]), "`scores` must have 1 axes"),
        (([1.0], [1.0, 2.0]), "`ratings` must have the shape of `scores`"),
    ]:
        with pytest.raises(ValueError, match=message):
            getattr(losses, name)(*arguments)
