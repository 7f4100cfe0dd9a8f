"""Faults in what imitates examples: (file, tests, {name: ...})."""

METRICS = "tests/conformance/test_metrics.py"
OPTION = (
    "tests/conformance/test_options.py::test_every_option_changes_something"
)
MIXING = "tests/trainers/test_example_mixing.py"
SFT = {
    "supervised-training-learns-padding": (
        "weights = tf.cast(batch.loss_mask[:, 1:], tf.float32)",
        "weights = tf.ones_like(batch.loss_mask[:, 1:], tf.float32)",
    ),
    "supervised-training-learns-prompts": (
        "weights = tf.cast(batch.loss_mask[:, 1:], tf.float32)",
        "weights = tf.cast(batch.padding_mask[:, 1:], tf.float32)",
    ),
    "labels-shifted-twice": (
        "return tf.pad(weights, [[0, 0], [1, 0]])",
        "return tf.pad(weights, [[0, 0], [0, 1]])",
    ),
    "accuracy-over-padding": (
        "right = tf.cast(outputs.most_likely, tf.float32) * weights",
        "right = tf.cast(outputs.most_likely, tf.float32)",
    ),
    "learn-prompts-ignored": (
        "            self.learn_prompts,\n",
        "",
        OPTION + "[SFT-learn_prompts]",
    ),
}
MIXED = {
    "every-pass-in-the-same-order": (
        "default_rng((seed, number, total))",
        "default_rng((seed, 0, total))",
        MIXING + "::test_every_pass_shows_every_example_once",
    ),
    "every-batch-from-the-start": (
        "np.arange(step * count, (step + 1) * count)",
        "np.arange(count)",
        MIXING + "::test_every_pass_shows_every_example_once",
    ),
    "filling-rows-are-imitated": (
        "tf.where(real, examples.loss_mask, 0)",
        "examples.loss_mask",
        MIXING + "::test_rows_without_a_minibatch_count_nowhere",
    ),
    "a-mean-over-rows-of-examples": (
        "share = self.weight / tf.maximum(tf.cast(tokens, tf.float32), 1.0)",
        "share = self.weight / size",
    ),
    "a-token-without-context-is-imitated": (
        "return tf.pad(examples.loss_mask[:, 1:], [[0, 0], [1, 0]])",
        "return examples.loss_mask",
    ),
    "examples-are-avoided": (
        "return losses.token_cross_entropy(log_probs, ",
        "return losses.token_cross_entropy(-log_probs, ",
    ),
}
MIXED_LEARNER = {
    "examples-instead-of-experience": (
        "gradients[i] += tf.convert_to_tensor(gradient)",
        "gradients[i] = tf.convert_to_tensor(gradient)",
    ),
    "examples-have-no-gradient": (
        "gradients[i] += tf.convert_to_tensor(gradient)",
        "pass",
    ),
    "logged-total-without-examples": (
        "sums[self.loss_name] = (total + loss * count, weight)",
        "pass",
        MIXING + "::test_what_is_logged",
    ),
}
MIXED_PPO = {
    "examples-are-kept-for-the-next-fit": (
        "        self.examples = None\n",
        "",
        MIXING + "::test_the_next_fit_is_without",
    ),
    "every-iteration-has-the-same-examples": (
        "step = iteration * self.update_epochs + epoch",
        "step = epoch",
        MIXING + "::test_minibatches_and_iterations_have_examples_of_their_own",
    ),
}
FAULTS = [
    (
        "tfrlhf/trainers/supervised.py",
        METRICS + "::test_metrics_of_supervised_training",
        SFT,
    ),
    ("tfrlhf/trainers/example_mixing.py", MIXING, MIXED),
    ("tfrlhf/trainers/policy_learner.py", MIXING, MIXED_LEARNER),
    ("tfrlhf/trainers/policy_optimization.py", MIXING, MIXED_PPO),
]
