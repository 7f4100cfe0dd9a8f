"""DPO on what the policy says now, judged by a reward: on PPO's engine."""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrlhf import losses
from tfrlhf.models.compilation import JitCompile
from tfrlhf.models.policy import Policy
from tfrlhf.models.sampler import Sampler
from tfrlhf.rollout import Reward
from tfrlhf.rollout import rollout_metrics
from tfrlhf.trainers import replicas
from tfrlhf.trainers import rollout_check
from tfrlhf.trainers.engine import Iteration
from tfrlhf.trainers.kl_control import FixedKL
from tfrlhf.trainers.policy_optimization import PPO
from tfrlhf.trainers.preference_optimization import DPO
from tfrlhf.types import Preferences
from tfrlhf.types import Rollout


class OnlineDPO(PPO):
    """Samples two responses a prompt and learns to prefer the better one.

    Guo et al., 2024 (https://arxiv.org/abs/2402.04792). An iteration samples,
    scores and makes one step of `DPO` on the pairs; a pair of equal scores
    teaches nothing. A batch of `fit` has two responses to half as many prompts.
    There is no value model, and no KL penalty but the loss's.

    Args:
        policy: the `Policy` to train, in place.
        reward: a `RewardModel`, or `(prompts, responses, **columns) ->
            list[float]` on text. A reward model is frozen.
        reference: the frozen `Policy` that the loss compares with; None takes
            a frozen copy of the policy as it is now.

    Example:
        >>> online = OnlineDPO(policy, reward_model)
        >>> online.compile("adam", sampler=Sampler(max_new_tokens=24))
        >>> online.fit(["Once upon a time"] * 64, batch_size=32)
    """

    def __init__(
        self, policy: Policy, reward: Reward, reference: Policy | None = None
    ) -> None:
        super().__init__(policy, reward, reference=reference)
        self.learner = DPO(policy, self.reference)

    def compile(  # type: ignore[override]
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        sampler: Sampler,
        jit_compile: JitCompile = "auto",
        **settings: Any,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: of comparisons, as of `DPO.compile`.
            sampler: how responses are drawn; needs `max_new_tokens`.
            jit_compile: as of `PPO.compile`.
            **settings: the further settings of `DPO.compile`.
        """
        super().compile(
            optimizer,
            sampler=sampler,
            kl=FixedKL(0.0),
            jit_compile=jit_compile,
        )
        self.group_size = 2
        loss = losses.DPOLoss() if loss is None else loss
        if getattr(loss, "reads_ratings", False):
            raise ValueError(
                f"OnlineDPO makes comparisons, but {type(loss).__name__} "
                "learns from single responses: give DPOLoss or another."
            )
        self.learner.compile(
            self.optimizer, loss, jit_compile=jit_compile, **settings
        )

    def take_examples(self, examples: Any, sft_weight: float) -> None:
        """Refuses examples: `compile(sft_weight=...)` is of the responses."""
        if examples is not None:
            raise ValueError(
                "OnlineDPO imitates no `examples`: leave them out, or give "
                "`compile` an `sft_weight` to imitate the better responses."
            )

    def iterate(
        self, records: list[dict[str, Any]], batch_size: int
    ) -> dict[str, float]:
        """Makes one iteration: sample two, score, compare, step.

        Args:
            records: the prompts, `{"prompt": ..., **columns}`.
            batch_size: responses that a short batch is padded to.

        Returns:
            The metrics of a rollout and of DPO.
        """
        completions = self.rollout(
            [record["prompt"] for record in records],
            self.state.draw(),
            batch_size // self.group_size,
            self.group_size,
        )
        records = [r for r in records for _ in range(self.group_size)]
        responses = self.policy.decode_responses(completions)
        found = self.judge(records, responses, completions, batch_size)
        rollout = self.collect(completions, found.scores, batch_size)
        if self.start_is_unchecked:
            rollout_check.check_rollout(self, rollout, batch_size)
            self.start_is_unchecked = False
        prompts = self.prompt_texts(records)
        self.last_iteration = Iteration(prompts, responses, rollout)
        metrics = rollout_metrics(rollout, tf.constant(0.0))
        metrics |= self._step(compared(rollout), batch_size // self.group_size)
        self.state.iteration.assign_add(1)
        return {name: float(x) for name, x in metrics.items()} | found.metrics

    def _step(self, preferences: Preferences, batch_size: int) -> Any:
        learner, strategy = self.learner, self.distribute_strategy
        batch = learner.as_carrier(preferences)
        batch = type(batch)(*(tf.convert_to_tensor(x) for x in batch))
        rows = max(int(batch.token_ids.shape[0]), batch_size)
        rows = replicas.round_up(rows, strategy.num_replicas_in_sync)
        present = tf.range(rows) < int(batch.token_ids.shape[0])
        full = replicas.padded(batch, rows)
        full = full._replace(weight=tf.where(present, full.weight, 0.0))
        learner.make_train_function()
        learner.reset_metrics()
        part = replicas.per_replica(strategy, full)
        count = tf.reduce_sum(learner.batch_weights(full))
        learner.choose_update_compiler(part, count)
        return learner.train_function(iter([part]))


def compared(rollout: Rollout) -> Preferences:
    """Ranks the two responses to each prompt by their scores.

    Args:
        rollout: `Rollout` of 2B rows, those of a prompt side by side.

    Returns:
        `Preferences` of B rows and two candidates; equal scores share a rank,
        and an empty response is absent.
    """
    ids, padding, response = (
        np.asarray(x).reshape(-1, 2, x.shape[-1])
        for x in (
            rollout.token_ids,
            rollout.padding_mask,
            rollout.response_mask,
        )
    )
    scores = np.asarray(rollout.scores).reshape(-1, 2)
    ranks = (scores < scores[:, ::-1]).astype(np.int32)
    ranks[response.sum(axis=-1) == 0] = -1
    weight = np.ones(len(scores), np.float32)
    margin = np.zeros_like(weight)
    return Preferences(ids, padding, response, ranks, weight, margin)
