"""Several reward models as one, on text, on ids and inside PPO."""

import numpy as np
import pytest

import tfrlhf
from tests import small
from tfrlhf import rollout

PROMPTS = ["The park", "今天", "The trees are", "Let us go"]
RESPONSES = [" is large.", "天气真好。", " old", ""]


@pytest.fixture(scope="module")
def members():
    return [small.reward_model(seed, sharpness=4.0) for seed in (2, 3, 4)]


@pytest.fixture(scope="module")
def each(members):
    """[M, B]"""
    return np.array([m.score(PROMPTS, RESPONSES) for m in members], np.float64)


def expected(each, reduce, weight):
    rows = []
    for scores in each.T:
        mean = sum(scores) / len(scores)
        deviation = (sum((s - mean) ** 2 for s in scores) / len(scores)) ** 0.5
        rows.append(
            {
                "mean": mean,
                "min": min(scores),
                "mean-std": mean - weight * deviation,
            }[reduce]
        )
    return rows


@pytest.mark.parametrize("reduce", ["mean", "min", "mean-std"])
def test_text_and_ids_are_scored(members, each, reduce):
    ensemble = tfrlhf.RewardEnsemble(members, reduce, deviation_weight=0.5)
    wanted = expected(each, reduce, 0.5)
    scores = ensemble.score(PROMPTS, RESPONSES)
    assert scores.dtype == np.float32 and scores.shape == (4,)
    np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(
        ensemble.as_function()(PROMPTS, RESPONSES, source=["a"] * 4), scores
    )
    ids = tfrlhf.data.sequences(
        PROMPTS, RESPONSES, ensemble.tokenizer, ensemble.context_length
    )
    of_ids = ensemble.score(ids.token_ids, ids.padding_mask)
    np.testing.assert_allclose(of_ids, wanted, rtol=0, atol=1e-5)
    called = ensemble(ids.token_ids, ids.padding_mask)
    np.testing.assert_allclose(called, wanted, rtol=0, atol=1e-5)


def test_disagreement_is_the_deviation_over_the_members(members, each):
    ensemble = tfrlhf.RewardEnsemble(members)
    np.testing.assert_allclose(
        ensemble.member_scores(PROMPTS, RESPONSES), each, rtol=0, atol=1e-5
    )
    mean = np.array(expected(each, "mean", 0.0))
    deviation = mean - expected(each, "mean-std", 1.0)
    np.testing.assert_allclose(
        ensemble.disagreement(PROMPTS, RESPONSES), deviation, rtol=0, atol=1e-5
    )


def test_normalize_brings_every_member_to_one_scale():
    members = [small.reward_model(seed, sharpness=4.0) for seed in (2, 3)]
    members[0].gain.assign(50.0)
    members[1].bias.assign(-9.0)
    ensemble = tfrlhf.RewardEnsemble(members, "min")
    ensemble.normalize(PROMPTS, RESPONSES)
    each = ensemble.member_scores(PROMPTS, RESPONSES)
    np.testing.assert_allclose(each.mean(axis=1), 0.0, atol=1e-5)
    np.testing.assert_allclose(each.std(axis=1), 1.0, atol=1e-5)


def test_members_of_unlike_tokenizers_have_none_in_common(members):
    other = tfrlhf.Tokenizer.train(["The park is old"] * 3, 270)
    stranger = tfrlhf.RewardModel(small.gpt2_backbone(5), other, 32)
    ensemble = tfrlhf.RewardEnsemble([members[0], stranger])
    assert ensemble.tokenizer is None
    assert ensemble.context_length == 32
    # As text, each reads its own ids.
    np.testing.assert_allclose(
        ensemble.score(PROMPTS, RESPONSES),
        (
            members[0].score(PROMPTS, RESPONSES)
            + stranger.score(PROMPTS, RESPONSES)
        )
        / 2,
        atol=1e-5,
    )


def test_what_is_no_ensemble(members):
    for arguments, message in [
        ((members[:1],), r"at least two RewardModels. Received: \[RewardModel"),
        (([members[0], small.gpt2_policy()],), "RewardModel, Policy"),
        ((members, "max"), "`reduce` must be one of 'mean', 'min', 'mean-std'"),
        ((members, "mean-std", -1.0), "`deviation_weight` must be at least"),
    ]:
        with pytest.raises(ValueError, match=message):
            tfrlhf.RewardEnsemble(*arguments)


def test_ppo_scores_ids_with_it():
    members = [small.reward_model(seed, sharpness=4.0) for seed in (2, 3)]
    ensemble = tfrlhf.RewardEnsemble(members, "mean-std")
    trained = sum(len(member.trainable_variables) for member in members)
    assert len(ensemble.trainable_variables) == trained > 0
    before = [small.weights(member) for member in members]
    policy = small.gpt2_policy(sharpness=4.0)
    at_first = small.weights(policy)
    ppo = tfrlhf.PPO(policy, ensemble, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile(
        "adam",
        sampler=tfrlhf.Sampler(max_new_tokens=6),
        update_epochs=1,
        jit_compile=False,
    )
    assert ppo.reward_reads_ids
    ppo.fit(PROMPTS, batch_size=4, verbose=0)
    seen = ppo.last_iteration.rollout
    ids = rollout.with_end(seen, small.tokenizer().eos_id)
    np.testing.assert_allclose(
        seen.scores, ensemble.score(*ids), rtol=0, atol=1e-5
    )
    apart = ensemble.disagreement(*ids)
    assert apart.min() > 0.0
    logged = ppo.history.history["objective/disagreement"]
    assert logged == [pytest.approx(apart.mean(), rel=1e-4)]
    assert any(map(np.any, map(np.subtract, at_first, small.weights(policy))))
    assert ensemble.trainable_variables == []
    for member, weights in zip(members, before, strict=True):
        for now, then in zip(small.weights(member), weights, strict=True):
            np.testing.assert_array_equal(now, then)


def test_ppo_scores_text_where_tokenizers_differ(members):
    other = tfrlhf.Tokenizer.train(["The park is old"] * 3, 270)
    stranger = tfrlhf.RewardModel(small.gpt2_backbone(5), other, 32)
    ensemble = tfrlhf.RewardEnsemble([members[0], stranger])
    policy = small.gpt2_policy()
    ppo = tfrlhf.PPO(policy, ensemble)
    assert not ppo.reward_reads_ids
    records = [{"prompt": prompt, "source": "a"} for prompt in PROMPTS[:3]]
    sampled = policy.encode_prompts(PROMPTS[:3], 6)
    completions = tfrlhf.types.Completions(
        *sampled, sampled.padding_mask, np.ones(3, np.int32), None
    )
    np.testing.assert_allclose(
        ppo.score(records, RESPONSES[:3], completions),
        ensemble.score(PROMPTS[:3], RESPONSES[:3]),
        rtol=0,
        atol=1e-6,
    )
