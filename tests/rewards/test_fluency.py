"""Perplexity against a loop over logits."""

import math

import numpy as np
import pytest

import tfrlhf
from tests import small
from tfrlhf.rewards import NegativePerplexity

PROMPTS = ["The weather", "公园", "The park"]
RESPONSES = [" is fine today.", "很大，树很老。", ""]


@pytest.fixture(scope="module")
def policy():
    return small.gpt2_policy(sharpness=4.0)


def expected(policy, prompt, response):
    tokenizer = small.tokenizer()
    first, rest, _ = tokenizer.encode_pair(prompt, response)
    rest = [*rest, tokenizer.eos_id]
    ids = np.array([first + rest], np.int32)
    logits = np.asarray(policy(ids, np.ones_like(ids)), np.float64)[0]
    nll = 0.0
    for position, token in enumerate(rest, start=len(first)):
        before = logits[position - 1]
        nll -= before[token] - math.log(sum(math.exp(x) for x in before))
    return math.exp(nll / len(rest))


def test_scores(policy):
    wanted = [
        -expected(policy, *x) for x in zip(PROMPTS, RESPONSES, strict=True)
    ]
    reward = NegativePerplexity(policy, limit=1e9)
    assert reward(PROMPTS, RESPONSES) == pytest.approx(wanted, rel=1e-4)
    # Alone, without the padding of the longer ones.
    one = NegativePerplexity(policy, limit=1e9, batch_size=1)
    assert one(PROMPTS, RESPONSES, x=[1] * 3) == pytest.approx(wanted, rel=1e-4)


def test_the_prompt_counts(policy):
    reward = NegativePerplexity(policy, limit=1e9)
    first, second = reward(["The park", "公园"], [" is large."] * 2)
    assert first != pytest.approx(second, rel=1e-3)


def test_the_limit(policy):
    unlimited = NegativePerplexity(policy, limit=1e9)(PROMPTS, RESPONSES)
    limit = -sorted(unlimited)[1]
    limited = NegativePerplexity(policy, limit=limit)(PROMPTS, RESPONSES)
    assert limited == [max(-limit, x) for x in unlimited]
    with pytest.raises(ValueError, match="`limit` must be at least 1"):
        NegativePerplexity(policy, limit=0.5)
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        NegativePerplexity(policy, batch_size=0)


def test_an_even_model_is_as_perplexed_as_it_has_tokens():
    policy = small.gpt2_policy(sharpness=0.0)
    size = small.tokenizer().vocabulary_size
    reward = NegativePerplexity(policy)
    assert reward(PROMPTS, RESPONSES) == pytest.approx([-size] * 3, rel=1e-5)


def test_a_changed_trunk_is_seen():
    policy = small.gpt2_policy(sharpness=4.0)
    before = policy.perplexity(PROMPTS, RESPONSES)
    policy.enable_lora(2)
    for weight in policy.trainable_variables:
        weight.assign_add(np.full(weight.shape, 0.3, np.float32))
    after = policy.perplexity(PROMPTS, RESPONSES)
    assert not np.allclose(before, after, rtol=1e-3)


def test_a_policy_without_tokenizer_is_refused():
    policy = tfrlhf.Policy(small.gpt2_policy().model)
    with pytest.raises(ValueError, match="no tokenizer"):
        NegativePerplexity(policy)(["a"], ["b"])
