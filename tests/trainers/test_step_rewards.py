"""A process reward model as the reward of policy optimisation."""

import copy

import keras
import numpy as np
import pytest

import tfrlhf
from tests.learning import tables
from tfrlhf import rollout
from tfrlhf.models.start_check import SetupError

# What each token is worth where it ends a step: 你 and 。 do.
WORTH = np.array([9.0, 8.0, 7.0, 1.0, -0.5])
KL_WEIGHT = 0.3


def tokenizer():
    """That of the tables, with 。 as EOS."""
    made = copy.copy(tables.tokenizer())
    made.eos_id = tables.STOP
    return made


def process_model(context_length=64):
    backbone = tables.model(np.eye(len(tables.LETTERS)))
    process = tfrlhf.ProcessRewardModel(
        backbone, tokenizer(), context_length, separator="你"
    )
    process.head.kernel.assign(WORTH[:, None])
    return process


def trainer(process, kind=tfrlhf.REINFORCE, rate=0.0, **settings):
    policy = tfrlhf.Policy(
        tables.model(tables.other_table(7)), tokenizer(), context_length=64
    )
    made = kind(policy, process, tables.policy(tables.other_table(3)))
    settings = {"kl": tfrlhf.FixedKL(KL_WEIGHT)} | settings
    made.compile(
        keras.optimizers.SGD(rate),
        sampler=tables.SAMPLER,
        clip_norm=None,
        jit_compile=False,
        **settings,
    )
    return made


def by_steps(seen):
    """What every token earns where it ends a step, by a loop."""
    earned = np.zeros(seen.token_ids.shape)
    for row, ids in enumerate(seen.token_ids.numpy()):
        for t, token in enumerate(ids):
            if seen.response_mask[row, t] and tables.LETTERS[token] in "你。":
                earned[row, t] = WORTH[token]
    return earned


@pytest.mark.parametrize("penalty", [0.0, 2.0])
def test_rewards_lie_where_steps_end(penalty):
    rules = [tfrlhf.MissingEndPenalty(penalty)] if penalty else []
    made = trainer(process_model(), score_rules=rules)
    logs = made.fit([tables.START] * 24, batch_size=24, verbose=0).history
    seen = made.last_iteration.rollout
    earned = by_steps(seen)
    assert len(set(np.count_nonzero(earned, axis=1))) > 2
    finished = seen.finished.numpy()
    assert 0 < finished.sum() < 24
    scores = earned.sum(axis=1) - penalty * (1 - finished)
    np.testing.assert_allclose(seen.scores, scores, atol=1e-5)
    assert logs["objective/scores"][0] == pytest.approx(scores.mean())
    # What is no step's lies on the last token.
    kl = (seen.log_probs - seen.ref_log_probs).numpy()
    mask = seen.response_mask.numpy()
    wanted = np.where(mask, earned - KL_WEIGHT * kl, 0.0)
    for row in np.flatnonzero(finished == 0):
        wanted[row, np.flatnonzero(mask[row])[-1]] -= penalty
    rewards = rollout.rollout_rewards(seen, KL_WEIGHT)
    np.testing.assert_allclose(rewards, wanted, atol=1e-5)


def test_the_policy_learns_to_end_many_good_steps():
    made = trainer(process_model(), rate=20.0, kl=tfrlhf.FixedKL(0.0))
    history = made.fit(
        [tables.START] * 32, batch_size=32, epochs=30, verbose=0
    ).history
    scores = history["objective/scores"]
    # 你 until the limit earns 6.
    assert scores[0] < 2.0
    assert scores[-1] > 5.0


def test_groups_compare_the_sums_of_their_steps():
    made = trainer(
        process_model(), tfrlhf.GRPO, advantage=tfrlhf.GroupRelative(4)
    )
    made.fit([tables.START] * 6, batch_size=24, verbose=0)
    seen = made.last_iteration.rollout
    np.testing.assert_allclose(
        seen.scores, by_steps(seen).sum(axis=1), atol=1e-5
    )


def test_steps_beyond_its_context_have_no_reward():
    made = trainer(process_model(context_length=4))
    made.fit([tables.START] * 24, batch_size=24, verbose=0)
    seen = made.last_iteration.rollout
    earned = by_steps(seen)
    assert earned[:, 4:].any()
    earned[:, 4:] = 0.0
    np.testing.assert_allclose(seen.step_rewards, earned, atol=1e-5)


def test_it_must_read_the_policys_tokens():
    process = process_model()
    policy = tables.policy()
    policy.tokenizer = None
    with pytest.raises(SetupError, match="must have the policy's tokenizer"):
        tfrlhf.REINFORCE(policy, process)
