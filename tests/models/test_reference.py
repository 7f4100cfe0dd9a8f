"""The frozen copy: the same distribution, nothing shared, nothing to train."""

import numpy as np
import pytest

from tests import small
from tfrlhf import frozen_copy

TOKEN_IDS = np.array([[5, 6, 7, 8, 0], [1, 2, 0, 0, 0]], np.int32)
PADDING_MASK = np.array([[1, 1, 1, 1, 0], [1, 1, 0, 0, 0]], np.int32)


@pytest.mark.parametrize("make", [small.gpt2_policy, small.llama_policy])
def test_a_frozen_copy(make):
    policy = make(sharpness=6.0)
    reference = frozen_copy(policy)
    before = policy.log_probs(TOKEN_IDS, PADDING_MASK, 0.7)
    np.testing.assert_array_equal(
        reference.log_probs(TOKEN_IDS, PADDING_MASK, 0.7), before
    )
    assert reference.trainable_variables == []
    assert len(reference.variables) == len(policy.variables)
    assert not {id(v) for v in reference.variables} & {
        id(v) for v in policy.variables
    }
    assert reference.tokenizer is policy.tokenizer
    assert reference.context_length == policy.context_length

    # Training the policy does not reach its reference.
    assert len(policy.trainable_variables) == len(policy.variables)
    for variable in policy.trainable_variables:
        variable.assign(variable * 0.5)
    np.testing.assert_array_equal(
        reference.log_probs(TOKEN_IDS, PADDING_MASK, 0.7), before
    )
    assert not np.allclose(
        policy.log_probs(TOKEN_IDS, PADDING_MASK, 0.7), before
    )
