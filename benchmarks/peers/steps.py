"""Training steps of TRL 1.16's SFTTrainer, RewardTrainer and DPOTrainer."""

import tempfile
import time
from collections.abc import Mapping
from typing import Any

import trl
from datasets import Dataset
from transformers import TrainerCallback

from benchmarks import shapes
from benchmarks.peers import models
from benchmarks.turns import Finished
from benchmarks.turns import Turns

BATCHES = 8
WARM_UP = 3


class Steps(TrainerCallback):
    """Holds training between steps until it is its turn."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.left = WARM_UP
        self.start = 0.0

    def on_step_begin(
        self, args: Any, state: Any, control: Any, **_: Any
    ) -> None:
        """The step begins; its batch has been fetched."""
        self.start = time.perf_counter()

    def on_step_end(
        self, args: Any, state: Any, control: Any, **_: Any
    ) -> None:
        """Reports the step that ended and waits for the next."""
        taken = time.perf_counter() - self.start
        self.left -= 1
        if self.left < 0:
            self.turns.report({"step": taken})
        if self.left <= 0 and not self.turns.wait(models.awaken):
            raise Finished


def run(
    turns: Turns,
    shape: str,
    trainer: str,
    precompute: bool = True,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes a training step a turn.

    Args:
        turns: the driver.
        shape: a batch of which are examples, or pairs.
        trainer: "sft", "reward" or "dpo".
        precompute: whether DPO runs its reference before training; TRL's
            default is to run it in every step.
        changes: fields of the shape.
    """
    size = shapes.find(shape, changes)
    with tempfile.TemporaryDirectory() as directory:
        common = {
            "output_dir": directory,
            "per_device_train_batch_size": size.batch,
            "learning_rate": shapes.LEARNING_RATE,
            "num_train_epochs": 10**4,
            "bf16": False,
            "use_cpu": True,
            "gradient_checkpointing": False,
            "max_length": None,
            "save_strategy": "no",
            "report_to": "none",
            "disable_tqdm": True,
        }
        if trainer == "sft":
            made = sft(size, common)
        elif trainer == "reward":
            made = reward(size, common)
        else:
            common["precompute_ref_log_probs"] = precompute
            made = dpo(size, common)
        made.add_callback(Steps(turns))
        made.train()


def sft(size: shapes.Shape, settings: dict[str, Any]) -> trl.SFTTrainer:
    """Learns the responses of prompts."""
    ids = models.random_ids(size, BATCHES * size.batch, size.length)
    mask = [0] * size.prompt + [1] * size.response
    rows = {"input_ids": ids.tolist(), "completion_mask": [mask] * len(ids)}
    return trl.SFTTrainer(
        models.language_model(size),
        trl.SFTConfig(completion_only_loss=True, **settings),
        train_dataset=Dataset.from_dict(rows),
        processing_class=models.tokenizer(size),
    )


def reward(size: shapes.Shape, settings: dict[str, Any]) -> trl.RewardTrainer:
    """Learns which of two sequences is better."""
    count = BATCHES * size.batch
    ids = models.random_ids(size, 2 * count, size.length).tolist()
    rows = {"chosen_ids": ids[:count], "rejected_ids": ids[count:]}
    return trl.RewardTrainer(
        models.scalar_model(size, pad=True),
        trl.RewardConfig(**settings),
        train_dataset=Dataset.from_dict(rows),
        processing_class=models.tokenizer(size),
    )


def dpo(size: shapes.Shape, settings: dict[str, Any]) -> trl.DPOTrainer:
    """Learns which of two responses is better."""
    count = BATCHES * size.batch
    prompts = models.texts(size, count, size.prompt)
    # TRL wants the end token after a response.
    end = f" t{size.vocabulary - 1}"
    chosen, rejected = (
        [f" {x}{end}" for x in models.texts(size, count, size.response - 1, i)]
        for i in (1, 2)
    )
    rows = {"prompt": prompts, "chosen": chosen, "rejected": rejected}
    return trl.DPOTrainer(
        models.language_model(size),
        models.language_model(size),
        trl.DPOConfig(**settings),
        train_dataset=Dataset.from_dict(rows),
        processing_class=models.tokenizer(size),
    )
