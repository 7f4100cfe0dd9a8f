"""Faults in direct preference optimisation: (file, tests, {name: ...})."""

LOSSES = {
    "dpo-sign": (
        "loss = (1.0 - label_smoothing) * tf.math.softplus(-h)",
        "loss = (1.0 - label_smoothing) * tf.math.softplus(h)",
    ),
    "cdpo-smooths-the-wrong-way": (
        "return loss + label_smoothing * tf.math.softplus(h)",
        "return loss + label_smoothing * tf.math.softplus(-h)",
    ),
    "robust-dpo-is-cdpo": (
        "return (right - wrong) / (1.0 - 2.0 * label_smoothing)",
        "return (right + wrong) / (1.0 - 2.0 * label_smoothing)",
    ),
    "robust-dpo-keeps-its-scale": (
        "return (right - wrong) / (1.0 - 2.0 * label_smoothing)",
        "return right - wrong",
    ),
    "ipo-margin-doubled": (
        "difference - 1.0 / (2.0 * beta)",
        "difference - 1.0 / beta",
    ),
    "simpo-margin-inverted": (
        "tf.math.softplus(margin - beta * (chosen - rejected))",
        "tf.math.softplus(-margin - beta * (chosen - rejected))",
    ),
    "simpo-margin-scaled": (
        "tf.math.softplus(margin - beta * (chosen - rejected))",
        "tf.math.softplus(beta * (margin - (chosen - rejected)))",
    ),
    "orpo-does-not-imitate": (
        "return beta * tf.math.softplus(-log_odds_ratio) - chosen",
        "return beta * tf.math.softplus(-log_odds_ratio)",
    ),
    "orpo-of-probabilities": (
        "return log_prob - tf.math.log(-tf.math.expm1(log_prob))",
        "return log_prob",
    ),
    "orpo-infinite-when-sure": (
        "log_prob = tf.minimum(log_prob, SURE)",
        "log_prob = tf.minimum(log_prob, 0.0)",
    ),
    "kto-kl-may-be-negative": (
        "reward = policy - reference - tf.maximum(kl, 0.0)",
        "reward = policy - reference - kl",
    ),
    "kto-good-is-bad": ("good = ratings > 0.5", "good = ratings < 0.5"),
    "kto-weights-swapped": (
        "tf.where(good, desirable_weight, undesirable_weight)",
        "tf.where(good, undesirable_weight, desirable_weight)",
    ),
    "reference-added": (
        "return (chosen - ref_chosen) - (rejected - ref_rejected)",
        "return (chosen + ref_chosen) - (rejected + ref_rejected)",
    ),
}
OBJECTIVES = {
    "dpo-class-forgets-its-numbers": (
        "preference.dpo_loss(*pairs, **self.numbers)",
        "preference.dpo_loss(*pairs)",
    ),
    "robust-dpo-class-is-dpo": (
        "preference.robust_dpo_loss(*pairs, **self.numbers)",
        "preference.dpo_loss(*pairs, **self.numbers)",
    ),
    "ipo-class-forgets-its-numbers": (
        "preference.ipo_loss(*pairs, **self.numbers)",
        "preference.ipo_loss(*pairs)",
    ),
    "simpo-class-forgets-its-numbers": (
        "preference.simpo_loss(*pairs, **self.numbers)",
        "preference.simpo_loss(*pairs)",
    ),
    "orpo-class-forgets-its-numbers": (
        "preference.orpo_loss(*pairs, **self.numbers)",
        "preference.orpo_loss(*pairs)",
    ),
    "kto-class-swaps-policy-and-reference": (
        "            y_pred.log_probs,\n            y_pred.ref_log_probs,\n"
        "            y_true,",
        "            y_pred.ref_log_probs,\n            y_pred.log_probs,\n"
        "            y_true,",
    ),
    "tied-responses-compared": (
        "return (first >= 0) & (first < second)",
        "return (first >= 0) & (first <= second)",
    ),
    "absent-responses-compared": (
        "return (first >= 0) & (first < second)",
        "return first < second",
    ),
    "absent-responses-read": (
        "x = tf.where(ranks >= 0, x, 0.0)",
        "x = tf.identity(x)",
    ),
    "pairs-of-a-record-added-up": (
        "return tf.reduce_sum(losses, axis=[1, 2]) / tf.maximum(count, 1.0)",
        "return tf.reduce_sum(losses, axis=[1, 2])",
    ),
}
TRAINER = "tests/trainers/test_preference_optimization.py"
UPDATE = TRAINER + "::test_an_update_is_the_replicas"
PARTS = TRAINER + "::test_an_update_in_parts_and_with_imitation_is_the_replicas"
KTO = TRAINER + "::test_an_update_of_kto_is_the_replicas"
START = "tests/trainers/test_preference_start.py"
DPO = {
    "sums-where-means-are-read": (
        "if self.objective.mean_over_tokens:",
        "if False:",
    ),
    "reference-ignored": (
        "reference = batch.ref_log_probs\n        output",
        "pass\n        output",
    ),
    "records-weigh-the-same": (
        "return tf.cast(batch.weight, tf.float32)",
        "return tf.ones_like(batch.weight)",
    ),
    "prompts-count-in-log-probs": (
        "log_probs = ops.zero_outside(log_probs, response)",
        "log_probs = policy.log_probs(ids, padding)",
    ),
    "imitation-ignored": ("if self.sft_weight:", "if False:", PARTS),
    "imitation-of-the-worst": (
        "best = tf.cast(batch.ranks == 0, tf.float32)",
        "best = tf.cast(batch.ranks > 0, tf.float32)",
        PARTS,
    ),
    "kl-stays-0": (
        "return super().train_step(self._with_kl(batch))",
        "return super().train_step(batch)",
        KTO,
    ),
    "kl-of-the-rated-responses": (
        "other = (x[:, 1] for x in part[:3])",
        "other = (x[:, 0] for x in part[:3])",
        KTO,
    ),
    "the-other-response-is-rated": (
        "rated = (x[:, 0] for x in batch[:3])",
        "rated = (x[:, 1] for x in batch[:3])",
        KTO,
    ),
    "kl-is-not-measured": (
        "return super().test_step(self._with_kl(batch))",
        "return super().test_step(batch)",
        TRAINER + "::test_metrics_of_single_responses",
    ),
    "margins-are-ignored": (
        "ahead = output.log_probs + lead / beta",
        "ahead = output.log_probs",
        "tests/trainers/test_preference_margins.py",
    ),
    "margins-the-wrong-way": (
        "ahead = output.log_probs + lead / beta",
        "ahead = output.log_probs - lead / beta",
        "tests/trainers/test_preference_margins.py",
    ),
    "implicit-reward-without-beta": (
        "beta * (output.log_probs - output.ref_log_probs)",
        "(output.log_probs - output.ref_log_probs)",
        TRAINER + "::test_metrics_are_means_over_pairs",
    ),
    "any-reference-copy-passes": (
        "if gap.max(initial=0.0) > limit:",
        "if False:",
        START,
    ),
    "later-tokens-may-matter": (
        "return batch._replace(response_mask=tf.cast(kept, tf.int32)), {",
        "return batch, {",
        START,
    ),
}
CACHE = {
    "cache-of-any-weights": (
        "for name, x in [*weights, *enumerate(arrays)]:",
        "for name, x in enumerate(arrays):",
    ),
    "cache-of-any-data": (
        "for name, x in [*weights, *enumerate(arrays)]:",
        "for name, x in weights:",
    ),
    "cache-never-read": ("if file.exists():", "if False:"),
}
METRICS = {
    "chosen-and-rejected-swapped-in-logs": (
        "better, worse = tf.reduce_sum(pairs, axis=2), "
        "tf.reduce_sum(pairs, axis=1)",
        "worse, better = tf.reduce_sum(pairs, axis=2), "
        "tf.reduce_sum(pairs, axis=1)",
        TRAINER + "::test_metrics_are_means_over_pairs",
    ),
    "accuracy-of-kto-ignores-the-kl": (
        "sign = tf.sign(rewards - threshold)",
        "sign = tf.sign(rewards)",
        TRAINER + "::test_a_response_is_called_good_above_the_kl",
    ),
    "bad-responses-in-the-good-mean": (
        '"rewards/chosen": (tf.reduce_sum(rewards * good), goods),',
        '"rewards/chosen": (tf.reduce_sum(rewards), goods),',
    ),
}
OTHERS = {
    "any-number-is-a-rating": (
        "if wrong.any():",
        "if False:",
        TRAINER + "::test_wrong_data_is_refused",
    ),
    "other-response-of-the-same-prompt": (
        "(i for i in others if prompts[i] != text)",
        "(i for i in others)",
        TRAINER + "::test_the_other_response_is_to_another_prompt",
    ),
    "other-response-beyond-the-context": (
        "responses[other][:room]",
        "responses[other]",
        TRAINER + "::test_a_response_to_another_prompt_is_cut_to_the_context",
    ),
}
ONLINE = {
    "online-prefers-the-worse": (
        "ranks = (scores < scores[:, ::-1]).astype(np.int32)",
        "ranks = (scores > scores[:, ::-1]).astype(np.int32)",
    ),
    "online-compares-empty-responses": (
        "    ranks[response.sum(axis=-1) == 0] = -1\n",
        "",
    ),
    "online-padding-counts": (
        "tf.where(present, full.weight, 0.0)",
        "full.weight",
    ),
    "online-scores-other-prompts": (
        "records = [r for r in records for _ in range(self.group_size)]",
        "records = [*records, *records]",
    ),
}
FAULTS = [
    (
        "tfrlhf/losses/preference.py",
        "tests/losses/test_preference.py",
        LOSSES,
    ),
    (
        "tfrlhf/losses/preference_objectives.py",
        "tests/losses/test_preference.py",
        OBJECTIVES,
    ),
    ("tfrlhf/trainers/preference_optimization.py", UPDATE, DPO),
    (
        "tfrlhf/trainers/reference_cache.py",
        "tests/trainers/test_preference_reference.py",
        CACHE,
    ),
    (
        "tfrlhf/trainers/preference_metrics.py",
        TRAINER + "::test_metrics_of_single_responses",
        METRICS,
    ),
    ("tfrlhf/trainers/rated_responses.py", TRAINER, OTHERS),
    (
        "tfrlhf/trainers/online_preference_optimization.py",
        "tests/trainers/test_online_preference_optimization.py",
        ONLINE,
    ),
]
