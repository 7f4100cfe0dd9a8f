"""Every option changes something that can be seen, and no other is taken.

The options are read off the signatures: a new one without an entry here fails.
"""

import functools
import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests.conformance import options_of_numbers as of_numbers
from tests.conformance import options_of_preferences as of_preferences
from tests.conformance import support
from tests.modes import MASK
from tfrlhf import losses
from tfrlhf.types import Experience

# What names a thing, and what every other option is an option of.
NAMES = {"name", "self", "policy", "reward", "reference"}


def double(scores, completions):
    return 2.0 * scores


def noted(function, rows):
    """The function, which now notes how many rows it is given at a time."""

    def call(token_ids, *args, **kwargs):
        rows.append(len(token_ids))
        return function(token_ids, *args, **kwargs)

    return call


@functools.cache
def end_of_sequence():
    return support.a_likely_token()


@functools.cache
def reference():
    """A policy that does not train, the same for all."""
    return support.policy(seed=5)


def of_ppo(**changed):
    """All that one iteration leaves: logs, samples, weights, sizes."""
    policy = support.policy(eos_id=end_of_sequence())
    value = support.value_model(policy)
    rows = []
    policy.call = noted(policy.call, rows)
    trainer = tfrlhf.PPO(policy, support.lengths, value, reference())
    settings = {
        "optimizer": keras.optimizers.SGD(0.5),
        "sampler": support.SAMPLER,
        "advantage": tfrlhf.GAE(),
        "kl": tfrlhf.FixedKL(0.2),
        "update_epochs": 1,
        "clip_norm": None,
        "jit_compile": False,
    } | changed
    trainer.compile(settings.pop("optimizer"), **settings)
    logs = support.iterate(trainer)
    return {
        "logs": sorted(logs.items()),
        "next weight": float(trainer.state.kl_weight.numpy()),
        "responses": trainer.last_iteration.responses,
        "finished": trainer.last_iteration.rollout.finished.numpy().tolist(),
        "weights": [float(np.sum(np.abs(w))) for w in support.weights(trainer)],
        "rows": rows,
    }


def of_ppo_option(**settings):
    """An iteration with an object of one kind, made from settings."""
    (kind, make), *others = settings.pop("of").items()
    return lambda **changed: of_ppo(**{kind: make(**settings | changed)})


def of_moment(**changed):
    """An iteration of two minibatches, whitened together or apart."""
    return of_ppo(advantage=tfrlhf.GAE(**changed), minibatches=2)


def of_mean(**changed):
    """What every token weighs in the mean."""
    trainer = bare_ppo()
    trainer.compile(
        "sgd",
        losses.PPOLoss(**changed),
        sampler=support.SAMPLER,
        jit_compile=False,
    )
    mask = tf.constant(MASK)
    batch = Experience(mask, mask, mask, *[tf.zeros(MASK.shape)] * 5)
    return trainer.batch_weights(batch).numpy().tolist()


EXAMPLES = [
    {"prompt": "The park", "response": " is large."},
    {"prompt": "12", "response": " trees"},
]


class SeenSFT(tfrlhf.SFT):
    """Keeps the sizes, and whether a pass was traced."""

    def batch_losses(self, batch, training):
        self.rows.append(batch.token_ids.shape[0])
        self.traced = not tf.executing_eagerly()
        return super().batch_losses(batch, training)


def of_sft(learn_prompts=False, **changed):
    """Loss, weights and sizes of a step, without tracing unless asked."""
    sft = SeenSFT(support.policy(), learn_prompts)
    sft.rows = []
    settings = {
        "optimizer": keras.optimizers.SGD(0.5),
        "clip_norm": None,
        "jit_compile": False,
        "run_eagerly": True,
    } | changed
    sft.compile(settings.pop("optimizer"), **settings)
    history = sft.fit(EXAMPLES, batch_size=2, verbose=0).history
    return {
        "logs": history,
        "weights": [float(np.sum(np.abs(w))) for w in support.weights(sft)],
        "rows": sft.rows,
        "traced": sft.traced,
    }


def is_compiled(trainer):
    """Whether XLA compiles the passes: others have no compiler output."""
    try:
        trainer._gradient_function.experimental_get_compiler_ir()
    except ValueError:
        return False
    except TypeError:  # It asks for the arguments only then.
        return True


def of_jit(make):
    def observe(jit_compile=False):
        trainer = make()
        samples = isinstance(trainer, tfrlhf.PPO)
        settings = {"sampler": support.SAMPLER} if samples else {}
        trainer.compile("sgd", jit_compile=jit_compile, **settings)
        return is_compiled(getattr(trainer, "learner", trainer))

    return observe


def bare_ppo():
    return tfrlhf.PPO(support.policy(), support.lengths)


def bare_sft():
    return tfrlhf.SFT(support.policy())


def half_the_loss(mask, log_probs):
    return 0.5 * losses.TokenCrossEntropy()(mask, log_probs)


SAMPLED = of_ppo_option(
    of={"sampler": tfrlhf.Sampler},
    temperature=support.TEMPERATURE,
    max_new_tokens=6,
)
ADAPTIVE = of_ppo_option(of={"kl": tfrlhf.AdaptiveKL}, target=0.5, horizon=100)
FIXED = of_ppo_option(of={"kl": tfrlhf.FixedKL}, weight=0.2)


