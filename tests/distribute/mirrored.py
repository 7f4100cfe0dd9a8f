"""Trains on one replica and on two, in one piece and in parts; prints JSON.

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
from tfrlhf import losses

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
RATED = [
    {
        "prompt": f"The {word}",
        "response": f" is{' fine' * n}.",
        "rating": n % 2,
        "weight": 1.0 + n,
    }
    for n, word in enumerate(WORDS)
]
# Batches of 6, 6 and 2; minibatches of 3 do not divide by two replicas.
PROMPTS = [f"{word} {n}" for n in (1, 2) for word in WORDS[:7]]
# Replicas and micro-batches of each run; 4 of them leave some without rows.
# What is cut further on one replica is run untraced, which is quicker here.
RUNS = {
    "one": (1, 1),
    "two": (2, 1),
    "two halves": (2, 2),
    "halves": (1, 2),
    "quarters": (1, 4),
}
UNTRACED = ("halves", "quarters")
# Runs that not every trainer makes.
ASKED = {"halves": ("dpo", "ppo"), "two halves": ("grpo",)}


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


def train_sft(micro_batches):
    sft = tfrlhf.SFT(small.gpt2_policy(sharpness=4.0))
    sft.compile(
        keras.optimizers.Adam(1e-3),
        micro_batches=micro_batches,
        jit_compile=False,
    )
    record = Record()
    sft.fit(EXAMPLES, batch_size=4, callbacks=[record], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": evaluated(sft, EXAMPLES, 4),
        "weights": small.weights(sft.policy),
    }


def train_reward(micro_batches):
    reward = small.reward_model(sharpness=4.0)
    reward.compile(
        keras.optimizers.Adam(1e-3),
        micro_batches=micro_batches,
        jit_compile=False,
    )
    record = Record()
    reward.fit(PREFERENCES, batch_size=4, callbacks=[record], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": {},
        "weights": small.weights(reward),
    }


def train_dpo(micro_batches):
    return trained_dpo(PREFERENCES, losses.DPOLoss(), micro_batches)


def train_kto(micro_batches):
    """The KL of a batch is that of all its parts."""
    return trained_dpo(RATED, losses.KTOLoss(), micro_batches)


def trained_dpo(records, loss, micro_batches):
    policy = small.gpt2_policy(sharpness=4.0)
    # Another reference, so that the KL is not 0.
    dpo = tfrlhf.DPO(policy, small.gpt2_policy(seed=5, sharpness=4.0))
    dpo.compile(
        keras.optimizers.Adam(1e-3),
        loss,
        micro_batches=micro_batches,
        jit_compile=False,
    )
    record = Record()
    dpo.fit(records, batch_size=4, callbacks=[record], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": evaluated(dpo, records, 4),
        "weights": small.weights(policy),
    }


def train_ppo(micro_batches):
    policy = small.gpt2_policy(sharpness=4.0)
    reward = small.reward_model(sharpness=4.0)
    value = tfrlhf.ValueModel.from_reward(reward)
    ppo = tfrlhf.PPO(policy, reward, value)
    ppo.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-5),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        kl=tfrlhf.AdaptiveKL(target=0.01, horizon=50),
        update_epochs=1,
        minibatches=2,
        micro_batches=micro_batches,
        jit_compile=False,
    )
    record, samples = Record(), Samples()
    ppo.fit(PROMPTS, batch_size=6, callbacks=[record, samples], verbose=0)
    return {
        "steps": record.steps,
        "evaluated": evaluated(ppo, PROMPTS, 6),
        "weights": small.weights(policy) + small.weights(value),
        "responses": samples.responses,
        "kl_weights": samples.kl_weights,
    }


def train_grpo(micro_batches):
    """Groups of three, and examples to imitate beside."""
    policy = small.gpt2_policy(sharpness=4.0)
    grpo = tfrlhf.GRPO(
        policy,
        small.reward_model(sharpness=4.0),
        small.gpt2_policy(seed=5, sharpness=4.0),
    )
    grpo.compile(
        keras.optimizers.Adam(1e-3, epsilon=1e-5),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        advantage=tfrlhf.GroupRelative(3),
        minibatches=2,
        micro_batches=micro_batches,
        jit_compile=False,
    )
    record, samples = Record(), Samples()
    grpo.fit(
        # Batches of two prompts, two and one.
        PROMPTS[:5],
        batch_size=6,
        examples=EXAMPLES,
        sft_weight=0.5,
        callbacks=[record, samples],
        verbose=0,
    )
    return {
        "steps": record.steps,
        "evaluated": evaluated(grpo, PROMPTS[:5], 6),
        "weights": small.weights(policy),
        "responses": samples.responses,
        "kl_weights": samples.kl_weights,
    }


def evaluated(model, x, batch_size):
    """What is measured after training, once for each number of replicas."""
    if tf.config.functions_run_eagerly():
        return {}
    return model.evaluate(x, batch_size=batch_size)


def differences(run, first):
    """The largest differences of a run from the first one.

    Absolute, but for metrics beyond 1 (a gradient norm of 15) by their size.
    """
    logs = [
        abs(x - step[name]) / max(1.0, abs(x))
        for step, expected in zip(run["steps"], first["steps"], strict=True)
        for name, x in expected.items()
    ]
    weights = [
        np.abs(a - b).max()
        for a, b in zip(run["weights"], first["weights"], strict=True)
    ]
    kl_weights = np.subtract(
        run.get("kl_weights", 0.0), first.get("kl_weights", 0.0)
    )
    return {
        "metrics": float(max(logs)),
        "weights": float(max(weights)),
        "kl_weights": float(np.abs(kl_weights).max()),
    }


def main():
    # As in the recipes: seeds first.
    keras.utils.set_random_seed(0)
    mirrored = cli.make_strategy("mirrored:2")
    answer = {}
    for trainer, train in (
        ("sft", train_sft),
        ("reward", train_reward),
        ("dpo", train_dpo),
        ("kto", train_kto),
        ("ppo", train_ppo),
        ("grpo", train_grpo),
    ):
        runs = {}
        for name, (count, micro_batches) in RUNS.items():
            if trainer not in ASKED.get(name, (trainer,)):
                continue
            strategy = mirrored if count == 2 else tf.distribute.get_strategy()
            tf.config.run_functions_eagerly(name in UNTRACED)
            with strategy.scope():
                runs[name] = train(micro_batches)
        for run in runs.values():
            run["differences"] = differences(run, runs["one"])
        for run in runs.values():
            del run["weights"]
        answer[trainer] = runs
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
