"""Broken setups: each would train without an error, and wrongly."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.trainers.conftest import PROMPTS
from tests.trainers.conftest import letters
from tfrlhf import losses
from tfrlhf.models import start_check
from tfrlhf.models.start_check import SetupError
from tfrlhf.types import Examples

SAMPLER = tfrlhf.Sampler(temperature=0.7, max_new_tokens=6)
EXAMPLES = [
    {"prompt": "The park", "response": " is large" * n} for n in (1, 2, 3)
]
PAIRS = [
    {"prompt": "The park", "chosen": " is" * n, "rejected": " no"}
    for n in (1, 2, 3)
]


class Net(keras.Model):
    """Embeds, breaks as told, and projects to the vocabulary."""

    def __init__(self, fault="none"):
        super().__init__()
        keras.utils.set_random_seed(3)
        size = small.tokenizer().vocabulary_size
        self.embedding = keras.layers.Embedding(size, 16)
        self.out = keras.layers.Dense(size, kernel_initializer="he_normal")
        self.dropout = keras.layers.Dropout(0.5)
        self.fault = fault
        self(
            {
                "token_ids": tf.ones([1, 2], tf.int32),
                "padding_mask": tf.ones([1, 2], tf.int32),
            }
        )

    def call(self, inputs, training=False):
        x = 30.0 * self.embedding(inputs["token_ids"])
        if self.fault == "dropout":
            x = self.dropout(x, training=True)
        if self.fault == "future":
            x += tf.reduce_mean(x, axis=1, keepdims=True)
        if self.fault == "rows":
            x += tf.reduce_mean(x, axis=0, keepdims=True)
        if self.fault == "no gradient":
            return tf.stop_gradient(self.out(x))
        return self.out(x)

    def get_config(self):
        return {"fault": self.fault}


def net_policy(fault, kind=tfrlhf.Policy):
    return kind(Net(fault), small.tokenizer(), small.CONTEXT)


def net_ppo(policy, **arguments):
    """PPO without a value model, its reference another sound policy."""
    arguments.setdefault("reference", net_policy("none"))
    return compiled(tfrlhf.REINFORCE(policy, letters, **arguments))


def compiled(trainer, **settings):
    trainer.compile("sgd", sampler=SAMPLER, jit_compile=False, **settings)
    return trainer


def assert_refuses(trainer, data, message):
    """The reason is given, and nothing has changed."""
    weights = small.weights(trainer)
    with pytest.raises(SetupError, match=message):
        trainer.fit(data, verbose=0)
    for now, before in zip(small.weights(trainer), weights, strict=True):
        np.testing.assert_array_equal(now, before)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("dropout", "differ between two passes over the same tokens"),
        ("future", "policy's .* depend on later tokens: the model must"),
        ("rows", "policy's .* depend on other rows: the model must"),
    ],
)
def test_a_policy_that_sees_what_it_must_not(fault, message, eagerly):
    assert_refuses(net_ppo(net_policy(fault)), PROMPTS, message)


def test_a_sound_model_of_any_kind_passes(eagerly):
    ppo = net_ppo(net_policy("none"))
    ppo.fit(PROMPTS, verbose=0)
    assert int(ppo.state.iteration.numpy()) == 1


def test_a_sampler_at_another_temperature(eagerly):
    class Hot(tfrlhf.Policy):
        def decoder(self, sampler, compiled):
            return super().decoder(tfrlhf.Sampler(), compiled)

    policy = net_policy("none", Hot)
    message = "Sampler and learner disagree by .* at the same temperature"
    assert_refuses(net_ppo(policy), PROMPTS, message)


def test_a_learner_at_another_temperature(eagerly):
    class Cold(tfrlhf.REINFORCE):
        def _policy_output(self, batch):
            output = super()._policy_output(batch)
            return output._replace(log_probs=0.7 * output.log_probs)

    policy = net_policy("none")
    trainer = compiled(Cold(policy, letters, reference=net_policy("none")))
    assert_refuses(trainer, PROMPTS, "ratio is not 1 at the first minibatch")


@pytest.fixture
def gpt2():
    """A PPO over small models, to be broken."""
    policy = small.gpt2_policy(sharpness=4.0)
    value = tfrlhf.ValueModel.from_policy(policy)
    reference = tfrlhf.frozen_copy(policy)
    reward = small.reward_model()
    return compiled(tfrlhf.PPO(policy, reward, value, reference))


def spoil(model, number=np.nan):
    """Puts a number into the last weight matrix of a model."""
    weight = [w for w in model.weights if len(w.shape) == 2][-1]
    values = np.asarray(weight).copy()
    values[0] = number
    weight.assign(values)
    return weight.path


@pytest.mark.parametrize(
    ("which", "name"),
    [
        ("policy", "The sampler's log-probabilities"),
        ("reference", "The reference's log-probabilities"),
        ("value", "The values"),
        ("reward", "The scores"),
    ],
)
def test_a_weight_that_is_not_a_number(gpt2, which, name, eagerly):
    path = spoil(getattr(gpt2, which))
    with pytest.raises(SetupError, match=f"{name} must be finite") as caught:
        gpt2.fit(PROMPTS, verbose=0)
    assert "row " in str(caught.value)
    if which != "policy":
        assert f"`{path}` holds such a number" in str(caught.value)


def test_a_copy_that_is_none_any_more(gpt2, eagerly):
    table = gpt2.policy.model.backbone.token_embedding.embeddings
    table.assign(1.1 * np.asarray(table))
    message = "KL to the reference .* since it was copied. .*frozen_copy"
    assert_refuses(gpt2, PROMPTS, message)


def test_a_copy_may_be_left_behind_by_training(gpt2, eagerly):
    gpt2.fit(PROMPTS, verbose=0)
    gpt2.fit(PROMPTS, verbose=0)
    again = tfrlhf.PPO(gpt2.policy, gpt2.reward, gpt2.value, gpt2.reference)
    compiled(again).fit(PROMPTS, verbose=0)
    assert int(again.state.iteration.numpy()) == 1


def test_a_reward_model_that_reads_the_padding(gpt2, eagerly, monkeypatch):
    def call(token_ids, padding_mask, training=False):
        return tf.reduce_mean(tf.cast(token_ids, tf.float32), axis=-1)

    monkeypatch.setattr(gpt2.reward_model, "call", call)
    message = "The scores depend on the padding: the model must"
    assert_refuses(gpt2, PROMPTS[:1] + ["The park today"], message)


def test_nothing_to_train(eagerly):
    policy = net_policy("none")
    policy.trainable = False
    assert_refuses(net_ppo(policy), PROMPTS, "`ppo` trains has no trainable")


@pytest.mark.parametrize("which", ["reference", "reward"])
def test_a_frozen_model_that_is_the_policy(which):
    policy = small.gpt2_policy()
    models = {"reference": None, "reward": letters}
    models[which] = policy
    if which == "reward":
        models[which] = tfrlhf.RewardModel(
            policy.model.backbone, policy.tokenizer
        )
    with pytest.raises(SetupError, match=f"The {which} shares variables"):
        tfrlhf.PPO(policy, **models)
    assert policy.trainable_variables


class Root(losses.PPOLoss):
    """A loss whose gradient at the start is 0/0."""

    def call(self, experience, output):
        change = output.log_probs - experience.old_log_probs
        change = tf.where(experience.response_mask > 0, change, 0.0)
        return tf.sqrt(tf.abs(change - tf.stop_gradient(change)))


def test_a_gradient_that_is_not_a_number(eagerly):
    trainer = tfrlhf.REINFORCE(net_policy("none"), letters, net_policy("none"))
    compiled(trainer, loss=Root())
    assert_refuses(trainer, PROMPTS, "gradient of `.*` is not finite")


def sft(policy, run_eagerly=True):
    trainer = tfrlhf.SFT(policy)
    trainer.compile("sgd", run_eagerly=run_eagerly)
    return trainer


@pytest.mark.parametrize("kind", ["ppo", "sft", "reward"])
def test_a_tokenizer_of_another_model(kind, eagerly):
    backbone = small.gpt2_policy().model.backbone
    larger = small.tokenizer()
    policy = small.gpt2_policy()

    class Larger:
        vocabulary_size = larger.vocabulary_size + 1

    with pytest.raises(SetupError, match="has 301 tokens, but the model embed"):
        start_check.check_vocabulary(backbone, Larger())
    policy.tokenizer = Larger()
    trainer = {
        "ppo": lambda: tfrlhf.REINFORCE(policy, letters),
        "sft": lambda: tfrlhf.SFT(policy),
        "reward": lambda: tfrlhf.RewardModel.from_policy(policy),
    }[kind]()
    with pytest.raises(SetupError, match="do not belong together"):
        if kind == "ppo":
            from tfrlhf.trainers import rollout_check

            rollout_check.check_models(trainer)
        else:
            trainer.check_start(None)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("future", "losses depend on later tokens"),
        ("rows", "losses depend on other rows"),
        ("no gradient", "no gradient reaches them"),
    ],
)
def test_supervised_training_of_a_broken_model(fault, message):
    assert_refuses(sft(net_policy(fault)), EXAMPLES, message)


def test_examples_of_which_nothing_counts():
    ids = tf.ones([2, 4], tf.int32)
    trainer = sft(net_policy("none"))
    nothing = Examples(ids, ids, tf.zeros_like(ids))
    assert_refuses(trainer, nothing, "Nothing counts in the first batch")


def test_a_loss_that_is_not_a_number():
    policy = net_policy("none")
    path = spoil(policy.model)
    with pytest.raises(SetupError, match="loss of the first batch is nan") as e:
        sft(policy).fit(EXAMPLES, verbose=0)
    assert f"`{path}`" in str(e.value)


class Pooling(tfrlhf.RewardModel):
    """Scores the mean over all positions, or over all rows."""

    axis = 1

    def call(self, token_ids, padding_mask, training=False):
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        hidden = self.backbone(inputs, training=training)
        scores = self.head(hidden)[:, :, 0]
        if self.axis == 1:
            return tf.reduce_mean(scores, axis=1) * self.gain + self.bias
        last = tf.reduce_sum(padding_mask, axis=1) - 1
        scores = tf.gather(scores, last, batch_dims=1)
        return scores * tf.reduce_mean(scores) * self.gain + self.bias


@pytest.mark.parametrize(
    ("axis", "message"),
    [(1, "losses depend on the padding: "), (0, "losses depend on other rows")],
)
def test_a_reward_model_that_sees_more_than_its_row(axis, message):
    reward = Pooling(small.gpt2_backbone(), small.tokenizer(), small.CONTEXT)
    reward.axis = axis
    reward.head.kernel.assign(np.cos(np.arange(32.0))[:, None])
    reward.compile("sgd", run_eagerly=True)
    assert_refuses(reward, PAIRS, message)


def test_looking_changes_no_random_state_and_traces_nothing_more():
    policy = small.gpt2_policy(dropout=0.5)
    trainer = sft(policy, run_eagerly=False)
    seeds = [v for v in trainer.variables if "seed" in v.path]
    assert seeds
    before = [np.asarray(v).copy() for v in seeds]
    trainer.check_start(trainer.as_dataset(EXAMPLES, 2, False, 0))
    for seed, state in zip(seeds, before, strict=True):
        np.testing.assert_array_equal(np.asarray(seed), state)
    trainer.fit(EXAMPLES, batch_size=2, verbose=0)
    traces = trainer._gradient_function.experimental_get_tracing_count()
    assert traces == 1


def test_first_half():
    mask = tf.constant(
        [[0, 1, 1, 1, 1], [0, 1, 0, 1, 1], [0, 1, 1, 1, 1], [0, 0, 0, 0, 0]]
    )
    kept = start_check.first_half(mask)
    np.testing.assert_array_equal(
        kept, [[0, 1, 1, 0, 0], [0, 1, 0, 1, 0], [0] * 5, [0] * 5]
    )
    np.testing.assert_array_equal(
        start_check.up_to_last(kept),
        [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [0] * 5, [0] * 5],
    )
