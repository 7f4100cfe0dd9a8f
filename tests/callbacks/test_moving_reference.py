import keras
import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.learning import tables


def trainer(policy):
    made = tfrlhf.REINFORCE(policy, tables.said_it)
    made.compile(
        keras.optimizers.SGD(5.0), sampler=tables.SAMPLER, jit_compile=False
    )
    return made


def test_the_reference_follows_by_the_decay():
    made = trainer(tables.policy())
    expected = tables.table_of(made.reference)

    class Loop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            nonlocal expected
            now = tables.table_of(self.model.policy)
            expected = 0.75 * expected + 0.25 * now

    made.fit(
        [tables.START] * 24,
        batch_size=8,
        callbacks=[Loop(), tfrlhf.callbacks.MovingReference(0.75)],
        verbose=0,
    )
    received = tables.table_of(made.reference)
    np.testing.assert_allclose(received, expected, atol=1e-5)
    assert np.abs(received - tables.start_table()).max() > 0.01
    assert np.abs(received - tables.table_of(made.policy)).max() > 0.01


def test_a_reference_over_the_same_trunk_cannot_follow():
    policy = small.gpt2_policy()
    policy.enable_lora(2)
    made = trainer(policy)
    with pytest.raises(ValueError, match="cannot follow the policy"):
        made.fit(
            ["The park"],
            callbacks=[tfrlhf.callbacks.MovingReference(0.9)],
            verbose=0,
        )


@pytest.mark.parametrize("decay", [-0.1, 1.0])
def test_decays_that_cannot_be(decay):
    with pytest.raises(ValueError, match="`decay`"):
        tfrlhf.callbacks.MovingReference(decay)
