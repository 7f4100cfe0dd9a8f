"""Iterations of TRL 0.24's `PPOTrainer.train()`, whole and by phase.

TRL computes everything; functions of its module are wrapped only to see when
its phases begin. What is not in a phase (advantages, metrics, the garbage
collection it asks for) is in the iteration.
"""

import tempfile
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl import PPOConfig
from trl import PPOTrainer
from trl.trainer import ppo_trainer

from benchmarks import shapes
from benchmarks.peers import models
from benchmarks.turns import Finished
from benchmarks.turns import Turns


class FreeReward(torch.nn.Module):
    """A reward model, as TRL wants one, that costs next to nothing."""

    base_model_prefix = "trunk"

    def trunk(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        """Stands for the hidden states: the ids themselves."""
        return SimpleNamespace(hidden_states=[input_ids[..., None].float()])

    def score(self, hidden: torch.Tensor) -> torch.Tensor:
        """A number in [0, 7) for each position."""
        return hidden % 7.0


class Phases(TrainerCallback):
    """Notes when phases begin; holds training between iterations."""

    def __init__(self, turns: Turns, warm_up: int, end: int) -> None:
        self.turns = turns
        self.left = warm_up
        self.end = end
        self.marks: dict[str, float] = {}
        self.responses = torch.zeros(0)
        self.generation = ppo_trainer.batch_generation
        self.forward = ppo_trainer.forward
        ppo_trainer.batch_generation = self.timed_generation
        ppo_trainer.forward = self.seen_forward

    def timed_generation(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's function; its end is where looking at the samples begins."""
        start = time.perf_counter()
        result = self.generation(*args, **kwargs)
        self.marks["rollout"] = time.perf_counter() - start
        self.responses = result[0][:, args[1].shape[1] :]
        self.marks["looked"] = time.perf_counter()
        return result

    def seen_forward(self, *args: Any, **kwargs: Any) -> Any:
        """TRL's function; the first call with gradients begins the update."""
        if torch.is_grad_enabled():
            self.marks.setdefault("updated", time.perf_counter())
        return self.forward(*args, **kwargs)

    def lengths(self) -> torch.Tensor:
        """Tokens of the responses, the end token included."""
        ends = self.responses == self.end
        before = ends.cumsum(1) - ends.long()
        return (before == 0).sum(1)

    def on_log(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The update is over."""
        self.marks["logged"] = time.perf_counter()

    def on_step_end(
        self, args: Any, state: Any, control: Any, **_: Any
    ) -> None:
        """Reports the iteration that ended and waits for the next."""
        now = time.perf_counter()
        self.left -= 1
        if self.left < 0:
            marks = self.marks
            self.turns.report(
                {
                    "iteration": now - marks["start"],
                    "rollout": marks["rollout"],
                    "collect": marks["updated"] - marks["looked"],
                    "update": marks["logged"] - marks["updated"],
                    "mean length": self.lengths().float().mean().item(),
                    "longest": self.lengths().max().item(),
                }
            )
        if self.left <= 0 and not self.turns.wait(models.awaken):
            raise Finished
        self.marks = {"start": time.perf_counter()}


def run(
    turns: Turns,
    shape: str,
    ragged: bool = False,
    warm_up: int = 2,
    changes: Mapping[str, Any] | None = None,
) -> None:
    """Makes an iteration of PPO a turn."""
    size = shapes.find(shape, changes)
    with tempfile.TemporaryDirectory() as directory:
        trainer = make(size, ragged, directory)
        end = size.vocabulary - 1 if ragged else -1
        trainer.add_callback(Phases(turns, warm_up, end))
        trainer.train()


def make(size: shapes.Shape, ragged: bool, directory: str) -> PPOTrainer:
    """Builds TRL's trainer with its defaults, in float32."""
    policy = models.language_model(size, ends=ragged)
    if ragged:
        models.end_at_random(policy, size)
    reference = models.language_model(size, ends=ragged)
    reference.load_state_dict(policy.state_dict())
    ids = models.random_ids(size, 8 * size.batch, size.prompt)
    rows = Dataset.from_dict({"input_ids": ids.tolist()})
    arguments = PPOConfig(
        output_dir=directory,
        per_device_train_batch_size=size.batch,
        per_device_eval_batch_size=size.batch,
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=4,
        total_episodes=10**7,
        response_length=size.response,
        temperature=1.0,
        stop_token="eos" if ragged else None,
        learning_rate=shapes.LEARNING_RATE,
        num_sample_generations=0,
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    return PPOTrainer(
        args=arguments,
        processing_class=models.tokenizer(size),
        model=policy,
        ref_model=reference,
        reward_model=FreeReward(),
        value_model=models.scalar_model(size),
        train_dataset=rows,
        eval_dataset=rows,
    )
