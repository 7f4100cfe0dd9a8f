"""Trains on one replica, then on two, and prints both runs as JSON.

A process of its own: the logical CPUs are made before TensorFlow starts.
"""

import json
import sys

import keras
import numpy as np
import tensorflow as tf

import tfrlhf
from tests import small
from tfrlhf import cli
from tfrlhf.trainers import replicas

# Batches of 4, 4 and 1: the last leaves a replica without rows.
WORDS = ["park", "trees", "today", "old", "large", "weather", "it", "12", "us"]
EXAMPLES = [
    {"prompt": f"The {word}", "response": f" is{' fine' * n}."}
    for n, word in enumerate(WORDS)
]
PREFERENCES = [
    {
        "prompt": f"The {word}",
        "chosen": f" is{' fine' * n}.",
        "rejected": f" aren't {word}",
        "weight": 1.0 + n,
    }
    for n, word in enumerate(WORDS)
]
# Batches of 6, 6 and 2; minibatches of 3 do not divide by two replicas.
PROMPTS = [f"{word} {n}" for n in (1, 2) for word in WORDS[:7]]


class Record(keras.callbacks.Callback):
    """Keeps the logs of every step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def on_train_batch_end(self, batch, logs=None):
        self.steps.append({name: float(x) for name, x in logs.items()})


class Samples(keras.callbacks.Callback):
    """Keeps the responses and KL weights of every iteration."""

    def __init__(self):
        super().__init__()
        self.responses, self.kl_weights = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.responses.append(self.model.last_iteration.responses)
        self.kl_weights.append(float(self.model.state.kl_weight.numpy()))


def train_sft():
    sft = tfrlhf.SFT(small.gpt2_policy(sharpness=4.0))
    sft.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    record = Record()
    sft.fit(EXAMPLES, batch_size=4, callbacks=[record], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": sft.evaluate(EXAMPLES, batch_size=4),
        "weights": small.weights(sft.policy),
    }


def train_reward():
    reward = small.reward_model(sharpness=4.0)
    reward.compile(keras.optimizers.Adam(1e-3), jit_compile=False)
    record = Record()
    reward.fit(PREFERENCES, batch_size=4, callbacks=[record], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": {},
        "weights": small.weights(reward),
    }


def train_ppo():
    policy = small.gpt2_policy(sharpness=4.0)
    reward = small.reward_model(sharpness=4.0)
    value = tfrlhf.ValueModel.from_reward(reward)
    ppo = tfrlhf.PPO(policy, reward, value)
    ppo.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-5),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        kl=tfrlhf.AdaptiveKL(target=0.01, horizon=50),
        update_epochs=2,
        minibatches=2,
        jit_compile=False,
    )
    record, samples = Record(), Samples()
    ppo.fit(PROMPTS, batch_size=6, callbacks=[record, samples], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": ppo.evaluate(PROMPTS, batch_size=6),
        "weights": small.weights(policy) + small.weights(value),
        "responses": samples.responses,
        "kl_weights": samples.kl_weights,
    }


def rows_on_replicas(strategy):
    """Sizes that the replicas saw, and what came back of five rows."""
    sizes = []

    def function(x):
        sizes.append(int(x.shape[0]))
        return (10 * x,)

    rows = (tf.range(5),)
    (back,) = replicas.on_replicas(strategy, function, rows, 1)
    return {"sizes": sizes, "back": back.numpy().tolist()}


def compared(one, two):
    """Both runs, with the largest difference in place of the weights."""
    differences = [
        float(np.abs(a - b).max())
        for a, b in zip(one.pop("weights"), two.pop("weights"), strict=True)
    ]
    return {"one": one, "two": two, "weights": max(differences)}


def main():
    # As in the recipes: seeds first.
    keras.utils.set_random_seed(0)
    mirrored = cli.make_strategy("mirrored:2")
    answer = {"replicas": mirrored.num_replicas_in_sync}
    answer["rows"] = rows_on_replicas(mirrored)
    for name, train in (
        ("sft", train_sft),
        ("reward", train_reward),
        ("ppo", train_ppo),
    ):
        one = train()
        with mirrored.scope():
            two = train()
        answer[name] = compared(one, two)
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
