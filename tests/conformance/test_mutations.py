"""Every mutant still applies, and nothing that must be right lacks one."""

import collections
import inspect
import types

import pytest

from tests.conformance.mutations import MUTANTS
from tests.conformance.mutations import Mutant
from tests.conftest import ROOT
from tfrlhf import losses
from tfrlhf import ops

# Every phase of the trainers: file and function.
PHASES = {
    "tfrlhf/data/prompts.py": ["encode_responses", "padded_rows"],
    "tfrlhf/models/sampler.py": ["uniform_draws", "_sample", "_filtered"],
    "tfrlhf/models/adapters.py": ["Adapter._added", "Adapter.copy"],
    "tfrlhf/models/generation.py": [
        "WithGeneration._decode_settings",
        "WithGeneration.stop_token_ids",
    ],
    "tfrlhf/models/decoder.py": [
        "Decoder.__call__",
        "Decoder._in_stages",
        "_rows_of",
        "_first_active",
        "_updated",
    ],
    "tfrlhf/models/statistics.py": ["token_statistics"],
    "tfrlhf/models/output_head.py": ["head_statistics"],
    "tfrlhf/models/value.py": [
        "ValueModel.from_hidden",
        "ValueModel.from_reward",
    ],
    "tfrlhf/models/reference.py": ["frozen_copy"],
    "tfrlhf/models/reward.py": [
        "RewardModel.call",
        "RewardModel.normalize",
        "RewardModel.batch_losses",
        "RewardModel.batch_weights",
        "ranking_metrics",
    ],
    "tfrlhf/models/ensemble.py": [
        "RewardEnsemble.each_score",
        "RewardEnsemble.reduced",
    ],
    "tfrlhf/models/process_reward.py": [
        "ProcessRewardModel.step_ends",
        "ProcessRewardModel.step_rewards",
        "ProcessRewardModel.token_scores",
        "ProcessRewardModel.batch_weights",
        "ProcessRewardModel.batch_losses",
    ],
    "tfrlhf/models/trainable.py": [
        "TrainableModel.train_step",
        "TrainableModel._applied",
        "TrainableModel._gradient_scale",
        "TrainableModel._part_gradients",
        "TrainableModel._logs",
    ],
    "tfrlhf/models/micro_batches.py": [
        "rows_of_part",
        "trimmed",
        "sum_over_parts.add_part",
    ],
    "tfrlhf/models/start_check.py": [
        "check_trainable",
        "check_vocabulary",
        "check_finite",
        "probe",
        "check_reached",
        "heaviest_rows",
        "first_half",
        "without_draws",
    ],
    "tfrlhf/rollout/advantages.py": [
        "GAE.__call__",
        "GAE._whitened",
        "MovingBaseline.__call__",
        "MovingBaseline.baseline",
    ],
    "tfrlhf/rollout/experience.py": [
        "rollout_rewards",
        "make_experience",
        "rollout_metrics",
        "value_metrics",
        "sequence_kl",
    ],
    "tfrlhf/rollout/scoring.py": ["with_end", "call_reward"],
    "tfrlhf/rollout/score_rules.py": ["ClipScores.__call__"],
    "tfrlhf/rollout/search.py": [
        "best_of_n",
        "best_of_n_kl",
        "rejection_sample",
        "_sampled",
    ],
    "tfrlhf/trainers/engine.py": [
        "RolloutEngine.rollout",
        "RolloutEngine.evaluate",
    ],
    "tfrlhf/trainers/looking.py": [
        "LookingEngine._compile_collect.collect",
        "LookingEngine.statistics_and_values",
        "LookingEngine.response_ratios",
    ],
    "tfrlhf/trainers/example_mixing.py": [
        "ExampleBatches.rows",
        "ExampleBatches.mixed",
        "cross_entropy",
        "learnt",
    ],
    "tfrlhf/trainers/policy_optimization.py": [
        "PPO.compile",
        "PPO.iterate",
        "PPO.take_examples",
        "PPO.update",
        "PPO._with_examples",
        "PPO._experience",
    ],
    "tfrlhf/trainers/scoring.py": [
        "ScoringEngine.judge",
        "ScoringEngine.read",
        "ScoringEngine._scores",
        "freeze",
    ],
    "tfrlhf/trainers/online_preference_optimization.py": [
        "OnlineDPO.iterate",
        "OnlineDPO._step",
        "compared",
    ],
    "tfrlhf/trainers/policy_learner.py": [
        "PolicyLearner.batch_weights",
        "PolicyLearner.learner_variables",
        "PolicyLearner.optimizer_groups",
        "PolicyLearner._part_gradients",
        "PolicyLearner._policy_losses",
        "PolicyLearner._value_losses",
        "PolicyLearner._policy_output",
    ],
    "tfrlhf/trainers/kl_control.py": [
        "AdaptiveKL.next_weight",
        "FixedKL.initial",
    ],
    "tfrlhf/trainers/learner_metrics.py": ["policy_metrics", "value_metrics"],
    "tfrlhf/trainers/minibatches.py": ["minibatch_rows"],
    "tfrlhf/trainers/critic_free.py": ["CriticFree.compile"],
    "tfrlhf/trainers/preference_metrics.py": [
        "pair_metrics",
        "rating_metrics",
    ],
    "tfrlhf/trainers/preference_optimization.py": [
        "DPO.batch_losses",
        "DPO.batch_weights",
        "DPO.counted_part",
        "DPO.train_step",
        "DPO.test_step",
        "DPO._rating_losses",
        "DPO._kl_sums.of_part",
        "DPO._check_reference",
        "response_log_probs",
    ],
    "tfrlhf/trainers/rated_responses.py": ["with_other_responses"],
    "tfrlhf/trainers/reference_cache.py": ["cached", "fingerprint"],
    "tfrlhf/trainers/replicas.py": [
        "per_replica.part",
        "with_absent_rows",
        "on_replicas",
    ],
    "tfrlhf/trainers/rollout_check.py": [
        "check_ratio",
        "_check_sampler",
        "_check_reference",
    ],
    "tfrlhf/trainers/supervised.py": [
        "SFT.batch_weights",
        "SFT.batch_losses",
        "SFT.as_carrier",
    ],
    "tfrlhf/presets.py": [
        "lm_human_preferences",
        "trl",
        "openrlhf",
        "MissingToken.__call__",
    ],
}