def of_stop(**changed):
    """Three passes over a rollout, or fewer."""
    kl = tfrlhf.FixedKL(0.2, **changed)
    return of_ppo(kl=kl, update_epochs=3)


SLOW, NEW = keras.optimizers.SGD, keras.optimizers.Adam

# What has options: what is seen of it, and another value for each of them.
OPTIONS = {
    tfrlhf.PPO.compile: (
        of_ppo,
        {
            "optimizer": lambda: NEW(0.5),
            "loss": lambda: losses.PPOLoss(value_weight=0.5),
            "sampler": tfrlhf.Sampler(0.9, max_new_tokens=6),
            "advantage": lambda: tfrlhf.GAE(whiten=False),
            "kl": tfrlhf.FixedKL(0.4),
            "update_epochs": 2,
            "minibatches": 2,
            "micro_batches": 2,
            "clip_norm": 0.01,
            "value_optimizer": lambda: SLOW(0.0),
            "score_rules": (double,),
            "jit_compile": True,
        },
    ),
    tfrlhf.Sampler: (
        SAMPLED,
        {
            "temperature": 1.3,
            "top_k": 2,
            "top_p": 0.2,
            "max_new_tokens": 3,
            "stop_token_ids": (),
        },
    ),
    tfrlhf.AdaptiveKL: (
        ADAPTIVE,
        {
            "target": 1e4,
            "initial": 0.3,
            "horizon": 1000,
            "kind": "k3",
            "clip": 0.1,
            "stop": 1e-9,
        },
    ),
    tfrlhf.FixedKL: (
        FIXED,
        {"weight": 0.5, "kind": "k2", "clip": 0.1, "stop": 1e-9},
    ),
    tfrlhf.SFT: (of_sft, {"learn_prompts": True}),
    tfrlhf.SFT.compile: (
        of_sft,
        {
            "optimizer": lambda: NEW(0.5),
            "loss": lambda: half_the_loss,
            "micro_batches": 2,
            "clip_norm": 0.01,
            "run_eagerly": False,
            "jit_compile": True,
        },
    ),
    **of_numbers.OPTIONS,
    **of_preferences.OPTIONS,
}
# What makes a trainer whose `compile` has options.
BARE = {
    tfrlhf.PPO.compile: bare_ppo,
    tfrlhf.SFT.compile: bare_sft,
    tfrlhf.DPO.compile: of_preferences.bare_dpo,
    tfrlhf.OnlineDPO.compile: of_preferences.bare_online,
}
# Seen elsewhere: what XLA compiles has the same numbers.
APART = {
    (tfrlhf.GAE, "when"): of_moment,
    (tfrlhf.AdaptiveKL, "stop"): of_stop,
    (tfrlhf.FixedKL, "stop"): of_stop,
    (losses.PPOLoss, "mean_over"): of_mean,
    (losses.PPOLoss, "kl_kind"): of_numbers.of_kl_in_the_loss,
} | {(thing, "jit_compile"): of_jit(make) for thing, make in BARE.items()}
# They run eagerly themselves, but for one option.
UNTRACED = (of_sft, of_preferences.of_dpo)
EVERY_OPTION = [
    pytest.param(thing, name, id=f"{thing.__qualname__}-{name}")
    for thing, (_, others) in OPTIONS.items()
    for name in others
]
BY_DEFAULT = {}


def seen_by_default(observe):
    """What is seen without any change, once for all options."""
    if observe not in BY_DEFAULT:
        BY_DEFAULT[observe] = observe()
    return BY_DEFAULT[observe]


# trl#2665 (`whiten_rewards` in RLOO), TRL's PPO (`max_grad_norm`), torchtune
# (`whiten_rewards`), LMH (`rewards.whiten` for `ppo.whiten_rewards`), slime#397
# and open-instruct#534 (the KL coefficient): options that did nothing.
@pytest.mark.filterwarnings("ignore:With `top_k` or `top_p`")
@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental")
@pytest.mark.parametrize(("thing", "name"), EVERY_OPTION)
def test_every_option_changes_something(thing, name, request):
    observe, others = OPTIONS[thing]
    observe = APART.get((thing, name), observe)
    if observe not in UNTRACED:
        request.getfixturevalue("eagerly")
    other = others[name]
    changed = observe(**{name: other() if callable(other) else other})
    assert changed != seen_by_default(observe)


@pytest.mark.parametrize("thing", OPTIONS, ids=lambda t: t.__qualname__)
def test_no_option_is_left_out(thing):
    parameters = set(inspect.signature(thing).parameters) - NAMES
    assert set(OPTIONS[thing][1]) == parameters


# LMH bound a key that no part read.
@pytest.mark.parametrize("thing", OPTIONS, ids=lambda t: t.__qualname__)
def test_unknown_options_are_refused(thing):
    with pytest.raises(TypeError, match="whiten_advantages"):
        if thing in BARE:
            samples = "sampler" in OPTIONS[thing][1]
            settings = {"sampler": support.SAMPLER} if samples else {}
            BARE[thing]().compile("sgd", whiten_advantages=True, **settings)
        else:
            thing(whiten_advantages=True)


def test_unknown_options_of_fit_are_refused():
    trainer = support.ppo(support.policy())
    with pytest.raises(TypeError, match="batchsize"):
        trainer.fit(support.PROMPTS, batchsize=2)
