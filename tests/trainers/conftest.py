import keras
import pytest
import tensorflow as tf

import tfrlhf
from tests import small

# With 6 new tokens no row passes 16, so that shapes do not change.
PROMPTS = [
    "The weather",
    "The park.",
    "今天公园，",
    "1234 trees",
    "let us go",
    "The trees",
    "公园",
    "12",
]
BATCH = 4


def letters(prompts, responses, **columns):
    """The share of ASCII letters."""
    return [
        sum(c.isascii() and c.isalpha() for c in r) / max(1, len(r))
        for r in responses
    ]


@pytest.fixture(scope="package")
def shared_ppo():
    """A compiled PPO on batches of 4; `ppo` gives it back as it was."""
    policy = small.gpt2_policy(sharpness=4.0)
    ppo = tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile(
        keras.optimizers.Adam(3e-3),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        kl=tfrlhf.AdaptiveKL(target=0.1, initial=0.2, horizon=100),
        update_epochs=2,
        jit_compile=False,
    )
    ppo.fit(PROMPTS, batch_size=BATCH, verbose=0)
    return ppo, variables(ppo)


@pytest.fixture
def ppo(shared_ppo):
    """The shared PPO after two iterations, every variable put back."""
    ppo, at_first = shared_ppo
    for variable, value in zip(every_variable(ppo), at_first, strict=True):
        variable.assign(value)
    return ppo


@pytest.fixture
def eagerly():
    """Runs the phases without tracing them, where one iteration will do."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def every_variable(ppo):
    """All that a checkpoint of a run would hold."""
    return [
        *ppo.policy.weights,
        *ppo.value.weights,
        *ppo.reference.weights,
        *ppo.optimizer.variables,
        *ppo.state.variables,
    ]


def variables(ppo):
    return [variable.numpy().copy() for variable in every_variable(ppo)]
