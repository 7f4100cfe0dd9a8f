"""The divergence of sampled responses against loops over the logits."""

import numpy as np
import pytest

from tests import references
from tests import small
from tfrlhf import evaluation
from tfrlhf import frozen_copy
from tfrlhf.types import Completions

TOKEN_IDS = np.array(
    [[5, 6, 7, 8, 0], [1, 2, 9, 0, 0], [3, 4, 4, 3, 4]], np.int32
)
PADDING_MASK = np.array(
    [[1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32
)
RESPONSE_MASK = np.array(
    [[0, 1, 1, 1, 0], [0, 0, 1, 0, 0], [0, 0, 0, 1, 1]], np.int32
)
COMPLETIONS = Completions(
    TOKEN_IDS,
    PADDING_MASK,
    RESPONSE_MASK,
    np.array([1, 1, 0], np.int32),
    np.zeros([3, 5], np.float32),
)


@pytest.fixture(scope="module")
def policy():
    return small.gpt2_policy(seed=1, sharpness=6.0)


def test_sequence_kl_is_the_sum_over_the_response(policy):
    reference = small.gpt2_policy(seed=2, sharpness=6.0)
    expected = np.zeros(3)
    for model, sign in ((policy, 1), (reference, -1)):
        logits = model(TOKEN_IDS, PADDING_MASK).numpy()
        log_probs = references.token_log_probs(
            logits[:, :-1], TOKEN_IDS[:, 1:], 0.7
        )
        expected += sign * np.sum(log_probs * RESPONSE_MASK[:, 1:], axis=1)
    received = evaluation.sequence_kl(
        policy, reference, COMPLETIONS, temperature=0.7, batch_size=2
    )
    assert received.dtype == np.float32
    np.testing.assert_allclose(received, expected, rtol=0, atol=1e-4)


def test_sequence_kl_of_equal_policies_is_0(policy):
    received = evaluation.sequence_kl(policy, frozen_copy(policy), COMPLETIONS)
    np.testing.assert_allclose(received, np.zeros(3), rtol=0, atol=1e-6)


def test_sequence_kl_is_compiled_once_for_two_policies():
    policy, reference = (small.gpt2_policy(seed=s) for s in (1, 2))
    for _ in range(3):
        evaluation.sequence_kl(policy, reference, COMPLETIONS, 0.7)
    for model in (policy, reference):
        assert model._likelihood_function.experimental_get_tracing_count() == 1
