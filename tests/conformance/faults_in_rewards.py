"""Faults in what judges responses: (file, tests, {name: (before, after)})."""

SEARCH_TESTS = "tests/rollout/test_search.py"
LAW = SEARCH_TESTS + "::test_the_best_follows_its_exact_law"
TOGETHER = SEARCH_TESTS + "::test_what_is_returned_belongs_together"
KEPT = SEARCH_TESTS + "::test_what_is_kept"
STEPS = "tests/models/test_process_reward.py"
STEP_ENDS = STEPS + "::test_steps_end_at_separators_and_eos"
STEP_LOSS = STEPS + "::test_evaluate_is_the_cross_entropy_of_the_steps"
PPO_ON_STEPS = STEPS + "::test_ppo_learns_from_rewards_of_steps"
ENSEMBLE = {
    "ensemble-takes-the-highest": (
        "return tf.reduce_min(scores, axis=0)",
        "return tf.reduce_max(scores, axis=0)",
    ),
    "ensemble-rewards-disagreement": (
        "return mean - self.deviation_weight * deviation",
        "return mean + self.deviation_weight * deviation",
    ),
    "ensemble-forgets-the-deviation-weight": (
        "return mean - self.deviation_weight * deviation",
        "return mean - deviation",
    ),
    "ensemble-hears-one-member-on-ids": (
        "                for member in self.members\n",
        "                for member in self.members[:1]\n",
    ),
    "ensemble-takes-any-tokenizer-for-all": (
        "return first if len(written) == 1 else None",
        "return first",
    ),
}
SEARCH = {
    "best-of-n-takes-the-worst": (
        "best = table.argmax(axis=1)",
        "best = table.argmin(axis=1)",
        LAW,
    ),
    "best-of-n-repeats-a-batch": ("seed=(seed, step)", "seed=seed", TOGETHER),
    "best-of-n-mixes-prompts": (
        'back = np.argsort(of_prompt, kind="stable")',
        "back = np.arange(len(of_prompt))",
        TOGETHER,
    ),
    "best-of-n-bound-without-its-second-term": (
        "return math.log(n) - (n - 1) / n",
        "return math.log(n)",
        SEARCH_TESTS + "::test_the_bound_is_met_by_many_unlikely_responses",
    ),
    "best-of-n-scores-without-the-end": (
        "ids, mask = with_end(completions, end_id)",
        "ids, mask = completions.token_ids, completions.padding_mask",
        SEARCH_TESTS + "::test_reward_models_score_as_in_ppo",
    ),
    "rejection-keeps-what-was-cut": (
        "if response.strip() and (finished or not stops):",
        "if response.strip():",
        KEPT,
    ),
    "rejection-threshold-excluded": ("if s >= threshold]", "if s > threshold]"),
    "rejection-keeps-the-first": (
        "kept = sorted(candidates, key=lambda r: -candidates[r])[:1]",
        "kept = list(candidates)[:1]",
        KEPT,
    ),
}
STEP_DATA = {
    "steps-end-after-their-end": (
        "places = len(row.prompt_ids) + np.array(row.ends)",
        "places = len(row.prompt_ids) + np.array(row.ends) - 1",
    ),
    "separators-of-the-prompt-end-steps": (
        "ends = [i for i, token in enumerate(ids)",
        "ends = [i for i, token in enumerate(prompt_ids + ids)",
    ),
}
PROCESS = {
    "step-weights-ignored": (
        "return steps * batch.weight[:, None]",
        "return steps * tf.ones_like(batch.weight)[:, None]",
        STEP_LOSS,
    ),
    "steps-rated-before-their-end": (
        "return self.head(hidden)[:, :, 0] * self.gain + self.bias",
        "return tf.roll(self.head(hidden)[:, :, 0], 1, 1) * self.gain"
        " + self.bias",
        STEPS + "::test_the_score_is_that_of_the_last_step",
    ),
    "step-rewards-everywhere": (
        "self.token_scores(token_ids, padding_mask), ends",
        "self.token_scores(token_ids, padding_mask), response_mask",
        PPO_ON_STEPS,
    ),
    "eos-ends-no-step": (
        "(token_ids == separator) | (token_ids == tokenizer.eos_id)",
        "(token_ids == separator)",
        STEP_LOSS,
    ),
    "step-accuracy-inverted": (
        "tf.equal(scores > 0.0, batch.rating > 0.5)",
        "tf.not_equal(scores > 0.0, batch.rating > 0.5)",
        STEP_LOSS,
    ),
}
AGREEMENT = {
    "agreement-counts-the-judgement-itself": (
        "means = apart.sum(axis=1) / (len(values) - 1)",
        "means = apart.sum(axis=1) / len(values)",
    ),
    "agreement-absolute-differences": (
        "apart = apart**2 if is_rating",
        "apart = abs(apart) if is_rating",
    ),
    "agreement-biased-chance": (
        "2.0 * float(values.var(ddof=1))",
        "2.0 * float(values.var())",
    ),
    "agreement-follows-the-order-of-writing": (
        "ranked = sorted(zip(map(_key, responses.values()), ranks, "
        "strict=True))",
        "ranked = list(zip(map(_key, responses.values()), ranks, strict=True))",
    ),
    "annotators-measured-once": (
        "found = _agreement(judged, is_rating)\n    kept",
        "found = None\n    kept",
    ),
    "annotator-weight-replaces": (
        "weight = weight_field(where, record) * factor",
        "weight = factor",
    ),
}
CALIBRATION = {
    "calibration-bins-not-weighted": (
        "gaps = [b.pairs * abs(",
        "gaps = [len(right) / len(filled) * abs(",
    ),
    "calibration-of-signed-differences": (
        "np.exp(-np.abs(difference))",
        "np.exp(-difference)",
    ),
    "brier-of-the-sure-side": (
        "wrong = np.where(difference > 0, 1.0 - sure, sure)",
        "wrong = 1.0 - sure",
    ),
}
WILSON = {
    "wilson-without-its-shift": (
        "middle = p + z**2 / (2 * n)",
        "middle = p",
    ),
}
RANKING = {
    "absent-responses-are-ranked": (
        '{"labels": labels, "mask": present}, np.where(present, scores, 0.0)',
        "labels, scores",
    ),
    "relevance-upside-down": (
        "relevance = ranks.max(axis=1, keepdims=True) - ranks",
        "relevance = ranks",
    ),
}
MARGIN = {
    "record-margin-ignored": ("        scores += lead\n", ""),
    "record-margin-helps": ("scores += lead", "scores -= lead"),
}
FAULTS = [
    (
        "tfrlhf/models/ensemble.py",
        "tests/models/test_ensemble.py",
        ENSEMBLE,
    ),
    ("tfrlhf/rollout/search.py", KEPT, SEARCH),
    ("tfrlhf/data/step_ratings.py", STEP_ENDS, STEP_DATA),
    ("tfrlhf/models/process_reward.py", STEPS, PROCESS),
    ("tfrlhf/data/agreement.py", "tests/data/test_agreement.py", AGREEMENT),
    (
        "tfrlhf/evaluation/calibration.py",
        "tests/evaluation/test_calibration.py",
        CALIBRATION,
    ),
    (
        "tfrlhf/evaluation/win_rate.py",
        "tests/evaluation/test_calibration.py",
        WILSON,
    ),
    (
        "tfrlhf/evaluation/ranking.py",
        "tests/evaluation/test_ranking.py",
        RANKING,
    ),
    (
        "tfrlhf/models/reward.py",
        "tests/models/test_reward.py::test_a_record_may_ask_for_a_margin",
        MARGIN,
    ),
]
