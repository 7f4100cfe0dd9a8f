"""The scoring phase of policy optimisation: what a reward says of responses."""

from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfrlhf import data
from tfrlhf import ops
from tfrlhf.models.ensemble import RewardEnsemble
from tfrlhf.models.policy import Policy
from tfrlhf.models.process_reward import ProcessRewardModel
from tfrlhf.models.start_check import SetupError
from tfrlhf.models.trainable import TrainableModel
from tfrlhf.rollout import REWARD_MODELS
from tfrlhf.rollout import Reward
from tfrlhf.rollout import ScoreRule
from tfrlhf.rollout import as_columns
from tfrlhf.rollout import call_reward
from tfrlhf.rollout import part_metrics
from tfrlhf.rollout import scores_ids
from tfrlhf.rollout import with_end
from tfrlhf.trainers import replicas
from tfrlhf.types import Completions
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor


class Judgement(NamedTuple):
    """What a reward says of B responses.

    Attributes:
        scores: float32 [B], 0 for an empty response.
        step_rewards: float32 [B, S], what of the scores lies where steps end;
            0 of rewards that give one number a response.
        metrics: means over the responses that are not empty, by the names of
            docs/metrics.md; of some rewards only.
    """

    scores: Tensor
    step_rewards: Tensor
    metrics: dict[str, float]


