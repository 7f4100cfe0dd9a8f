"""Peak memory of training steps, each in a process of its own.

    python benchmarks/memory.py                # prints the table
    python benchmarks/memory.py --only lora    # some of its lines
    python benchmarks/memory.py --size gpt2    # 124 million parameters

Each line is the peak of resident memory over what the process had after its
imports, for random weights in the shape of GPT-2 and batches of 16 x 96.
"""

import argparse
import os
import subprocess
import sys
from typing import Any

# Layers, width, heads, vocabulary.
SIZES = {"small": (6, 384, 6, 16_384), "gpt2": (12, 768, 12, 50_257)}
BATCH, PROMPT, RESPONSE = 16, 32, 64

SCENARIOS = {
    "sft": "one SFT step",
    "sft-lora": "one SFT step with LoRA",
    "sft-remat": "one SFT step, rematerialised",
    "sft-micro": "one SFT step in 4 micro-batches",
    "sft-bfloat16": "one SFT step in mixed_bfloat16",
    "ppo": "one PPO iteration, value model and reference of their own",
    "ppo-lora": "one PPO iteration with LoRA over one backbone",
    "ppo-int8": "one PPO iteration, the reference in int8",
}


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="part of a scenario's name")
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--scenario", choices=SCENARIOS, help="run it here")
    arguments = parser.parse_args()
    if arguments.scenario:
        print(measure(arguments.scenario, arguments.size))
        return
    peaks = {}
    for name, what in SCENARIOS.items():
        if arguments.only in name:
            peaks[name] = in_a_process(name, arguments.size)
            print(f"{name:14} {peaks[name]:7.0f} MB   {what}", flush=True)
    if {"ppo-lora", "sft-lora"} <= set(peaks):
        ratio = peaks["ppo-lora"] / peaks["sft-lora"]
        print(f"ppo-lora / sft-lora: {ratio:.2f}")


def in_a_process(scenario: str, size: str) -> float:
    """Runs a scenario in a fresh process; returns megabytes."""
    command = [sys.executable, __file__, "--scenario", scenario]
    command += ["--size", size]
    environment = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"}
    answer = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=True
    )
    return float(answer.stdout.split()[-1])


def measure(scenario: str, size: str) -> float:
    """Returns the megabytes that a scenario adds at its peak."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import keras
    import tensorflow as tf

    import tfrlhf
    import tfrlhf.trainers  # noqa: F401, imports are no part of the scenario.

    before = memory("VmRSS")
    kind, _, option = scenario.partition("-")
    dtype = "mixed_bfloat16" if option == "bfloat16" else "float32"
    policy = make_policy(size, dtype)
    vocabulary = SIZES[size][-1]
    if option == "lora":
        policy.enable_lora(8)
    if option == "remat":
        policy.enable_remat()
    optimizer = keras.optimizers.Adam(1e-5)
    if kind == "sft":
        ids = tf.random.uniform(
            [BATCH, PROMPT + RESPONSE], 3, vocabulary, tf.int32
        )
        mask = tf.ones_like(ids)
        sft = tfrlhf.SFT(policy)
        micro_batches = 4 if option == "micro" else 1
        sft.compile(optimizer, micro_batches=micro_batches)
        sft.fit(
            tfrlhf.types.Examples(ids, mask, mask),
            batch_size=BATCH,
            epochs=2,
            verbose=0,
        )
    else:
        run_ppo(policy, option, optimizer, vocabulary)
    return memory("VmHWM") - before


def run_ppo(policy: Any, option: str, optimizer: Any, vocabulary: int) -> None:
    """Makes two iterations of PPO on ids."""
    import tensorflow as tf

    import tfrlhf

    value = tfrlhf.ValueModel.from_policy(policy, share_trunk=option == "lora")
    if option == "lora":
        value.enable_lora(8)
    reference = tfrlhf.frozen_copy(policy)
    if option == "int8":
        reference.quantize("int8")
    ppo = tfrlhf.PPO(policy, lambda prompts, responses: [], value, reference)
    ppo.compile(
        optimizer,
        sampler=tfrlhf.Sampler(max_new_tokens=RESPONSE, stop_token_ids=()),
    )
    ids = tf.random.uniform([BATCH, PROMPT], 3, vocabulary, tf.int32)
    prompts = tfrlhf.types.Prompts(ids, tf.ones_like(ids))
    for iteration in range(2):
        completions = ppo.rollout(prompts, seed=iteration)
        rollout = ppo.collect(completions, tf.random.normal([BATCH]))
        weight = tf.constant(0.1)
        experience, rewards, _ = ppo._experience_function(rollout, weight)
        ppo.update(experience, rewards=rewards)


def make_policy(size: str, dtype: str) -> Any:
    """Builds the model with random weights, without a tokenizer."""
    import keras_hub

    import tfrlhf

    layers, width, heads, vocabulary = SIZES[size]
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=vocabulary,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=PROMPT + RESPONSE,
        dropout=0.0,
        dtype=dtype,
    )
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return tfrlhf.Policy(model)


def memory(field: str) -> float:
    """Reads a field of /proc/self/status in megabytes."""
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return float(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


if __name__ == "__main__":
    main()
