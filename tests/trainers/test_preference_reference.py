"""What the frozen reference says: read once, kept on disk, never stale."""

import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.learning import tables
from tests.trainers.test_preference_optimization import LOSSES
from tests.trainers.test_preference_optimization import RECORDS
from tests.trainers.test_preference_optimization import REFERENCE
from tests.trainers.test_preference_optimization import TABLE
from tests.trainers.test_preference_optimization import preferences
from tests.trainers.test_preference_optimization import read
from tfrlhf import data
from tfrlhf import losses
from tfrlhf.types import Preferences
from tfrlhf.types import ReferencedPreferences


class Counted(tfrlhf.Policy):
    """Counts its passes."""

    passes = 0

    def call(self, *args, **kwargs):
        self.passes += 1
        return super().call(*args, **kwargs)


def counted(table=REFERENCE):
    return Counted(tables.model(table), tables.tokenizer(), 64)


def with_cache(directory, reference):
    dpo = tfrlhf.DPO(tables.policy(TABLE), reference, directory)
    dpo.compile("sgd", losses.DPOLoss(), run_eagerly=True)
    return dpo


def test_no_step_runs_the_reference():
    reference = counted()
    dpo = tfrlhf.DPO(tables.policy(TABLE), reference)
    dpo.compile("sgd", losses.DPOLoss(), run_eagerly=True)
    dpo.fit(preferences(), batch_size=2, epochs=3, verbose=0)
    # Eight sequences are one pass.
    assert reference.passes == 1
    carrier = dpo.as_carrier(preferences())
    assert isinstance(carrier, ReferencedPreferences)
    assert reference.passes == 2
    dpo.fit(carrier, validation_data=carrier, verbose=0)
    dpo.evaluate(carrier)
    assert reference.passes == 2


@pytest.mark.parametrize("name", ["simpo", "orpo"])
def test_a_loss_without_reference_makes_none(name):
    dpo = tfrlhf.DPO(tables.policy(TABLE))
    dpo.compile("sgd", LOSSES[name][0], run_eagerly=True)
    carrier = dpo.as_carrier(preferences())
    assert isinstance(carrier, Preferences)
    assert dpo.reference is None


def test_what_the_reference_says_is_kept_on_disk(tmp_path):
    first = with_cache(tmp_path, counted()).as_carrier(preferences())
    again = counted()
    second = with_cache(tmp_path, again).as_carrier(preferences())
    assert again.passes == 0
    np.testing.assert_array_equal(second.ref_log_probs, first.ref_log_probs)
    np.testing.assert_allclose(
        first.ref_log_probs[first.ranks >= 0],
        read(REFERENCE, False)[first.ranks >= 0],
        rtol=1e-5,
    )
    assert [file.suffix for file in tmp_path.iterdir()] == [".npz"]


def test_a_cache_of_other_data_or_weights_is_not_read(tmp_path):
    with_cache(tmp_path, counted()).as_carrier(preferences())
    moved = REFERENCE + np.eye(len(REFERENCE)) * 1e-3
    other = counted(moved)
    found = with_cache(tmp_path, other).as_carrier(preferences())
    assert other.passes == 1
    fresh = with_cache(None, counted(moved)).as_carrier(preferences())
    np.testing.assert_array_equal(found.ref_log_probs, fresh.ref_log_probs)
    again = counted()
    fewer = [(p, dict(list(r.items())[:2]), w) for p, r, w in RECORDS]
    with_cache(tmp_path, again).as_carrier(preferences(fewer, 2))
    assert again.passes == 1
    masked = preferences()
    masked.response_mask[0, 0, 1] = 0
    with_cache(tmp_path, again).as_carrier(masked)
    assert again.passes == 2
    assert len(list(tmp_path.iterdir())) == 4


def test_a_reference_that_needs_none_given_is_the_policy_as_it_was():
    policy = small.gpt2_policy(sharpness=4.0)
    policy.enable_lora(rank=2)
    dpo = tfrlhf.DPO(policy)
    dpo.compile("sgd", run_eagerly=True)
    assert dpo.reference.trainable_variables == []
    # The adapter is switched off: the backbone is the policy's own.
    assert dpo.reference.model is policy.model
    assert len(dpo.learner_variables()) == len(policy.trainable_variables)
    named = tfrlhf.DPO(tables.policy(TABLE), tables.policy(REFERENCE))
    named.compile("sgd", run_eagerly=True)
    np.testing.assert_allclose(tables.table_of(named.reference), REFERENCE)


def test_a_stream_trains_losses_without_a_reference():
    records = [
        {"prompt": "The park", "chosen": " is large", "rejected": " no"},
        {"prompt": "12", "chosen": " trees", "rejected": " is"},
    ]
    dpo = tfrlhf.DPO(small.gpt2_policy(sharpness=4.0))
    dpo.compile("sgd", losses.SimPOLoss(), run_eagerly=True)
    tokenizer, length = dpo.policy.tokenizer, dpo.policy.context_length
    batches = data.stream(
        records, tokenizer, length, kind="preferences", batch_size=2
    )
    expected = dpo.evaluate(records)["loss"]
    history = dpo.fit(batches, verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    dpo.compile("sgd", losses.DPOLoss(), run_eagerly=True)
    with pytest.raises(ValueError, match="DPOLoss must be of ReferencedPref"):
        dpo.fit(batches, verbose=0)
