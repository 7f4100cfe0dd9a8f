"""Broken setups of direct preference optimisation, and what is said."""

import keras
import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.trainers.test_start_check import PAIRS
from tests.trainers.test_start_check import assert_refuses
from tests.trainers.test_start_check import net_policy
from tests.trainers.test_start_check import spoil
from tfrlhf import losses
from tfrlhf.models.start_check import SetupError

RATED = [
    {"prompt": "The park", "response": " is" * n, "rating": n % 2}
    for n in (1, 2, 3)
]


def compiled(policy, reference=None, loss=None):
    trainer = tfrlhf.DPO(policy, reference)
    trainer.compile("sgd", loss, run_eagerly=True)
    return trainer


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("future", "losses depend on later tokens"),
        ("rows", "losses depend on other rows"),
        ("no gradient", "no gradient reaches them"),
    ],
)
def test_a_broken_model(fault, message):
    trainer = compiled(net_policy(fault), net_policy("none"))
    assert_refuses(trainer, PAIRS, message)


def test_a_broken_model_of_single_responses():
    trainer = compiled(
        net_policy("future"), net_policy("none"), losses.KTOLoss()
    )
    assert_refuses(trainer, RATED, "losses depend on .*: the model must")


def test_a_copy_that_is_none_any_more():
    policy = small.gpt2_policy(sharpness=4.0)
    trainer = compiled(policy)
    table = policy.model.backbone.token_embedding.embeddings
    table.assign(1.1 * np.asarray(table))
    message = "Policy and reference differ .* changed since it was copied"
    assert_refuses(trainer, PAIRS, message)


def test_a_copy_may_be_left_behind_by_training():
    policy = small.gpt2_policy(sharpness=4.0)
    trainer = tfrlhf.DPO(policy)
    trainer.compile(keras.optimizers.SGD(1.0), run_eagerly=True)
    for _ in range(2):
        trainer.fit(PAIRS, verbose=0)
    again = compiled(policy, trainer.reference)
    again.fit(PAIRS, verbose=0)


def test_a_reference_that_is_the_policy():
    policy = net_policy("none")
    with pytest.raises(SetupError, match="The reference shares variables"):
        tfrlhf.DPO(policy, policy)
    assert policy.trainable_variables


def test_a_loss_that_is_not_a_number():
    policy = net_policy("none")
    trainer = compiled(policy, net_policy("none"))
    path = spoil(policy.model)
    with pytest.raises(SetupError, match="loss of the first batch is nan") as e:
        trainer.fit(PAIRS, verbose=0)
    assert f"`{path}`" in str(e.value)


def test_records_of_which_none_counts():
    trainer = compiled(net_policy("none"), net_policy("none"))
    carrier = trainer.as_carrier(PAIRS)
    nothing = carrier._replace(weight=np.zeros_like(carrier.weight))
    assert_refuses(trainer, nothing, "Nothing counts in the first batch")
