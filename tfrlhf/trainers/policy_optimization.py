"""Proximal policy optimisation of a language model.

`PPO.fit` is a Python loop between compiled phases: sample, score, look at the
samples with policy, reference and value model, turn scores into advantages,
update. So the reward may be any Python function.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrlhf import checks
from tfrlhf import data
from tfrlhf import losses
from tfrlhf import ops
from tfrlhf.models import start_check
from tfrlhf.models.compilation import JitCompile
from tfrlhf.models.sampler import Sampler
from tfrlhf.rollout import GAE
from tfrlhf.rollout import ScoreRule
from tfrlhf.rollout import make_experience
from tfrlhf.rollout import rollout_metrics
from tfrlhf.rollout import rollout_rewards
from tfrlhf.rollout import sampler_gap
from tfrlhf.rollout import value_metrics
from tfrlhf.trainers import replicas
from tfrlhf.trainers import rollout_check
from tfrlhf.trainers.engine import Iteration
from tfrlhf.trainers.engine import check_sampler
from tfrlhf.trainers.example_mixing import ExampleBatches
from tfrlhf.trainers.kl_control import AdaptiveKL
from tfrlhf.trainers.kl_control import FixedKL
from tfrlhf.trainers.minibatches import minibatch_rows
from tfrlhf.trainers.policy_learner import PolicyLearner
from tfrlhf.trainers.prompt_batches import PromptBatches
from tfrlhf.types import Examples
from tfrlhf.types import Experience
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor


class PPO(PolicyLearner):
    """Trains a policy to score well without leaving its reference.

    Clipped policy and value losses (https://arxiv.org/abs/1707.06347) on
    rewards with a KL penalty per token (https://arxiv.org/abs/1909.08593).

    Args:
        policy: the `Policy` to train, in place.
        reward: a `RewardModel` or `RewardEnsemble`, which are frozen, or
            `(prompts, responses, **columns) -> list[float]` on text. Of a
            `ProcessRewardModel` every step has its reward where it ends, and
            their sum is the score.
        value: `ValueModel`, trained in place; None for estimators without.
        reference: what the KL is measured against; None takes a frozen copy
            of the policy as it is now.

    Example:
        >>> ppo = PPO(policy, reward=lambda prompts, responses: [
        ...     -float(len(r)) for r in responses
        ... ], value=ValueModel.from_policy(policy))
        >>> ppo.compile("adam", sampler=Sampler(max_new_tokens=24))
        >>> ppo.fit(["Once upon a time"] * 64, batch_size=32)
    """

    def compile(  # type: ignore[override]
        self,
        optimizer: Any = "adam",
        loss: losses.PPOLoss | None = None,
        *,
        sampler: Sampler,
        advantage: Any = None,
        kl: AdaptiveKL | FixedKL | None = None,
        update_epochs: int = 4,
        minibatches: int = 1,
        micro_batches: int = 1,
        clip_norm: float | None = 1.0,
        value_optimizer: Any = None,
        score_rules: Sequence[ScoreRule] = (),
        jit_compile: JitCompile = "auto",
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: `PPOLoss`; None takes its defaults.
            sampler: how responses are drawn; needs `max_new_tokens`.
            advantage: the estimator; None is `GAE()`.
            kl: the KL weight; None is `AdaptiveKL(target=6.0)`.
            update_epochs: passes over each rollout.
            minibatches: optimizer steps of a pass.
            micro_batches: parts a minibatch is cut into to save memory.
            clip_norm: largest global norm of the gradient; None for no limit.
            value_optimizer: for the value model alone; None trains it with
                the policy.
            score_rules: functions (scores [B], `Completions`) to scores [B],
                applied in order to what the reward gave.
            jit_compile: whether XLA compiles the phases, or a dict that says
                it of some of "rollout", "score", "collect" and "update";
                "auto" decides by the device, "measure" by trying both in the
                first iteration, see `TrainableModel.compile`.

        Raises:
            ValueError: a setting under which the learner's log-probabilities
                are not the sampler's, or that cannot be.
        """
        check_sampler(sampler)
        for name, number in (
            ("update_epochs", update_epochs),
            ("minibatches", minibatches),
        ):
            if number < 1:
                raise ValueError(
                    f"`{name}` must be at least 1. Received: {name}={number}"
                )
        self.advantage = advantage or GAE()
        self.group_size = int(getattr(self.advantage, "group_size", 1))
        self.kl = kl or AdaptiveKL(target=6.0)
        self.update_epochs = update_epochs
        self.minibatches = minibatches
        self.value_optimizer = None
        if value_optimizer is not None:
            if self.value is None or self.value.shares_trunk:
                raise ValueError(
                    "`value_optimizer` needs a value model with a trunk of "
                    "its own: leave it out, or give `PPO(value=...)` one."
                )
            self.value_optimizer = self.checked_optimizer(value_optimizer)
        if loss is not None and self.value is None:
            config = loss.get_config() | {"value_weight": 0.0}
            loss = type(loss).from_config(config)
        super().compile(
            optimizer,
            loss,
            micro_batches=micro_batches,
            clip_norm=clip_norm,
            jit_compile=jit_compile,
        )
        self.state.kl_weight.assign(self.kl.initial)
        self.score_rules = tuple(score_rules)
        self.start_is_unchecked = False
        self.compile_phases(sampler)
        self._experience_function = self._compiled(self._experience)

    def default_loss(self) -> losses.PPOLoss:
        """Returns the clipped loss with its usual weights."""
        weight = 0.0 if self.value is None else 0.1
        return losses.PPOLoss(value_weight=weight)

    def fit(  # type: ignore[override]
        self,
        prompts: Sequence[Any],
        *,
        batch_size: int = 64,
        epochs: int = 1,
        initial_epoch: int = 0,
        seed: int = 0,
        callbacks: Any = None,
        validation_data: Sequence[Any] | None = None,
        examples: Any = None,
        sft_weight: float = 1.0,
        verbose: int | str = "auto",
    ) -> keras.callbacks.History:
        """Optimises the policy; a batch is one iteration.

        Args:
            prompts: strings or lists of messages ({"role", "content"}), or
                records `{"prompt": ..., **columns}` with one of them. The
                reward function gets the columns, and of messages the text of
                the chat template in `prompts` and themselves in `messages`.
            batch_size: episodes of an iteration, over all replicas; of an
                estimator with groups, whole groups.
            epochs: the total number of passes over the prompts.
            initial_epoch: the epoch to go on from.
            seed: int; samples, prompt order and minibatches follow from it.
            callbacks: Keras callbacks.
            validation_data: prompts to `evaluate` after every epoch.
            examples: what `SFT.fit` takes as records, or `Examples`, to be
                imitated beside: every minibatch has as many of them as
                episodes, by (seed, iteration, place in the iteration); PTX,
                section 3.5 of https://arxiv.org/abs/2203.02155.
            sft_weight: of the mean cross-entropy of a token of the examples
                in the loss.
            verbose: as in Keras.

        Returns:
            Keras' `History`.
        """
        self._assert_compile_called("fit")
        if batch_size % self.group_size:
            raise ValueError(
                f"`batch_size` is {batch_size}, which makes no whole groups of "
                f"{self.group_size} responses: give a multiple."
            )
        batches = PromptBatches(prompts, batch_size // self.group_size, seed)
        self.check_prompts(batches.records)
        if validation_data is not None:
            validated = PromptBatches(validation_data, batch_size, seed)
            self.check_prompts(validated.records)
        monitor = keras.callbacks.CallbackList(
            callbacks,
            add_history=True,
            add_progbar=verbose != 0,
            verbose=1 if verbose == "auto" else verbose,
            epochs=epochs,
            steps=len(batches),
            model=self,
        )
        self.take_examples(examples, sft_weight)
        rollout_check.check_models(self)
        self.start_is_unchecked = True
        self.state.seed.assign(seed)
        self.stop_training = False
        logs: dict[str, float] = {}
        monitor.on_train_begin()
        for epoch in range(initial_epoch, epochs):
            self.state.epoch.assign(epoch)
            monitor.on_epoch_begin(epoch)
            for step, records in enumerate(batches.epoch(epoch)):
                self.state.position.assign(step)
                monitor.on_train_batch_begin(step)
                logs = self.iterate(records, batch_size)
                monitor.on_train_batch_end(step, logs)
                if self.stop_training:
                    break
            if validation_data is not None:
                measured = self.evaluate(validation_data, batch_size=batch_size)
                logs |= {f"val_{name}": x for name, x in measured.items()}
            monitor.on_epoch_end(epoch, logs)
            if self.stop_training:
                break
        monitor.on_train_end(logs)
        return self.history

    def take_examples(self, examples: Any, sft_weight: float) -> None:
        """Keeps what every update imitates beside.

        Args:
            examples: see `fit`; None for nothing.
            sft_weight: see `fit`.

        Raises:
            ValueError: the weight is negative, or nothing is to be learnt.
        """
        checks.within("sft_weight", sft_weight, 0.0)
        self.examples = None
        if examples is None:
            return
        if not isinstance(examples, Examples):
            tokenizer = self.policy.need_tokenizer()
            length = self.policy.context_length
            examples = data.examples(examples, tokenizer, length)
        self.examples = ExampleBatches(examples, sft_weight)
        with self.distribute_strategy.scope():
            self._means["loss/sft"] = keras.metrics.Mean("loss/sft")

    def iterate(
        self, records: list[dict[str, Any]], batch_size: int
    ) -> dict[str, float]:
        """Makes one iteration: sample, score, look, update.

        Args:
            records: the prompts, `{"prompt": ..., **columns}`, each of which
                is answered as often as a group of the estimator is large.
            batch_size: what a short batch is padded to, inside the phases.

        Returns:
            The metrics of docs/metrics.md.
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
        rollout = self.collect(
            *(completions, found.scores, batch_size, found.step_rewards),
            # A first rollout tells whether it may be trusted.
            trust_sampler=self.sampler_tells and not self.start_is_unchecked,
        )
        if self.start_is_unchecked:
            rollout_check.check_rollout(self, rollout, batch_size)
        texts = self.prompt_texts(records)
        self.last_iteration = Iteration(texts, responses, rollout)
        experience, rewards, metrics = self._experience_function(
            replicas.with_absent_rows(rollout, max(len(records), batch_size)),
            tf.constant(self.state.kl_weight.numpy()),
        )
        metrics |= self.update(experience, batch_size, rewards)
        logs = {name: float(x) for name, x in metrics.items()}
        logs |= found.metrics
        self.state.kl_weight.assign(
            self.kl.next_weight(
                float(self.state.kl_weight.numpy()),
                logs["objective/kl"],
                len(records),
            )
        )
        self.state.iteration.assign_add(1)
        return logs

    def update(
        self,
        experience: Experience,
        batch_size: int = 1,
        rewards: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Makes `update_epochs` passes of `minibatches` optimizer steps.

        Fewer, if the KL control has a `stop` and the policy went that far.

        Args:
            experience: `Experience` of B rows.
            batch_size: what a short batch is padded to; the padding counts
                nowhere.
            rewards: float32 [B, S], for an estimator with `when="minibatch"`;
                None keeps the advantages of the experience.

        Returns:
            The means of the losses and metrics over the passes.
        """
        rows = max(int(experience.token_ids.shape[0]), batch_size)
        strategy = self.distribute_strategy
        # The cut does not depend on the replicas, or their number would show.
        size = -(-rows // self.minibatches)
        even = replicas.round_up(size, strategy.num_replicas_in_sync)
        self.make_train_function()
        self.reset_metrics()
        logs: dict[str, Tensor] = {}
        mask, draw = np.asarray(experience.response_mask), self.state.draw()
        for epoch in range(self.update_epochs):
            chosen_rows = minibatch_rows(mask, self.minibatches, (*draw, epoch))
            for place, chosen in enumerate(map(tf.constant, chosen_rows)):
                batch = Experience(*(tf.gather(x, chosen) for x in experience))
                if rewards is not None and self.estimates_minibatches:
                    batch = self._estimated(batch, tf.gather(rewards, chosen))
                batch = replicas.with_absent_rows(batch, even)
                mixed = self._with_examples(batch, epoch, place, size)
                part = replicas.per_replica(strategy, mixed)
                count = tf.reduce_sum(self.batch_weights(batch))
                self.choose_update_compiler(part, count)
                if self.start_is_unchecked:
                    self._check_learner(batch, part)
                logs = self.train_function(iter([part]))
                if self.kl.stop and logs["policy/approx_kl"] > self.kl.stop:
                    return logs
        return logs

    def _with_examples(
        self, batch: Experience, epoch: int, place: int, size: int
    ) -> Any:
        """Puts examples beside a minibatch of an iteration, if there are."""
        if self.examples is None:
            return batch
        seed, iteration = self.state.draw()
        step = iteration * self.update_epochs + epoch
        step = step * self.minibatches + place
        return self.examples.mixed(batch, seed, step, size)

    @property
    def estimates_minibatches(self) -> bool:
        """Whether advantages are estimated anew for every minibatch."""
        return isinstance(self.advantage, GAE) and (
            self.advantage.when == "minibatch"
        )

    def _experience(
        self, rollout: Rollout, kl_weight: Tensor
    ) -> tuple[Experience, Tensor, dict[str, Tensor]]:
        gap = sampler_gap(rollout)
        if self.sampler_tells:
            # In the first iteration as well: a run that goes on is the same.
            rollout = rollout._replace(
                log_probs=ops.zero_outside(
                    rollout.sampler_log_probs, rollout.response_mask
                )
            )
        rewards = rollout_rewards(
            rollout, kl_weight, self.kl.kind, self.kl.clip
        )
        experience = make_experience(
            rollout, rewards, self.advantage, self.value is not None
        )
        metrics = rollout_metrics(rollout, kl_weight)
        metrics["sampler/log_prob_gap"] = gap
        if self.value is not None:
            metrics |= value_metrics(experience)
        return experience, rewards, metrics

    def _estimated(self, batch: Experience, rewards: Tensor) -> Experience:
        advantages, returns = self.advantage(
            rewards, batch.old_values, batch.response_mask
        )
        return batch._replace(advantages=advantages, returns=returns)

    def _check_learner(self, batch: Experience, part: Any) -> None:
        """Refuses a first minibatch from which the policy would go astray."""
        means, norms = start_check.probe(
            self, part, tf.reduce_sum(self.batch_weights(batch))
        )
        rollout_check.check_ratio(self, float(means["policy/approx_kl"]))
        # Scores that are all the same teach nothing, and do no harm.
        if np.any(batch.advantages):
            start_check.check_reached(norms)
        self.start_is_unchecked = False