class ScoringEngine(TrainableModel):
    """Policy and reward with the phase that scores responses.

    Args:
        policy: the `Policy` to train, in place.
        reward: see `PPO`.
    """

    def __init__(self, policy: Policy, reward: Reward) -> None:
        super().__init__(name="ppo")
        self.policy = policy
        self.reward = reward
        self.reward_model: Any = (
            reward if isinstance(reward, REWARD_MODELS) else None
        )
        if self.reward_model is not None:
            freeze("reward", self.reward_model, policy)
        self.reward_reads_ids = scores_ids(reward, policy)
        self.rewards_steps = isinstance(reward, ProcessRewardModel)
        if self.rewards_steps and not self.reward_reads_ids:
            raise SetupError(
                "A ProcessRewardModel rewards single tokens, for which it must "
                "have the policy's tokenizer: make it from this policy, or "
                "give its `as_function()`, which scores the last step alone."
            )
        self.score_rules: tuple[ScoreRule, ...] = ()

    def score(
        self,
        records: list[dict[str, Any]],
        responses: list[str],
        completions: Completions,
        batch_size: int = 1,
    ) -> Tensor:
        """Returns the scores of `judge`, float32 [B]."""
        return self.judge(records, responses, completions, batch_size).scores

    def judge(
        self,
        records: list[dict[str, Any]],
        responses: list[str],
        completions: Completions,
        batch_size: int = 1,
    ) -> Judgement:
        """Scores completions with the reward.

        Args:
            records: B records `{"prompt": ..., **columns}`.
            responses: B strings.
            completions: `Completions` of B rows, for a reward model that has
                the policy's tokenizer.
            batch_size: what a short batch is padded to.

        Returns:
            `Judgement`.
        """
        if self.reward_reads_ids:
            scores, steps, apart = self.read(completions, batch_size)
        else:
            scores, apart = self._read_text(records, responses)
            steps = tf.zeros(completions.token_ids.shape)
        for rule in self.score_rules:
            scores = rule(scores, completions)
        present = tf.reduce_max(completions.response_mask, axis=-1)
        metrics = part_metrics(self.reward, completions)
        if isinstance(self.reward_model, RewardEnsemble):
            mean = ops.masked_mean(apart, present)
            metrics["objective/disagreement"] = float(mean)
        return Judgement(tf.where(present > 0, scores, 0.0), steps, metrics)

    def read(
        self, seen: Completions | Rollout, batch_size: int = 1
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs a reward model over the policy's ids.

        Args:
            seen: `Completions` or `Rollout` of B rows.
            batch_size: what a short batch is padded to.

        Returns:
            Scores float32 [B], step rewards [B, S], and how far the members
            of an ensemble are apart [B].
        """
        limit = self.reward_model.context_length
        token_ids, padding_mask, response_mask = seen[:3]
        width = response_mask.shape[1]
        if not self.rewards_steps:
            eos_id = self.policy.need_tokenizer().eos_id
            token_ids, padding_mask = with_end(seen, eos_id)
        # A response that fills the context has no room for its end.
        rows = tuple(
            x[:, :limit] for x in (token_ids, padding_mask, response_mask)
        )
        scores, steps, apart = self.run_phase("score", rows, batch_size)
        return (
            scores,
            tf.pad(steps, [[0, 0], [0, width - steps.shape[1]]]),
            apart,
        )

    def run_phase(self, phase: str, rows: Any, batch_size: int) -> Any:
        """Runs a compiled phase on every replica.

        Args:
            phase: "rollout", "score" or "collect".
            rows: a tuple of tensors with the same first axis N.
            batch_size: what a short batch is padded to.

        Returns:
            The results of all N rows, in order.
        """

        def run() -> Any:
            return replicas.on_replicas(
                self.distribute_strategy,
                getattr(self, f"_{phase}_function"),
                rows,
                batch_size,
                # Nothing in it needs a replica.
                xla=phase == "rollout" and self.compilers[phase],
            )

        make = getattr(self, f"_compile_{phase}")
        sizes = batch_size, [tuple(x.shape) for x in rows]
        self.choose_compiler(phase, make, run, sizes)
        if phase != "rollout":
            count = max(replicas.row_count(rows), batch_size)
            self.trace_once(
                *(phase, getattr(self, f"_{phase}_function")),
                lambda: [
                    tf.TensorSpec([count, None][: x.shape.rank], x.dtype)
                    for x in rows
                ],
            )
        return run()

    def _compile_score(self) -> None:
        if self.reward_model is not None:
            self._score_function = self._compiled(self._scores, "score")

    def prompt_texts(self, records: list[dict[str, Any]]) -> list[str]:
        """Returns the prompts of records as the policy reads them."""
        prompts = [record["prompt"] for record in records]
        return data.prompt_texts(prompts, self.policy.need_tokenizer())

    def _scores(
        self, token_ids: Tensor, padding_mask: Tensor, response_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        model = self.reward_model
        if self.rewards_steps:
            steps = model.step_rewards(token_ids, padding_mask, response_mask)
            scores = tf.reduce_sum(steps, axis=-1)
            return scores, steps, tf.zeros_like(scores)
        steps = tf.zeros_like(response_mask, tf.float32)
        if isinstance(model, RewardEnsemble):
            each = model.each_score(token_ids, padding_mask)
            return model.reduced(each), steps, tf.math.reduce_std(each, axis=0)
        scores = model.call(token_ids, padding_mask)
        return scores, steps, tf.zeros_like(scores)

    def _read_text(
        self, records: list[dict[str, Any]], responses: list[str]
    ) -> tuple[Tensor, Tensor]:
        """Returns scores, and how far members are apart; float32 [B]."""
        prompts, columns = as_columns(records)
        reward: Any = self.reward
        if self.reward_model is None:
            prompts = self.prompt_texts(records)
        else:
            # It writes messages by a template of its own.
            reward = self.reward_model.as_function()
        scores = call_reward(reward, prompts, responses, columns)
        apart = getattr(reward, "disagreement", np.zeros_like(scores))
        return tf.constant(scores), tf.constant(apart)


def freeze(name: str, frozen: keras.Model, policy: Policy) -> None:
    """Freezes a model, or refuses one whose freezing would freeze the policy.

    Args:
        name: what the model is, for the message.
        frozen: the model.
        policy: the policy to train.

    Raises:
        SetupError: they share variables.
    """
    trained = {id(variable) for variable in policy.trainable_variables}
    if any(id(variable) in trained for variable in frozen.variables):
        raise SetupError(
            f"The {name} shares variables with the policy, which could not "
            "train then: give it weights of its own, as `frozen_copy` and "
            "`from_policy` do."
        )
    frozen.trainable = False
