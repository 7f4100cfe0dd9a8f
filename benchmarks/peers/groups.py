"""Iterations of TRL 1.16's RLOOTrainer and GRPOTrainer."""

import tempfile
from collections.abc import Mapping
from typing import Any

import trl
from datasets import Dataset
from transformers import AutoModelForCausalLM

from benchmarks import shapes
from benchmarks.peers import models
from benchmarks.peers.steps import Steps
from benchmarks.turns import Turns

TRAINERS = {
    "rloo": (trl.RLOOTrainer, trl.RLOOConfig),
    "grpo": (trl.GRPOTrainer, trl.GRPOConfig),
}
# The weight of the KL, of the paper; without it TRL has no reference.
BETA = 0.04


def reward(completions: list[str], **_: Any) -> list[float]:
    """Scores that cost next to nothing."""
    return [float(len(c) % 7) for c in completions]


def run(
    turns: Turns,
    shape: str,
    trainer: str,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes an iteration a turn; sampling is a part of TRL's step."""
    size = shapes.find(shape, changes)
    kind, config = TRAINERS[trainer]
    texts = models.texts(size, 8 * size.batch, size.prompt)
    with tempfile.TemporaryDirectory() as directory:
        arguments = config(
            output_dir=directory,
            per_device_train_batch_size=size.batch,
            gradient_accumulation_steps=1,
            num_generations=shapes.GROUP,
            max_completion_length=size.response,
            temperature=1.0,
            beta=BETA,
            learning_rate=shapes.LEARNING_RATE,
            num_train_epochs=10**4,
            bf16=False,
            use_cpu=True,
            gradient_checkpointing=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        # Its reference is read from where the policy came from.
        models.language_model(size, pad=True).save_pretrained(directory)
        made = kind(
            AutoModelForCausalLM.from_pretrained(directory),
            reward_funcs=reward,
            args=arguments,
            train_dataset=Dataset.from_dict({"prompt": texts}),
            processing_class=models.tokenizer(size),
        )
        made.add_callback(Steps(turns))
        made.train()
