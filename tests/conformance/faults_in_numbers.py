"""Faults in ops/ and losses/: (file, tests, {name: (before, after)})."""

MASKING = {
    "zero-outside-inverted": (
        "return tf.where(tf.equal(mask, 1), x,",
        "return tf.where(tf.equal(mask, 0), x,",
    ),
    "zero-outside-by-multiplication": (
        "return tf.where(tf.equal(mask, 1), x, tf.zeros([], x.dtype))",
        "return x * tf.cast(mask, x.dtype)",
    ),
    "mean-sums-masked": (
        "return tf.reduce_sum(zero_outside(x, mask)) / tf.maximum(count, 1.0)",
        "return tf.reduce_sum(x) / tf.maximum(count, 1.0)",
    ),
    "mean-divides-by-all-positions": (
        "count = tf.cast(tf.reduce_sum(mask), tf.float32)",
        "count = tf.cast(tf.size(mask), tf.float32)",
    ),
    "mean-of-nothing-is-nan": ("/ tf.maximum(count, 1.0)", "/ count"),
    "variance-unbiased": (
        "return masked_mean(tf.square(deviations), mask)",
        "return tf.reduce_sum(zero_outside(tf.square(deviations), mask)) / "
        "tf.cast(tf.maximum(tf.reduce_sum(mask) - 1, 1), tf.float32)",
    ),
    "variance-around-zero": (
        "deviations = zero_outside(x, mask) - masked_mean(x, mask)",
        "deviations = zero_outside(x, mask)",
    ),
    "whiten-shift-inverted": ("if not shift_mean:", "if shift_mean:"),
    "whiten-by-variance": (
        "tf.math.rsqrt(variance + 1e-8)",
        "tf.math.reciprocal(variance + 1e-8)",
    ),
    "whiten-epsilon-outside-the-root": (
        "tf.math.rsqrt(variance + 1e-8)",
        "(1.0 / (tf.sqrt(variance) + 1e-8))",
    ),
    "whiten-fills-masked": (
        "return zero_outside(whitened, mask)",
        "return whitened",
    ),
    "whiten-ignores-given-statistics": ("if mean is None:", "if True:"),
}
LOG_PROBS = {
    "temperature-dropped": (
        "return tf.cast(logits, tf.float32) / temperature",
        "return tf.cast(logits, tf.float32)",
    ),
    "temperature-multiplied": (
        "tf.cast(logits, tf.float32) / temperature",
        "tf.cast(logits, tf.float32) * temperature",
    ),
    "log-probs-in-half-precision": (
        "return tf.cast(logits, tf.float32) / temperature",
        "return logits / tf.cast(temperature, logits.dtype)",
    ),
    "log-probs-negated": (
        "return -tf.nn.sparse_softmax_cross",
        "return tf.nn.sparse_softmax_cross",
    ),
    "entropy-negated": ("return -tf.reduce_sum(", "return tf.reduce_sum("),
    "entropy-averaged": ("return -tf.reduce_sum(", "return -tf.reduce_mean("),
    "entropy-without-temperature": (
        "tf.nn.log_softmax(_scaled(logits, temperature))",
        "tf.nn.log_softmax(_scaled(logits, 1.0))",
    ),
    "entropy-of-an-excluded-token": (
        "finite = tf.where(log_probs > log_probs.dtype.min, log_probs, 0.0)",
        "finite = log_probs",
    ),
}
KL = {
    "kl-reversed": (
        "difference = log_probs - ref_log_probs",
        "difference = ref_log_probs - log_probs",
    ),
    "k1-clamped-at-0": (
        "        return difference\n",
        "        return tf.maximum(difference, 0.0)\n",
    ),
    "k2-doubled": (
        "return 0.5 * tf.square(difference)",
        "return tf.square(difference)",
    ),
    "k3-of-the-inverse-ratio": (
        "return tf.math.expm1(-difference) + difference",
        "return tf.math.expm1(difference) - difference",
    ),
    "k3-cancels": (
        "return tf.math.expm1(-difference) + difference",
        "return tf.exp(-difference) - 1.0 + difference",
    ),
}
REWARDS = {
    "score-on-the-first-pad": (
        "is_last = tf.equal(positions, last_token_index(mask)[:, None])",
        "is_last = tf.equal(positions, last_token_index(mask)[:, None] + 1)",
    ),
    "score-on-every-token": (
        "is_last &= tf.equal(mask, 1)",
        "is_last = tf.equal(mask, 1)",
    ),
    "score-for-an-empty-response": (
        "is_last &= tf.equal(mask, 1)",
        "is_last &= tf.ones_like(is_last)",
    ),
    "score-rounded": (
        "tf.where(is_last, scores[:, None], 0.0)",
        "tf.where(is_last, tf.round(scores)[:, None], 0.0)",
    ),
    "kl-rewarded": ("0.0) - kl_weight * kl", "0.0) + kl_weight * kl"),
    "kl-weight-ignored": ("0.0) - kl_weight * kl", "0.0) - kl"),
    "kl-unmasked": (
        "zero_outside(log_probs, mask), zero_outside(ref_log_probs, mask)",
        "log_probs, ref_log_probs",
    ),
    "kl-kind-ignored": (
        "zero_outside(ref_log_probs, mask), kind",
        "zero_outside(ref_log_probs, mask)",
    ),
    "kl-clipped-above-only": (
        "tf.clip_by_value(kl, -clip, clip)",
        "tf.minimum(kl, clip)",
    ),
}
SEQUENCES = {
    "last-token-is-the-first": (
        "return tf.reduce_max(tf.where(tf.equal(mask, 1), positions, 0)",
        "return tf.reduce_min(tf.where(tf.equal(mask, 1), positions, 0)",
    ),
    "last-token-by-count": (
        "tf.reduce_max(tf.where(tf.equal(mask, 1), positions, 0), axis=-1)",
        "tf.maximum(tf.reduce_sum(mask, axis=-1) - 1, 0)",
    ),
    "stop-token-cut-off": ("exclusive=True", "exclusive=False"),
    "stop-token-of-the-prompt": (
        "is_stop = tf.cast(is_stop & tf.equal(mask, 1), tf.int32)",
        "is_stop = tf.cast(is_stop, tf.int32)",
    ),
    "one-stop-token-only": (
        "tf.equal(token_ids[:, :, None], stops)",
        "tf.equal(token_ids[:, :, None], stops[:1])",
    ),
    "goes-on-after-the-stop": (
        "kept = tf.where(tf.equal(stops_before, 0), mask, 0)",
        "kept = mask",
    ),
}
ADVANTAGES = {
    "gae-undiscounted-value": (
        "deltas = rewards + discount * value_here[:, 1:] - values",
        "deltas = rewards + value_here[:, 1:] - values",
    ),
    "gae-adds-the-value": (
        "value_here[:, 1:] - values",
        "value_here[:, 1:] + values",
    ),
    "gae-reads-masked-values": (
        "skipped = 1.0 - tf.cast(mask, tf.float32)",
        "skipped = tf.zeros_like(values)",
    ),
    "gae-without-decay": (
        "_discounted_sum(deltas, mask, discount * decay)",
        "_discounted_sum(deltas, mask, discount)",
    ),
    "gae-keeps-nan": (
        "    values = zero_outside(values, mask)\n",
        "    values = values * tf.cast(mask, tf.float32)\n",
    ),
    "gae-bootstraps-after-the-end": (
        "after = tf.zeros_like(values[:, :1])",
        "after = values[:, -1:]",
    ),
    "returns-are-advantages": (
        "zero_outside(advantages + values, mask)",
        "zero_outside(advantages, mask)",
    ),
    "gaps-are-discounted": (
        "tf.where(tf.equal(mask, 1), tf.cast(discount, tf.float32), 1.0)",
        "tf.fill(tf.shape(mask), tf.cast(discount, tf.float32))",
    ),
    "returns-undiscounted": (
        "return _discounted_sum(rewards, mask, discount)",
        "return _discounted_sum(rewards, mask, 1.0)",
    ),
    "recurrence-wraps-around": (
        "inside = positions + span < length",
        "inside = positions + span <= length",
    ),
    "recurrence-stops-short": (
        "lambda span, sums, products: span < length,",
        "lambda span, sums, products: 2 * span < length,",
    ),
}
DISTRIBUTE = {
    "replicas-averaged": (
        "replica.all_reduce(tf.distribute.ReduceOp.SUM, x)",
        "replica.all_reduce(tf.distribute.ReduceOp.MEAN, x)",
    ),
    "gradients-of-replicas-averaged": (
        "plus = tf.distribute.ReduceOp.SUM",
        "plus = tf.distribute.ReduceOp.MEAN",
    ),
    "gradients-of-replicas-not-summed": (
        "if tf.distribute.get_strategy().num_replicas_in_sync == 1:",
        "if True:",
    ),
    "replicas-not-summed": (
        "if replica.num_replicas_in_sync == 1:",
        "if True:",
    ),
}
GROUPS = {
    "group-of-all-rows": (
        "groups - tf.reduce_mean(groups, axis=1, keepdims=True)",
        "groups - tf.reduce_mean(groups)",
    ),
    "group-epsilon-inside-the-root": (
        "(tf.sqrt(variance) + 1e-4)",
        "tf.sqrt(variance + 1e-4)",
    ),
    "leave-none-out": (
        "others = tf.reduce_sum(groups, axis=1, keepdims=True) - groups",
        "others = tf.reduce_sum(groups, axis=1, keepdims=True)",
    ),
}
POLICY_LOSS = {
    "policy-loss-minimum": (
        "loss = tf.maximum(-advantages * ratio, -advantages * clipped)",
        "loss = tf.minimum(-advantages * ratio, -advantages * clipped)",
    ),
    "policy-loss-negated": (
        "loss = tf.maximum(-advantages * ratio, -advantages * clipped)",
        "loss = tf.maximum(advantages * ratio, advantages * clipped)",
    ),
    "policy-loss-unclipped": (
        "loss = tf.maximum(-advantages * ratio, -advantages * clipped)",
        "loss = -advantages * ratio",
    ),
    "ratio-inverted": (
        "zero_outside(log_probs, mask) - zero_outside(old_log_probs, mask)",
        "zero_outside(old_log_probs, mask) - zero_outside(log_probs, mask)",
    ),
    "ratio-unmasked": (
        "zero_outside(log_probs, mask) - zero_outside(old_log_probs, mask)",
        "log_probs - old_log_probs",
    ),
    "clip-bounds-swapped": (
        "tf.clip_by_value(ratio, 1.0 - low, 1.0 + high)",
        "tf.clip_by_value(ratio, 1.0 - high, 1.0 + low)",
    ),
    "advantages-unmasked": (
        "advantages = zero_outside(advantages, mask)",
        "advantages = advantages * tf.cast(mask, tf.float32)",
    ),
    "value-weight-ignored": (
        "loss += self.value_weight * clipped_value_loss(",
        "loss += clipped_value_loss(",
    ),
    "entropy-penalised": (
        "loss -= self.entropy_weight",
        "loss += self.entropy_weight",
    ),
    "entropy-unmasked": (
        "self.entropy_weight * zero_outside(entropy, mask)",
        "self.entropy_weight * entropy",
    ),
    "policy-clip-ignored": (
        "mask,\n            self.clip,",
        "mask,\n            0.2,",
    ),
    "value-clip-ignored": (
        "mask,\n                self.value_clip,",
        "mask,\n                0.2,",
    ),
    "dual-clip-for-good-tokens-too": (
        "tf.where(advantages < 0.0, tf.minimum(loss, limit), loss)",
        "tf.minimum(loss, limit)",
    ),
    "sequence-ratio-of-the-sum": (
        "mean = total / tf.maximum(tf.cast(count, tf.float32), 1.0)",
        "mean = total",
    ),
    "kl-of-the-loss-turned": (
        "zero_outside(output.log_probs, mask),\n            zero_outside(exp",
        "-zero_outside(output.log_probs, mask),\n            -zero_outside(exp",
    ),
    "config-forgets-the-value-weight": (
        '"value_weight": self.value_weight,',
        '"value_weight": 0.1,',
    ),
}
VALUE_LOSS = {
    "value-loss-doubled": ("return 0.5 * error", "return error"),
    "value-loss-minimum": (
        "error = tf.maximum(error, tf.square(clipped - returns))",
        "error = tf.minimum(error, tf.square(clipped - returns))",
    ),
    "value-clipped-around-the-return": (
        "tf.clip_by_value(values, old_values - clip, old_values + clip)",
        "tf.clip_by_value(values, returns - clip, returns + clip)",
    ),
    "returns-unmasked": (
        "returns = zero_outside(returns, mask)",
        "returns = returns * tf.cast(mask, tf.float32)",
    ),
}
RANKING = {
    "margin-added": (
        "difference = chosen - rejected - margin",
        "difference = chosen - rejected + margin",
    ),
    "chosen-and-rejected-swapped": (
        "difference = chosen - rejected - margin",
        "difference = rejected - chosen - margin",
    ),
    "labels-smoothed-the-wrong-way": (
        "label_smoothing * tf.math.softplus(difference)",
        "label_smoothing * tf.math.softplus(-difference)",
    ),
    "ties-compared": (
        "return (first >= 0) & (first < second)",
        "return (first >= 0) & (first <= second)",
    ),
    "absent-candidates-compared": (
        "return (first >= 0) & (first < second)",
        "return first < second",
    ),
    "listwise-without-itself": (
        "compared = itself | _better(ranks)",
        "compared = _better(ranks)",
    ),
    "listwise-averaged": (
        "return tf.reduce_sum(losses, axis=1)\n",
        "return tf.reduce_mean(losses, axis=1)\n",
    ),
    "listwise-reads-absent-scores": (
        "    scores = tf.where(ranks >= 0, scores, 0.0)\n    itself",
        "    itself",
    ),
    "pairs-summed": (
        "return tf.reduce_sum(losses, axis=[1, 2]) / tf.maximum(count, 1.0)",
        "return tf.reduce_sum(losses, axis=[1, 2])",
    ),
    "best-is-the-lowest": (
        "labels=best, logits=scores",
        "labels=best, logits=-scores",
    ),
    "best-is-the-worst": ("best = tf.argmin(ranks", "best = tf.argmax(ranks"),
    "listwise-class-reverses-ranks": (
        "return listwise_ranking_loss(y_pred, tf.cast(y_true, tf.int32))",
        "return listwise_ranking_loss(-y_pred, tf.cast(y_true, tf.int32))",
    ),
}
REGRESSION = {
    "ratings-absolute-error": (
        "return tf.square(scores - ratings)",
        "return tf.abs(scores - ratings)",
    ),
    "ratings-ignored": (
        "return score_regression_loss(y_pred, y_true)",
        "return score_regression_loss(y_pred, tf.zeros_like(y_true))",
    ),
    "rating-cross-entropy-of-the-opposite": (
        "return tf.math.softplus(scores) - ratings * scores",
        "return tf.math.softplus(scores) - (1.0 - ratings) * scores",
    ),
    "rating-cross-entropy-swapped": (
        "return score_cross_entropy_loss(y_pred, y_true)",
        "return score_cross_entropy_loss(y_true, y_pred)",
    ),
}
SUPERVISED = {
    "cross-entropy-unmasked": (
        "return zero_outside(-log_probs, mask)",
        "return -log_probs",
    ),
    "cross-entropy-negated": (
        "return zero_outside(-log_probs, mask)",
        "return zero_outside(log_probs, mask)",
    ),
    "cross-entropy-class-learns-all": (
        "return token_cross_entropy(y_pred, tf.cast(y_true, tf.int32))",
        "return token_cross_entropy(y_pred, tf.ones_like(y_pred, tf.int32))",
    ),
}
FUSED = {
    "fused-log-probs-without-temperature": (
        "head = _Head(temperature, entropy_has_gradient, in_place)",
        "head = _Head(1.0, entropy_has_gradient, in_place)",
    ),
    "fused-gradient-without-temperature": (
        "scale = -to_log_prob * mass / self.temperature",
        "scale = -to_log_prob * mass",
    ),
    "fused-hidden-learns-from-the-first-chunk": (
        "return to_hidden + more, head.add_at(",
        "return to_hidden, head.add_at(",
    ),
    "fused-kernel-rows-at-the-front": (
        "start + tf.range(chunks.size), to_part",
        "tf.range(chunks.size), to_part",
    ),
    "fused-later-chunks-unnormalised": (
        "head.logits(hidden, part) - log_total[:, None]",
        "head.logits(hidden, part)",
    ),
    "fused-first-chunk-unnormalised": (
        "kept, mass, *known",
        "kept, tf.ones_like(mass), *known",
    ),
    "fused-totals-of-different-scales": (
        "self.total * here + other.total * there",
        "self.total * here + other.total",
    ),
    "fused-largest-of-the-last-chunk": (
        "largest = tf.maximum(self.largest, other.largest)",
        "largest = other.largest",
    ),
    "fused-entropy-is-the-log-total": (
        "log_total - seen.product / seen.total",
        "log_total",
    ),
    "fused-nothing-is-most-likely": (
        "tf.cast(seen.chosen >= seen.largest",
        "tf.cast(seen.chosen > seen.largest",
    ),
}
FAULTS = [
    ("tfrlhf/ops/masking.py", "tests/ops/test_masking.py", MASKING),
    ("tfrlhf/ops/log_probs.py", "tests/ops/test_log_probs.py", LOG_PROBS),
    (
        "tfrlhf/ops/fused_statistics.py",
        "tests/ops/test_fused_statistics.py",
        FUSED,
    ),
    ("tfrlhf/ops/kl.py", "tests/ops/test_kl.py", KL),
    ("tfrlhf/ops/rewards.py", "tests/ops/test_rewards.py", REWARDS),
    ("tfrlhf/ops/sequences.py", "tests/ops/test_sequences.py", SEQUENCES),
    ("tfrlhf/ops/advantages.py", "tests/ops/test_advantages.py", ADVANTAGES),
    (
        "tfrlhf/ops/distribute.py",
        "tests/ops/test_distribute.py::test_sums_over_two_replicas",
        DISTRIBUTE,
    ),
    ("tfrlhf/ops/groups.py", "tests/ops/test_groups.py", GROUPS),
    ("tfrlhf/losses/policy.py", "tests/losses/test_policy.py", POLICY_LOSS),
    ("tfrlhf/losses/value.py", "tests/losses/test_value.py", VALUE_LOSS),
    ("tfrlhf/losses/ranking.py", "tests/losses/test_ranking.py", RANKING),
    (
        "tfrlhf/losses/regression.py",
        "tests/losses/test_regression.py",
        REGRESSION,
    ),
    (
        "tfrlhf/losses/supervised.py",
        "tests/losses/test_supervised.py",
        SUPERVISED,
    ),
]
