"""Faults in models/ and data/: (file, tests, {name: (before, after)})."""

NUMBERS = "tests/conformance/test_policy_numbers.py"
STEP = "tests/conformance/test_step.py"
UPDATE = "tests/trainers/test_update.py"
STOPS = "tests/conformance/test_stops_and_padding.py"
STATISTICS = " ".join(
    "tests/models/test_policy.py::" + name
    for name in (
        "test_statistics_are_those_of_the_logits_one_position_before",
        "test_statistics_of_another_head_are_too",
    )
)
SAMPLER = {
    "sampler-multiplies-by-the-temperature": (
        "scaled = logits / temperature",
        "scaled = logits * temperature",
    ),
    "sampler-log-probs-without-temperature": (
        "return token_ids, ops.token_log_probs(logits, token_ids, temperature)",
        "return token_ids, ops.token_log_probs(logits, token_ids)",
    ),
    "sampler-log-probs-of-what-is-kept": (
        "return token_ids, ops.token_log_probs(logits, token_ids, temperature)",
        "return token_ids, ops.token_log_probs(kept, token_ids)",
    ),
    "sampler-log-probs-of-unscaled-logits": (
        "chosen = tf.gather(scaled, token_ids, batch_dims=1)",
        "chosen = tf.gather(logits, token_ids, batch_dims=1)",
    ),
    "sampler-log-probs-forget-the-sum": (
        "return token_ids, chosen - largest - tf.math.log(total)",
        "return token_ids, chosen - largest",
    ),
    "sampler-off-by-one-token": (
        "begins = tf.cumsum(weights, axis=-1) - weights",
        "begins = tf.cumsum(weights, axis=-1)",
    ),
    "sampler-counts-from-the-first-block": (
        "_last_reached(within, draws * total - begin)",
        "_last_reached(within, draws * total)",
    ),
    "top-p-drops-the-last": (
        "tf.cumsum(probabilities, axis=-1, exclusive=True)",
        "tf.cumsum(probabilities, axis=-1)",
    ),
    "top-k-keeps-one-more": (
        "in_top_k = rank < kept_count",
        "in_top_k = rank <= kept_count",
    ),
    "every-row-draws-the-same": (
        '[rows, steps], seed=seed, dtype=tf.float32, alg="philox"\n    )',
        '[1, steps], seed=seed, dtype=tf.float32, alg="philox"\n    )'
        " + tf.zeros([rows, 1])",
    ),
    "draws-forget-the-iteration": ("seed=seed,", "seed=(seed[0], 0),"),
}
DECODING = {
    "goes-on-sampling-after-a-stop": (
        "active &= ~stopped & (length < limit)",
        "active &= length < limit",
    ),
    "stops-at-the-prompts-stop-token": (
        "stopped = responding & self._is_stop(column)",
        "stopped = self._is_stop(column)",
    ),
    "length-counts-as-an-end": (
        "finished=tf.cast(self._is_stop(last), tf.int32)",
        "finished=tf.ones_like(length)",
    ),
    "draws-follow-the-shortest-prompt": (
        "tf.clip_by_value(index - prompt_length, 0, limit - 1)",
        "tf.fill(tf.shape(prompt_length), tf.clip_by_value("
        "index - tf.reduce_min(prompt_length), 0, limit - 1))",
    ),
    "prompt-is-part-of-the-response": (
        "(position >= start) & (position < end), tf.int32",
        "(position < end), tf.int32",
    ),
    "response-starts-one-late": (
        "(position >= start) & (position < end)",
        "(position > start) & (position < end)",
    ),
    "sampler-log-probs-of-the-prompt": (
        "tf.where(responding, log_prob, 0.0)[:, None]",
        "log_prob[:, None]",
    ),
}
HEAD = {
    "what-fills-the-head-may-be-drawn": (
        'return tf.where(is_token, logits, -float("inf"))',
        "return logits",
    ),
}
HALVES = {
    "halves-change-places": (
        "[rows @ kernel for kernel in kernels]",
        "[rows @ kernel for kernel in kernels[::-1]]",
    ),
    "halves-forget-the-bias": (
        "if layer.bias is not None:",
        "if layer.bias is None:",
    ),
    "halves-forget-the-activation": (
        "return found if layer.activation is None else layer.activation(found)",
        "return found",
    ),
    "halves-of-weights-as-they-were": (
        "tf.concat([rows @ kernel for kernel in kernels], axis=1)",
        "rows @ tf.reshape(layer.kernel, [product.height, product.width])",
    ),
    "halves-take-rows-of-a-batch-alone": (
        "before = sizes(x)[: x.shape.rank - product.inner]",
        "before = sizes(x)[:2]",
    ),
    "halves-are-made-in-bfloat16": (
        "kernel = tf.cast(kernel, layer.compute_dtype)",
        "kernel = tf.cast(kernel, tf.bfloat16)",
    ),
}
DECODER = {
    "stages-draw-for-other-rows": (
        "left = tf.gather(draws, rows)",
        "left = draws[: tf.shape(rows)[0]]",
    ),
    "stages-go-on-with-stopped-rows": (
        "tf.cast(~standing.active, tf.int32)",
        "tf.cast(standing.active, tf.int32)",
    ),
    "stages-put-rows-elsewhere": (
        "tf.tensor_scatter_nd_update(old, rows[:, None], new)",
        "tf.tensor_scatter_nd_update(old, rows[::-1, None], new)",
    ),
    "runs-draw-for-other-rows": (
        "chosen = _rows_of(rows[full], each)",
        "chosen = _rows_of(full, each)",
    ),
    "runs-stay-in-their-order": (
        "place = np.argsort(np.concatenate(order))",
        "place = np.arange(draws.shape[0])",
    ),
    "runs-mix-the-responses-of-prompts": (
        "prompts[:, None] * each + np.arange(each)",
        "prompts[:, None] + len(prompts) * np.arange(each)",
    ),
    "later-stages-forget-the-first": (
        "rows = tf.gather(rows, chosen)",
        "rows = chosen",
    ),
}
ALIGNED = {
    "log-probs-of-the-token-before": (
        "logits, predicted = logits[:, :-1], token_ids[:, 1:]",
        "logits, predicted = logits[:, 1:], token_ids[:, 1:]",
    ),
    "log-probs-one-too-early": (
        "tf.pad(x, [[0, 0], [1, 0]]) for x in found",
        "tf.pad(x, [[0, 0], [0, 1]]) for x in found",
    ),
    "learner-log-probs-without-temperature": (
        "ops.token_log_probs(logits, predicted, temperature)",
        "ops.token_log_probs(logits, predicted)",
    ),
    "logged-entropy-without-temperature": (
        "ops.entropy(logits[row], temperature)",
        "ops.entropy(logits[row])",
    ),
    "learnt-entropy-without-temperature": (
        "entropy = ops.entropy(logits, temperature)",
        "entropy = ops.entropy(logits)",
    ),
}
OUTPUT_HEAD = {
    "head-reads-the-token-itself": (
        "tf.reshape(hidden[:, :-1], ",
        "tf.reshape(hidden[:, 1:], ",
    ),
    "head-without-temperature": (
        "        targets,\n        temperature,\n",
        "        targets,\n        1.0,\n",
    ),
    "head-speaks-about-the-token-before": (
        "places = tf.where(where[:, 1:] > 0)",
        "places = tf.where(where[:, :-1] > 0)",
        "tests/models/test_policy.py::"
        "test_statistics_of_some_tokens_are_those_of_all",
    ),
}
GENERATION = {
    "decodes-without-temperature": (
        '"temperature": sampler.temperature,',
        '"temperature": 1.0,',
        NUMBERS + "::test_the_temperature_is_in_all_log_probs_and_the_entropy",
    ),
    "stop-tokens-of-the-sampler-ignored": (
        "            return sampler.stop_token_ids\n",
        "            return (self.tokenizer.eos_id,)\n",
        STOPS + "::test_eos_stop_token_and_length_are_three_endings",
    ),
}
POLICY = {
    "log-probs-with-dropout": (
        "*(self.model.backbone, token_ids, padding_mask, training),",
        "*(self.model.backbone, token_ids, padding_mask, True),",
        NUMBERS + "::test_before_any_update_the_ratio_is_1_and_the_kl_0",
    ),
}
VALUE = {
    "value-of-the-state-after-the-token": (
        "values = self.head(hidden)[:, :-1, 0]",
        "values = self.head(hidden)[:, 1:, 0]",
    ),
    "value-starts-without-the-rewards-scale": (
        "model.head.kernel.assign(kernel * gain)",
        "model.head.kernel.assign(kernel)",
    ),
}
REFERENCE = {
    "reference-is-trainable": (
        "copy.trainable = False",
        "copy.trainable = True",
    ),
    "reference-is-the-policy": (
        "        backbones.clone_causal_lm(policy.model)\n",
        "        policy.model\n",
    ),
    "reference-is-the-base-model": (
        "if adapter is not None and not adapter.is_idle():",
        "if False:",
        NUMBERS + "::test_the_reference_of_an_adapted_policy_has_the_adapter",
    ),
    "reference-shares-the-adapter": (
        "copy.adapter = adapter.copy(copy.trunk)",
        "copy.adapter = adapter",
        NUMBERS + "::test_the_reference_of_an_adapted_policy_has_the_adapter",
    ),
}
ADAPTERS = {
    "adapter-not-scaled": (
        "scaled = added * (self.alpha / self.rank)",
        "scaled = added",
        "tests/models/test_adapters.py::test_an_adapter_computes_what_merged_weights_compute",
    ),
    "adapter-copied-without-its-weights": (
        "            new.assign(old)\n",
        "            pass\n",
        NUMBERS + "::test_the_reference_of_an_adapted_policy_has_the_adapter",
    ),
}
SCORES = "tests/conformance/test_scores.py"
LEARNED = "tests/conformance/test_metrics.py::test_metrics_of_the_reward_model"
REWARD = {
    "score-at-the-last-column": (
        "last = ops.last_token_index(padding_mask)",
        "last = tf.zeros_like(padding_mask[:, 0]) + tf.shape(padding_mask)[1]"
        " - 1",
        SCORES + "::test_a_score_is_the_rows_own",
    ),
    "score-before-the-last-token": (
        "last = ops.last_token_index(padding_mask)",
        "last = tf.maximum(ops.last_token_index(padding_mask) - 1, 0)",
        "tests/models/test_reward.py::test_a_score_reads_the_last_token",
    ),
    "gain-ignored": (
        "return raw * self.gain + self.bias",
        "return raw + self.bias",
        "tests/models/test_reward.py::test_a_score_reads_the_last_token",
    ),
    "normalised-to-twice-the-mean": (
        "(heads.as_float(self.bias) - scores.mean()) / deviation",
        "(heads.as_float(self.bias) + scores.mean()) / deviation",
    ),
    "head-starts-at-one-over-its-inputs": (
        "(size + 1) ** -0.5",
        "1.0 / (size + 1)",
        "tests/models/test_reward.py::"
        "test_the_head_starts_at_one_over_the_root_of_its_inputs",
    ),
    "record-weights-ignored": (
        "return tf.cast(batch.weight, tf.float32)",
        "return tf.ones_like(batch.weight)",
        STEP + "::test_twice_the_weight_of_all_records_changes_no_step",
    ),
    "rejected-is-chosen": (
        "terms = self.objective(batch.ranks, scores)",
        "terms = self.objective(batch.ranks, -scores)",
        LEARNED,
    ),
    "error-without-weights": (
        "tf.abs(scores - batch.rating) * batch.weight",
        "tf.abs(scores - batch.rating)",
        LEARNED,
    ),
    "equal-scores-are-right": (
        "right = 0.5 * (tf.sign(margin) + 1.0)",
        "right = tf.cast(margin >= 0.0, tf.float32)",
        "tests/models/test_reward.py::test_equal_scores_are_half_right",
    ),
    "accuracy-counts-absent-candidates": (
        "        & present[:, :, None]\n",
        "",
        LEARNED,
    ),
    "reward-model-never-drops-out": (
        "self.backbone, token_ids, padding_mask, training, self.adapter",
        "self.backbone, token_ids, padding_mask, False, self.adapter",
        STEP + "::test_dropout_is_on_in_training_and_off_in_measuring",
    ),
}
TRAINABLE = {
    "each-micro-batch-has-its-own-mean": (
        "loss = loss / tf.maximum(count, 1e-8)",
        "loss = loss / tf.maximum(tf.reduce_sum(terms.weights), 1e-8)",
    ),
    "loss-ignores-weights": (
        "loss = tf.reduce_sum(terms.losses * terms.weights)",
        "loss = tf.reduce_sum(terms.losses)",
    ),
    "logged-loss-is-the-last-term": (
        "metrics[self.loss_name] = (so_far + here, weight)",
        "metrics[self.loss_name] = (here, weight)",
        UPDATE,
    ),
    "terms-do-not-add-up-in-the-log": (
        "metrics[self.loss_name] = (so_far + here, weight)",
        "metrics[self.loss_name] = (here, weight)",
        "tests/trainers/test_update.py",
    ),
    "clip-norm-ignored": (
        "tf.clip_by_global_norm([scale], self.clip_norm, norm)",
        "tf.clip_by_global_norm([scale], 1.0, norm)",
    ),
    "logs-are-means-of-means": (
        "self._means[name].update_state(mean, sample_weight=count)",
        "self._means[name].update_state(mean)",
    ),
    "logged-loss-ignores-weights": (
        "total = tf.reduce_sum(terms.losses * terms.weights)",
        "total = tf.reduce_sum(terms.losses)",
    ),
    "logged-norm-is-clipped": (
        '{"gradient_norm": tf.norm(norms)}',
        '{"gradient_norm": tf.minimum(tf.norm(norms), self.clip_norm or 1e9)}',
    ),
    "loss-of-compile-ignored": (
        "self.objective = self.default_loss() if loss is None else loss",
        "self.objective = self.default_loss()",
    ),
    "second-optimizer-gets-the-first-gradients": (
        "gradients = gradients[len(variables) :]",
        "gradients = gradients[-len(variables) :]",
        STEP + "::test_two_optimizers_make_the_step_of_one",
    ),
    "training-without-dropout": (
        "terms = compute(part, training=True)",
        "terms = compute(part, training=False)",
        STEP + "::test_dropout_is_on_in_training_and_off_in_measuring",
    ),
    "measuring-with-dropout": (
        "self.batch_losses(batch, training=False)",
        "self.batch_losses(batch, training=True)",
        STEP + "::test_dropout_is_on_in_training_and_off_in_measuring",
    ),
    "each-replica-has-its-own-mean": (
        "count = ops.global_sum(tf.reduce_sum(self.batch_weights(batch)))",
        "count = tf.reduce_sum(self.batch_weights(batch))",
        "tests/distribute/test_line.py",
    ),
    "gradients-clipped-before-the-sum": (
        "gradients = ops.global_sums(gradients)",
        "gradients = ops.global_sums("
        "tf.clip_by_global_norm(gradients, self.clip_norm or 1e9)[0])",
        "tests/distribute/test_line.py",
    ),
    "metrics-of-one-replica": (
        "mean = ops.global_sum(total) / tf.maximum(count, 1e-8)",
        "mean = total / tf.maximum(count, 1e-8)",
        "tests/distribute/test_line.py",
    ),
}
ROWS = {
    "long-prompts-are-cut-in-batches": (
        "while width < lengths[rows].max():",
        "while width < lengths[rows].min():",
        "tests/data/test_prompts.py",
    ),
    "batches-in-the-order-given": (
        'np.argsort(lengths, kind="stable")',
        "np.arange(len(lengths))",
        "tests/data/test_prompts.py",
    ),
    "eos-is-not-learnt": (
        "response_ids.append([*rest, end])",
        "response_ids.append([*rest])",
    ),
    "padding-hides-the-last-token": (
        "padding_mask[row, :stop] = 1",
        "padding_mask[row, : stop - 1] = 1",
    ),
    "first-response-token-is-not-learnt": (
        "response_mask[row, start:stop] = 1",
        "response_mask[row, start + 1 : stop] = 1",
    ),
    "prompt-is-learnt": (
        "response_mask[row, start:stop] = 1",
        "response_mask[row, :stop] = 1",
    ),
    "equal-ids-are-padding": (
        "padding_mask[row, :stop] = 1",
        "padding_mask[row, :stop] = token_ids[row, :stop] != pad_id",
        STOPS + "::test_pad_may_be_eos_in_supervised_training",
    ),
}
MICRO_BATCHES = {
    "each-length-is-traced": (
        "tf.TensorSpec([*x.shape[:-1], None], x.dtype)",
        "_described(x)",
        "tests/models/test_micro_batches.py",
    ),
    "every-width-is-compiled": (
        "step = tf.bitwise.left_shift(1, doublings)",
        "step = 1",
        "tests/models/test_micro_batches.py",
    ),
    "micro-batches-lose-rows": (
        "rows * index // parts, rows * (index + 1) // parts",
        "rows // parts * index, rows // parts * (index + 1)",
    ),
    "last-micro-batch-wins": (
        "tf.nest.map_structure(tf.add, so_far, function(i))",
        "function(i)",
    ),
    "the-longest-row-is-cut": (
        "tf.reduce_max(tf.reduce_sum(mask, axis=-1)) + 1",
        "tf.reduce_max(tf.reduce_sum(mask, axis=-1)) - 1",
        "tests/models/test_micro_batches.py",
    ),
}
LEAN_LAYERS = {
    "gelu-learns-along-the-identity": (
        "gate * (1.0 + (wide - wide * gate) * slope)",
        "gate * 1.0",
    ),
    "gelu-without-its-cube": (
        "tf.sigmoid(x * (A + B",
        "tf.sigmoid(x * (A + 0.0 * B",
    ),
    "norm-passes-the-mean-on": (
        "(to_unit - even - unit * along)",
        "(to_unit - unit * along)",
    ),
    "norm-passes-its-own-direction-on": (
        "(to_unit - even - unit * along)",
        "(to_unit - even)",
    ),
    "bfloat16-is-cut": ("bits + odd + 0x7FFF", "bits + 0 * odd"),
    "halves-are-rounded-up": ("bits + odd + 0x7FFF", "bits + 0 * odd + 0x8000"),
    "lean-layers-stay-lean": ("layer.activation = plain", "pass"),
}
LEAN_ATTENTION = {
    "attention-forgets-the-mean": ("(to_p - mean) * p", "to_p * p"),
    "queries-that-see-nothing-learn": (
        "up *= tf.cast(sees, up.dtype)",
        "pass",
    ),
    "queries-learn-unscaled": (
        "to_q = _times(tf.matmul(to_scores, k), before)",
        "to_q = tf.matmul(to_scores, k)",
    ),
    "short-scores-learn-unscaled": (
        "tf.cast(_times(to_scores, after), q.dtype)",
        "tf.cast(to_scores, q.dtype)",
    ),
}
LEAN_DENSE = {
    "dense-forgets-its-bias": (
        "found = tf.nn.bias_add(found, each)",
        "found = tf.nn.bias_add(found, 0.0 * each)",
    ),
    "dense-forgets-its-activation": (
        "found = activation(found) if of_rows else found",
        "found = found",
    ),
    "dense-turns-a-kernel-twice": (
        "turned = tf.ensure_shape(tf.transpose(kernel), [width, height])",
        "turned = tf.reshape(kernel, [width, height])",
    ),
    "dense-takes-any-einsum": (
        "return len(inner) if plain",
        "return len(inner) if True",
    ),
    "dense-forgets-adapters": ("or layer.lora_enabled", ""),
}
LEAN_PRODUCTS = {
    "product-does-not-mind-the-order": ("if swapped:", "if False:"),
    "product-stays-tensorflows": (
        "        tf.einsum = _einsum",
        "        pass",
    ),
}
LAST_BLOCK = {
    "states-are-put-back-elsewhere": (
        "tf.scatter_nd(places, found, shape)",
        "tf.scatter_nd(places[::-1], found, shape)",
    ),
    "all-states-reach-the-last-block": (
        "if places is None or not known:",
        "if True:",
    ),
    "counts-are-not-rounded-up": (
        "more = -tf.shape(places)[0] % BUCKET",
        "more = 0",
    ),
}
PACKED_ROWS = {
    "neighbours-are-seen": (
        "segments = laid(sequences + 1) - 1",
        "segments = laid(tf.ones_like(sequences)) - 1",
    ),
    "positions-go-on": ("laid(positions),", "laid(targets[:, 0] % width),"),
    "states-come-from-elsewhere": (
        "places = (rows * width + starts)[:, None]",
        "places = (rows * width + starts)[::-1, None]",
    ),
    "gradients-of-nothing": (
        "tf.where(is_token, tf.gather(upstream, sources), 0)",
        "tf.gather(upstream, sources)",
    ),
    "every-count-of-rows": (
        "step = tf.maximum(-(-most // COUNTS), 1)",
        "step = 1",
    ),
    "rows-are-never-wide": ("tf.argmin(costs)", "0 * tf.argmin(costs)"),
    "attention-costs-nothing": (
        "2 * hidden_size + widths, tf.float32",
        "2 * hidden_size + 0 * widths, tf.float32",
    ),
    "sequences-change-places": ("back = tf.argsort(order)", "back = order"),
    "the-shortest-goes-first": (
        'direction="DESCENDING"',
        'direction="ASCENDING"',
    ),
    "packs-unasked": ("if known is None or", "known = known or {}\n    if"),
    "others-get-its-rows": (
        "name = (*map(id, inputs), size)",
        "name = size",
    ),
}
SHARED_TRACES = {
    "all-layers-are-alike": (
        "tuple((type(part), frozenset(_settings(part))) for part in parts)",
        "tuple(type(part) for part in parts)",
    ),
    "no-layers-are-alike": (
        "if name not in self.known:",
        "if True:",
    ),
    "frozen-weights-have-gradients": (
        "own = x if v.trainable else tf.stop_gradient(x)",
        "own = x",
    ),
    "what-trains-is-frozen": (
        "tuple((v.dtype, v.trainable) for v in self.variables)",
        "tuple(v.dtype for v in self.variables)",
    ),
    "adapters-are-those-of-the-first": (
        "return None if assigns or trace.captured_inputs else trace",
        "return None if assigns else trace",
    ),
    "dropout-forgets-its-draws": (
        "return None if assigns or trace.captured_inputs else trace",
        "return None if trace.captured_inputs else trace",
    ),
    "rematerialised-layers-are-shared": ('and "call" not in vars(layer)', ""),
    "traces-are-shared-unasked": ("set({} if wanted else None)", "set({})"),
}
COMPILED_MODEL = {
    "trainers-trace-every-layer": (
        "traces_are_shared(plain)",
        "traces_are_shared(False)",
    ),
}
HEADS = {
    "states-after-the-tokens": (
        "tf.where(mask[:, 1:] > 0)",
        "tf.where(mask > 0)",
    ),
}
LOOKUPS = {
    "one-lookup-is-enough": (
        "ids = tf.concat([tf.reshape(i, [-1]) for i, _ in here], axis=0)",
        "here = here[:1]; ids = tf.reshape(here[0][0], [-1])",
    ),
    "looked-up-rows-learn-alone": (
        "add(tf.convert_to_tensor(gradient), ids[:, None], rows)",
        "add(tf.zeros_like(gradient), ids[:, None], rows)",
    ),
    "frozen-tables-are-noted": (
        "and layer.embeddings.trainable",
        "",
    ),
}
REPLACED_CALLS = {
    "calls-stay-replaced": ("        _assign(before)", "        pass"),
    "no-call-is-the-one-that-was": (
        "object.__delattr__(layer, name)",
        "pass",
    ),
}
COMPILATION = {
    "the-slower-compiler-is-chosen": (
        "seconds[True] < seconds[False]",
        "seconds[True] > seconds[False]",
    ),
    "one-answer-for-everything": ("repr(what).encode()", "b''"),
}
PRECISION = {
    "decoding-stays-narrow": ("layer.dtype_policy = wide", "pass"),
    "training-stays-wide": ("layer.dtype_policy = policy", "pass"),
}
UNSTACKED = {
    "updates-begin-elsewhere": (
        "[start[axis] for axis in self.order],",
        "start,",
    ),
    "queries-read-other-heads": (
        "[self.once.shape[HEADS], self.each]",
        "[self.each, self.once.shape[HEADS]]",
    ),
    "heads-that-are-summed-over-stay-groups": (
        "if first.count(head) != 1 or result.count(head) != 1:",
        "if first.count(head) != 1:",
    ),
    "what-is-made-anew-stays-as-it-is": (
        "x.kept if isinstance(x, Turned) else tf.transpose(x, order)",
        "x.kept if isinstance(x, Turned) else x",
    ),
}
OPTIMIZERS = {
    "adam-counts-from-0": (
        "step = tf.cast(optimizer.iterations + 1, dtype)",
        "step = tf.cast(optimizer.iterations, dtype)",
    ),
    "adam-corrects-by-one-beta": (
        '"beta2_power": tf.pow(beta_2, step),',
        '"beta2_power": tf.pow(beta_1, step),',
    ),
    "adam-forgets-the-scale": (
        "gradient *= tf.cast(self._scale, dtype)",
        "pass",
    ),
    "adam-moves-all-at-once": (
        "with tf.control_dependencies(awaited):",
        "with tf.control_dependencies([]):",
    ),
    "adam-waits-for-one-of-those-before": (
        "tf.group(moved, *self._moved[-1:])",
        "moved",
    ),
    "other-optimizers-forget-the-scale": (
        "[g * scale for g in gradients]",
        "gradients",
    ),
    "optimizer-sums-replicas-again": (
        "object.__setattr__(optimizer, name, lambda pairs: pairs)",
        "pass",
        "tests/distribute/test_line.py",
    ),
    "memory-stays-shared": (
        "tf.raw_ops.DeepCopy(x=variable.value)",
        "tf.identity(variable.value)",
    ),
    "averages-change-places": (
        "v=optimizer._velocities[index].value.handle,",
        "v=optimizer._momentums[index].value.handle,",
    ),
    "amsgrad-is-ignored": (
        "if type(optimizer) in kinds and not optimizer.amsgrad:",
        "if type(optimizer) in kinds:",
    ),
}
PAIRS = {
    "equal-pairs-are-taken": (
        "if first_rank == rank or first_ids != ids:",
        "if first_rank == rank or first[1] != second[1]:",
    ),
}
TOKENS = {
    "bos-stands-in-the-middle": (
        "return prompt_ids, self._plain_ids(response), False",
        "return prompt_ids, self.encode(response), False",
        "tests/models/test_tokenizer.py",
    ),
}
FAULTS = [
    ("tfrlhf/models/sampler.py", "tests/models/test_sampler.py", SAMPLER),
    ("tfrlhf/models/decode_loop.py", "tests/models/test_decoding.py", DECODING),
    ("tfrlhf/models/decoding.py", "tests/models/test_head_of.py", HEAD),
    ("tfrlhf/models/halves.py", "tests/models/test_halves.py", HALVES),
    (
        "tfrlhf/models/decoder.py",
        "tests/models/test_decoder.py",
        DECODER,
    ),
    ("tfrlhf/models/unstacked.py", "tests/models/test_unstacked.py", UNSTACKED),
    (
        "tfrlhf/models/lean_attention.py",
        "tests/models/test_lean_attention.py",
        LEAN_ATTENTION,
    ),
    (
        "tfrlhf/models/lean_layers.py",
        "tests/models/test_lean_layers.py",
        LEAN_LAYERS,
    ),
    (
        "tfrlhf/models/lean_dense.py",
        "tests/models/test_lean_dense.py",
        LEAN_DENSE,
    ),
    (
        "tfrlhf/models/lean_products.py",
        "tests/models/test_lean_products.py",
        LEAN_PRODUCTS,
    ),
    (
        "tfrlhf/models/last_block.py",
        "tests/models/test_last_block.py",
        LAST_BLOCK,
    ),
    (
        "tfrlhf/models/packed_rows.py",
        "tests/models/test_packed_rows.py",
        PACKED_ROWS,
    ),
    (
        "tfrlhf/models/shared_traces.py",
        "tests/models/test_shared_traces.py",
        SHARED_TRACES,
    ),
    (
        "tfrlhf/models/compiled_model.py",
        "tests/trainers/test_retraces.py",
        COMPILED_MODEL,
    ),
    ("tfrlhf/models/heads.py", "tests/models/test_policy.py", HEADS),
    ("tfrlhf/models/lookups.py", "tests/models/test_lookups.py", LOOKUPS),
    (
        "tfrlhf/models/replaced_calls.py",
        "tests/models/test_lookups.py",
        REPLACED_CALLS,
    ),
    (
        "tfrlhf/models/compilation.py",
        "tests/models/test_compilation.py",
        COMPILATION,
    ),
    (
        "tfrlhf/models/precision.py",
        "tests/models/test_precision.py",
        PRECISION,
    ),
    (
        "tfrlhf/models/optimizers.py",
        "tests/models/test_optimizers.py",
        OPTIMIZERS,
    ),
    ("tfrlhf/models/statistics.py", STATISTICS, ALIGNED),
    ("tfrlhf/models/output_head.py", STATISTICS, OUTPUT_HEAD),
    ("tfrlhf/models/generation.py", NUMBERS, GENERATION),
    ("tfrlhf/models/policy.py", NUMBERS, POLICY),
    ("tfrlhf/models/adapters.py", "tests/models/test_adapters.py", ADAPTERS),
    ("tfrlhf/models/value.py", "tests/models/test_value.py", VALUE),
    ("tfrlhf/models/reference.py", "tests/models/test_reference.py", REFERENCE),
    (
        "tfrlhf/models/reward.py",
        "tests/models/test_reward.py::"
        "test_normalize_gives_mean_0_and_deviation_1",
        REWARD,
    ),
    ("tfrlhf/models/trainable.py", "tests/models/test_trainable.py", TRAINABLE),
    (
        "tfrlhf/models/micro_batches.py",
        "tests/models/test_trainable.py",
        MICRO_BATCHES,
    ),
    (
        "tfrlhf/data/prompts.py",
        "tests/data/test_examples.py tests/data/test_preferences.py",
        ROWS,
    ),
    (
        "tfrlhf/data/preferences.py",
        SCORES + "::test_pairs_that_truncation_makes_equal_are_refused",
        PAIRS,
    ),
    ("tfrlhf/models/tokenizer.py", "tests/models/test_tokenizer.py", TOKENS),
]
