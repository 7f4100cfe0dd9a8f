"""Faults in replicas, REINFORCE, the start check, score rules and presets."""

STEP = "tests/conformance/test_step.py"
MEANS = "tests/conformance/test_means_and_whitening.py"

CHECK = "tests/trainers/test_start_check.py"
START = {
    "nothing-to-train-passes": (
        "if not variables:",
        "if False:",
        CHECK + "::test_nothing_to_train",
    ),
    "nothing-that-counts-passes": (
        "if not totals.sum() > 0:",
        "if False:",
        CHECK + "::test_examples_of_which_nothing_counts",
    ),
    "infinite-numbers-pass": (
        "~np.isfinite(values))",
        "np.isnan(values) & False)",
        CHECK + "::test_a_weight_that_is_not_a_number",
    ),
    "infinite-losses-pass": (
        "if not np.isfinite(loss):",
        "if False:",
        CHECK + "::test_a_loss_that_is_not_a_number",
    ),
    "infinite-gradients-pass": (
        "if not np.isfinite(norm):",
        "if False:",
        CHECK + "::test_a_gradient_that_is_not_a_number",
    ),
    "vanished-gradients-pass": (
        "if not any(norms):",
        "if False:",
        CHECK + "::test_supervised_training_of_a_broken_model",
    ),
    "any-vocabulary-passes": (
        "if tokenizer.vocabulary_size > size:",
        "if False:",
        CHECK + "::test_a_tokenizer_of_another_model",
    ),
    "dependence-passes": (
        "return bool((gap <= TOLERANCE * (1.0 + np.abs(expected))).all())",
        "return True",
        CHECK + "::test_a_policy_that_sees_what_it_must_not",
    ),
    "first-half-is-all": (
        "(2 * so_far <= count + 1)",
        "(so_far <= count)",
        CHECK + "::test_first_half",
    ),
    "checking-moves-the-random-state": (
        "            variable.assign(state)\n",
        "            pass\n",
        CHECK
        + "::test_looking_changes_no_random_state_and_traces_nothing_more",
    ),
}
ROLLOUT = {
    "any-sampler-passes": (
        "if largest > LARGEST_GAP[_computes_float32(engine)]:",
        "if False:",
        CHECK + "::test_a_sampler_at_another_temperature",
    ),
    "any-ratio-passes": (
        "if change > 0.1 * LARGEST_GAP[_computes_float32(engine)]:",
        "if False:",
        CHECK + "::test_a_learner_at_another_temperature",
    ),
    "any-reference-passes": (
        "if gap.max(initial=0.0) > 0.1 *",
        "if gap.max(initial=0.0) > 1e9 *",
        CHECK + "::test_a_copy_that_is_none_any_more",
    ),
}
SCORE_RULES = {
    "scores-clipped-below-only": (
        "return tf.clip_by_value(scores, -self.limit, self.limit)",
        "return tf.maximum(scores, -self.limit)",
    ),
}
PRESETS = {
    "original-whitens-no-rewards": (
        'GAE(whiten_rewards=True, when="minibatch")',
        'GAE(when="minibatch")',
    ),
    "original-stops-at-eos": (
        "                stop_token_ids=(),\n",
        "",
    ),
    "trl-whitens-biased": ("GAE(unbiased=True)", "GAE()"),
    "openrlhf-clips-no-scores": ("(ClipScores(10.0),)", "()"),
    "openrlhf-value-clip": ("value_clip=0.5, ", ""),
    "missing-token-is-subtracted": (
        "tf.reduce_any(found, axis=-1), scores, self.score)",
        "tf.reduce_any(found, axis=-1), scores, scores + self.score)",
        "tests/test_presets.py::test_a_missing_token_sets_the_score",
    ),
    "missing-token-in-the-prompt": (
        "& (mask == 1)\n        found",
        "\n        found",
        "tests/test_presets.py::test_a_missing_token_sets_the_score",
    ),
    "missing-token-counts-from-one": (
        "found &= before >= self.after",
        "found &= before > self.after",
        "tests/test_presets.py::test_a_missing_token_sets_the_score",
    ),
}
REPLICAS = {
    "absent-rows-count": (
        "tf.where(real, full.response_mask, 0)",
        "full.response_mask",
        MEANS + "::test_rows_that_are_absent_do_not_move_the_whitening",
    ),
    "replicas-get-the-same-rows": (
        "start = context.replica_id_in_sync_group * size",
        "start = 0",
        "tests/distribute/test_line.py",
    ),
    "rows-of-the-padding-come-back": (
        "lambda x: x[:count], results",
        "lambda x: x, results",
        "tests/trainers/test_replicas.py",
    ),
}
REINFORCE = {
    "reinforce-makes-four-passes": (
        '{"update_epochs": 1, **self.usual_settings(), **settings}',
        '{"update_epochs": 4, **self.usual_settings(), **settings}',
    ),
    "reinforce-without-baseline": (
        "advantage=advantage or self.estimator(),",
        "advantage=advantage or MovingBaseline(discount=0.0),",
        STEP + "::test_reinforce_weighs_by_the_return_less_the_returns_before",
    ),
}
FAULTS = [
    ("tfrlhf/trainers/replicas.py", MEANS, REPLICAS),
    (
        "tfrlhf/trainers/critic_free.py",
        "tests/trainers/test_reinforce.py",
        REINFORCE,
    ),
    (
        "tfrlhf/models/start_check.py",
        CHECK,
        START,
    ),
    (
        "tfrlhf/trainers/rollout_check.py",
        CHECK,
        ROLLOUT,
    ),
    ("tfrlhf/rollout/score_rules.py", "tests/test_presets.py", SCORE_RULES),
    ("tfrlhf/presets.py", "tests/test_presets.py", PRESETS),
]