def public(package):
    """(file, function) of every public function, or method `call`."""
    for name in package.__all__:
        thing = getattr(package, name)
        is_class = not isinstance(thing, types.FunctionType)
        function = f"{name}.call" if is_class else name
        file = inspect.getsourcefile(thing)
        yield file.removeprefix(f"{ROOT}/"), function


@pytest.fixture(scope="module")
def places():
    """Functions with a mutant, by file."""
    found = collections.defaultdict(set)
    for mutant in MUTANTS:
        found[mutant.file].add(mutant.place(ROOT))
    return found


def test_names_are_unique():
    names = collections.Counter(mutant.name for mutant in MUTANTS)
    assert [name for name, count in names.items() if count > 1] == []
    assert len(names) >= 60


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_mutant_applies(mutant):
    faulty = mutant.applied(ROOT)
    compile(faulty, mutant.file, "exec")
    assert faulty != (ROOT / mutant.file).read_text("utf-8")
    for test in mutant.tests:
        path, *names = test.split("::")
        assert (ROOT / path).exists()
        for name in names:
            function = f"def {name.split('[')[0]}("
            assert function in (ROOT / path).read_text("utf-8")


def test_a_mutant_whose_text_is_gone_is_an_error():
    lost = Mutant("lost", "tfrlhf/ops/kl.py", "no such text", "", ())
    with pytest.raises(ValueError, match="'lost'.* 0 times"):
        lost.applied(ROOT)


@pytest.mark.parametrize("package", [ops, losses], ids=["ops", "losses"])
def test_every_public_function_has_a_mutant(places, package):
    assert [x for x in public(package) if x[1] not in places[x[0]]] == []


@pytest.mark.parametrize("file", PHASES)
def test_every_phase_has_a_mutant(places, file):
    assert set(PHASES[file]) - places[file] == set()
