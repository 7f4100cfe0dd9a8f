"""Faults in rollout/, trainers/ and presets: (file, tests, {name: ...})."""

CONFORMANCE = "tests/conformance/"
NUMBERS = CONFORMANCE + "test_policy_numbers.py"
METRICS = CONFORMANCE + "test_metrics.py"
SCORES = CONFORMANCE + "test_scores.py"
STEP = CONFORMANCE + "test_step.py"
UPDATE = "tests/trainers/test_update.py"
MEANS = CONFORMANCE + "test_means_and_whitening.py"
OPTION = CONFORMANCE + "test_options.py::test_every_option_changes_something"
SCORING = {
    "every-response-gets-eos": (
        "(position == length) & (last != end_id)",
        "(position == length)",
    ),
    "the-end-is-masked": (
        "return token_ids, padding_mask + tf.cast(open_end, tf.int32)",
        "return token_ids, padding_mask",
    ),
    "too-few-scores-are-taken": (
        "if len(values) != len(responses):",
        "if False:",
    ),
    "scores-may-be-nan": ("if not math.isfinite(score):", "if False:"),
}
EXPERIENCE = {
    "steps-are-rewarded-twice": (
        "rollout.scores - tf.reduce_sum(steps, axis=-1),",
        "rollout.scores,",
        "tests/trainers/test_step_rewards.py",
    ),
    "kl-adds-to-the-logged-reward": (
        "scores - kl_weight * mean_kl",
        "scores + kl_weight * mean_kl",
    ),
    "logged-kl-is-a-token-mean": (
        "mean_kl = ops.masked_mean(kl, present)",
        "mean_kl = ops.masked_mean(kl / tf.cast(counts, tf.float32), present)",
    ),
    "logged-scores-count-empty-rows": (
        "scores = ops.masked_mean(rollout.scores, present)",
        "scores = tf.reduce_mean(rollout.scores)",
    ),
    "logged-length-counts-the-prompt": (
        "counts = tf.reduce_sum(mask, axis=-1)",
        "counts = tf.reduce_sum(rollout.padding_mask, axis=-1)",
    ),
    "logged-gap-over-padding": (
        "tf.where(rollout.response_mask > 0, gap, 0.0)",
        "gap",
    ),
    "sequence-kl-unmasked": (
        "log_probs = tf.where(mask > 0, log_probs, 0.0)\n    ref",
        "ref",
    ),
    "explained-variance-inverted": (
        "ops.masked_variance(error, mask), variance",
        "variance, ops.masked_variance(error, mask)",
    ),
    "value-mean-over-padding": (
        '"value/mean": ops.masked_mean(experience.old_values, mask)',
        '"value/mean": tf.reduce_mean(experience.old_values)',
    ),
    "ref-log-probs-for-log-probs": (
        "old_log_probs=rollout.log_probs,",
        "old_log_probs=rollout.ref_log_probs,",
    ),
    "penalty-kind-not-passed-on": (
        "        kl_weight,\n        kind,\n        clip,",
        '        kl_weight,\n        "k1",\n        clip,',
    ),
}
ADVANTAGES = {
    "whitened-unless-asked": ("if self.whiten:", "if not self.whiten:"),
    "whiten-rewards-does-nothing": ("if self.whiten_rewards:", "if False:"),
    "whitened-rewards-lose-their-mean": (
        "self._whitened(rewards, mask, shift_mean=False)",
        "self._whitened(rewards, mask, shift_mean=True)",
    ),
    "unbiased-the-wrong-way": (
        "variance *= count / tf.maximum(count - 1.0, 1.0)",
        "variance *= tf.maximum(count - 1.0, 1.0) / count",
    ),
    "baseline-added": (
        "(returns - baseline, mask)",
        "(returns + baseline, mask)",
    ),
    "baseline-over-padding": (
        "ops.masked_mean(returns, mask)",
        "tf.reduce_mean(returns)",
    ),
    "baseline-starts-near-0": (
        "known = 1.0 - self.momentum ** tf.cast(self.rollouts, tf.float32)",
        "known = 1.0",
    ),
}
KL_CONTROL = {
    "kl-error-not-clipped": (
        "error = min(max(kl / self.target - 1.0, -0.2), 0.2)",
        "error = kl / self.target - 1.0",
    ),
    "kl-weight-falls-when-kl-is-high": (
        "weight * (1.0 + error * episodes",
        "weight * (1.0 - error * episodes",
    ),
    "kl-weight-counts-iterations": (
        "error * episodes / self.horizon",
        "error / self.horizon",
    ),
    "kl-target-upside-down": (
        "kl / self.target - 1.0",
        "self.target / kl - 1.0",
    ),
    "fixed-kl-starts-at-0": (
        "        return self.weight\n",
        "        return 0.0\n",
    ),
}
LEARNER_METRICS = {
    "clipfrac-counts-every-ratio-outside": (
        "policy_clipped = -advantages * clipped > -advantages * ratio",
        "policy_clipped = tf.not_equal(clipped, ratio)",
    ),
    "approx-kl-doubled": (
        "0.5 * tf.square(change)",
        "tf.square(change)",
    ),
    "logged-entropy-unmasked": (
        "ops.zero_outside(output.entropy, mask)",
        "output.entropy",
    ),
    "value-clipfrac-inverted": (
        "value_clipped = value_loss > 0.5 * tf.square(error)",
        "value_clipped = value_loss <= 0.5 * tf.square(error)",
    ),
}
MINIBATCHES = {
    "rows-never-shuffled": (
        "order = np.random.default_rng(seed).permutation(present)",
        "order = present",
    ),
    "empty-rows-make-a-minibatch": (
        "present = np.flatnonzero(response_mask.any(axis=1))",
        "present = np.arange(len(response_mask))",
    ),
}
TRUST = "tests/trainers/test_looking.py"
SEED = "tests/trainers/test_engine.py::test_a_rollout_follows_from_seed_and_row"
ENGINE = {
    "rollout-ignores-the-seed": (
        "draws = uniform_draws(pair, ",
        "draws = uniform_draws((0, 0), ",
        SEED,
    ),
    "evaluation-forgets-the-parts": (
        "for n in EVALUATED} | found.metrics",
        "for n in EVALUATED}",
        "tests/trainers/test_reward_parts.py",
    ),
    "evaluation-weighs-batches": (
        "total + mean * len(records)",
        "total + mean * batch_size",
        "tests/trainers/test_engine.py::"
        "test_evaluate_weighs_every_prompt_the_same",
    ),
}
STEP_REWARDS = "tests/trainers/test_step_rewards.py"
SCORED = {
    "steps-are-rewarded-at-the-end": (
        "Judgement(tf.where(present > 0, scores, 0.0), steps, metrics)",
        "Judgement(tf.where(present > 0, scores, 0.0), 0.0 * steps, metrics)",
        STEP_REWARDS,
    ),
    "members-are-never-apart": (
        "steps, tf.math.reduce_std(each, axis=0)",
        "steps, 0.0 * tf.math.reduce_std(each, axis=0)",
        "tests/models/test_ensemble.py::test_ppo_scores_ids_with_it",
    ),
    "score-rules-ignored": (
        "scores = rule(scores, completions)",
        "rule(scores, completions)",
        STEP + "::test_score_rules_apply_in_order_to_what_the_reward_gave",
    ),
    "cut-responses-scored-without-eos": (
        "token_ids, padding_mask = with_end(seen, eos_id)",
        "token_ids, padding_mask = with_end(seen, None)",
        SCORES
        + "::test_a_cut_response_is_scored_with_the_end_it_was_trained_with",
    ),
    "empty-responses-are-scored": (
        "Judgement(tf.where(present > 0, scores, 0.0), ",
        "Judgement(scores, ",
        "tests/trainers/test_engine.py::test_an_empty_response_scores_0",
    ),
    "reward-and-reference-learn": (
        "    frozen.trainable = False\n",
        "",
        STEP + "::test_policy_and_value_learn_and_nothing_else",
    ),
}
PPO = {
    "kl-weight-of-the-first-iteration": (
        "tf.constant(self.state.kl_weight.numpy()),",
        "tf.constant(self.kl.initial),",
        STEP + "::test_the_kl_weight_of_the_state_is_in_the_returns",
    ),
    "kl-weight-is-not-kept": (
        "self.state.kl_weight.assign(\n",
        "tf.Variable(0.0).assign(\n",
        STEP + "::test_two_iterations_follow_the_controller_and_draw_anew",
    ),
    "kl-control-counts-one-episode": (
        'logs["objective/kl"],\n                len(records),',
        'logs["objective/kl"],\n                1,',
        STEP + "::test_two_iterations_follow_the_controller_and_draw_anew",
    ),
    "penalty-kind-ignored": (
        "rollout, kl_weight, self.kl.kind, self.kl.clip",
        'rollout, kl_weight, "k1", self.kl.clip',
        OPTION + "[FixedKL-kind]",
    ),
    "every-iteration-draws-the-same": (
        "self.state.iteration.assign_add(1)",
        "self.state.iteration.assign_add(0)",
        STEP + "::test_two_iterations_follow_the_controller_and_draw_anew",
    ),
    "one-update-epoch": (
        "for epoch in range(self.update_epochs):",
        "for epoch in range(1):",
        STEP + "::test_two_iterations_follow_the_controller_and_draw_anew",
    ),
    "epochs-cut-the-same-minibatches": (
        "(*draw, epoch)",
        "(*draw, 0)",
        STEP + "::test_every_pass_cuts_the_rows_anew",
    ),
    "rewards-of-other-rows": (
        "self._estimated(batch, tf.gather(rewards, chosen))",
        "self._estimated(batch, rewards[: len(chosen)])",
        STEP + "::test_estimates_by_minibatch_are_of_its_own_rows",
    ),
    "minibatches-never-estimated": (
        "if rewards is not None and self.estimates_minibatches:",
        "if False:",
        STEP + "::test_estimates_by_minibatch_are_of_its_own_rows",
    ),
    "padding-rows-count": (
        "replicas.with_absent_rows(rollout, max(len(records), batch_size))",
        "replicas.padded(rollout, max(len(records), batch_size))",
        SCORES + "::test_an_iteration_pays_every_response_its_score",
    ),
    "metrics-of-all-iterations": (
        "        self.reset_metrics()\n",
        "",
        METRICS + "::test_metrics_of_the_update",
    ),
    "first-score-rule-only": (
        "self.score_rules = tuple(score_rules)",
        "self.score_rules = tuple(score_rules)[:1]",
        STEP + "::test_score_rules_apply_in_order_to_what_the_reward_gave",
    ),
}
LOOKING = {
    "ratio-then-over-now": (
        "ratio = tf.exp(now - rollout.log_probs)",
        "ratio = tf.exp(rollout.log_probs - now)",
        STEP + "::test_ratios_are_of_now_over_then",
    ),
    "rollout-log-probs-without-temperature": (
        "            self.sampler.temperature,\n            where",
        "            1.0,\n            where",
        NUMBERS + "::test_the_temperature_is_in_all_log_probs_and_the_entropy",
    ),
    "kl-against-the-policy-itself": (
        "self._response_log_probs(self.reference, *rows),",
        "self._response_log_probs(self.policy, *rows),",
        NUMBERS + "::test_the_temperature_is_in_all_log_probs_and_the_entropy",
    ),
    "values-are-0": (
        "if self.value is None:\n            return",
        "if True:\n            return",
        METRICS + "::test_metrics_of_the_values",
    ),
    "learner-with-dropout": (
        "*(token_ids, padding_mask, temperature),",
        "*(token_ids, padding_mask, temperature, True),",
        NUMBERS + "::test_before_any_update_the_ratio_is_1_and_the_kl_0",
    ),
    "update-without-temperature": (
        "*(token_ids, padding_mask, temperature),",
        "*(token_ids, padding_mask),",
        NUMBERS + "::test_the_temperature_is_in_all_log_probs_and_the_entropy",
    ),
    "nobody-watches-the-sampler": (
        "asked = tf.concat([[0], is_known[1:]], axis=0) == 0",
        "asked = is_known == 0",
        TRUST,
    ),
    "the-sampler-is-asked-in-vain": (
        "asked = tf.concat([[0], is_known[1:]], axis=0) == 0",
        "asked = is_known >= 0",
        TRUST,
    ),
    "any-sampler-is-trusted": (
        "and self.sampler.top_p >= 1.0",
        "",
        TRUST,
    ),
    "short-floats-are-trusted": (
        'layer.compute_dtype == "float32"',
        "True",
        TRUST,
    ),
}
LEARNER = {
    "prompts-count-in-the-loss": (
        "mask = tf.cast(batch.response_mask, tf.float32)\n        if self",
        "mask = tf.cast(batch.padding_mask, tf.float32)\n        if self",
        MEANS + "::test_the_logged_loss_is_the_sum_over_tokens_by_their_number",
    ),
    "value-model-is-not-trained": (
        "v for v in self.value.trainable_variables if id(v) not in known",
        "v for v in self.value.trainable_variables if id(v) in known",
        STEP + "::test_policy_and_value_learn_and_nothing_else",
    ),
    "one-optimizer-for-both": (
        "if self.value_optimizer is None:\n            return super()",
        "if True:\n            return super()",
        STEP + "::test_two_optimizers_make_the_step_of_one",
    ),
    "value-weight-ignored-apart": (
        'terms = self.objective.value_weight * metrics["loss/value"]',
        'terms = metrics["loss/value"]',
        UPDATE,
    ),
    "value-term-counted-twice": (
        'self.objective.get_config() | {"value_weight": 0.0}',
        "self.objective.get_config()",
        UPDATE,
    ),
    "learnt-entropy-without-gradient": (
        "self.objective.entropy_weight > 0.0,\n            with",
        "False,\n            with",
        UPDATE,
    ),
}
FAULTS = [
    (
        "tfrlhf/rollout/scoring.py",
        "tests/rollout/test_scoring.py",
        SCORING,
    ),
    (
        "tfrlhf/rollout/experience.py",
        "tests/rollout/test_experience.py",
        EXPERIENCE,
    ),
    (
        "tfrlhf/rollout/advantages.py",
        "tests/rollout/test_advantages.py",
        ADVANTAGES,
    ),
    (
        "tfrlhf/trainers/kl_control.py",
        "tests/trainers/test_kl_control.py",
        KL_CONTROL,
    ),
    (
        "tfrlhf/trainers/learner_metrics.py",
        "tests/trainers/test_learner_metrics.py",
        LEARNER_METRICS,
    ),
    (
        "tfrlhf/trainers/minibatches.py",
        "tests/trainers/test_minibatches.py",
        MINIBATCHES,
    ),
    ("tfrlhf/trainers/engine.py", NUMBERS, ENGINE),
    ("tfrlhf/trainers/looking.py", NUMBERS, LOOKING),
    ("tfrlhf/trainers/scoring.py", SCORES, SCORED),
    ("tfrlhf/trainers/policy_optimization.py", NUMBERS, PPO),
    ("tfrlhf/trainers/policy_learner.py", NUMBERS, LEARNER),
]
