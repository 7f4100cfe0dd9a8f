"""What a policy learns from a minibatch of experience."""

from typing import Any

import tensorflow as tf

from tfrlhf import losses
from tfrlhf.models.trainable import BatchLosses
from tfrlhf.trainers.engine import RolloutEngine
from tfrlhf.trainers.example_mixing import ExampleBatches
from tfrlhf.trainers.example_mixing import MixedExperience
from tfrlhf.trainers.example_mixing import cross_entropy
from tfrlhf.trainers.example_mixing import learnt
from tfrlhf.trainers.learner_metrics import policy_metrics
from tfrlhf.trainers.learner_metrics import value_metrics
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput
from tfrlhf.types import Tensor


class PolicyLearner(RolloutEngine):
    """The losses of policy and value model, and the variables they move.

    Needs the `objective` and `value_optimizer` of a compiled trainer.
    """

    value_optimizer: Any = None
    examples: ExampleBatches | None = None

    loss_name = "loss/total"

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The metrics of a minibatch, of the losses that are in use."""
        names: tuple[str, ...] = (
            "loss/total",
            "loss/policy",
            "policy/clipfrac",
            "policy/approx_kl",
            "policy/entropy",
        )
        if self.objective.value_weight > 0.0:
            names += ("loss/value", "value/clipfrac")
        if self.objective.kl_weight > 0.0:
            names += ("loss/kl",)
        return names + (("loss/sft",) if self.examples else ())

    def learner_variables(self) -> list[Any]:
        """Returns the variables of policy and value model, each once."""
        variables = list(self.policy.trainable_variables)
        if self.value is not None:
            known = {id(v) for v in variables}
            variables += [
                v for v in self.value.trainable_variables if id(v) not in known
            ]
        return variables

    def optimizer_groups(self) -> list[tuple[Any, list[Any]]]:
        """Returns optimizers with the variables that each of them trains."""
        if self.value_optimizer is None:
            return super().optimizer_groups()
        count = len(self.policy.trainable_variables)
        variables = self.learner_variables()
        return [
            (self.optimizer, variables[:count]),
            (self.value_optimizer, variables[count:]),
        ]

    def batch_weights(self, batch: Experience | MixedExperience) -> Tensor:
        """Returns what every response token weighs, see `PPOLoss.mean_over`."""
        if isinstance(batch, MixedExperience):
            batch = batch.experience
        mask = tf.cast(batch.response_mask, tf.float32)
        if self.objective.mean_over == "tokens":
            return mask
        length = tf.reduce_sum(mask, axis=-1, keepdims=True)
        if self.objective.mean_over == "responses":
            return tf.math.divide_no_nan(mask, length)
        limit = float(self.sampler.max_new_tokens or 1)
        # Every response weighs 1: what it leaves of the limit lies on the
        # first token, which is of the prompt and has no loss.
        rest = tf.where(length > 0.0, 1.0 - length / limit, 0.0)
        weights = mask / limit
        return tf.concat([weights[:, :1] + rest, weights[:, 1:]], axis=1)

    def batch_losses(self, batch: Experience, training: bool) -> BatchLosses:
        """Computes the PPO loss of every response token, dropout off."""
        output = self._policy_output(batch)
        metrics = policy_metrics(self.objective, batch, output)
        if self.objective.value_weight > 0.0:
            metrics |= value_metrics(self.objective, batch, output.values)
        return self._terms(batch, self.objective(batch, output), metrics)

    def loss_terms(self) -> list[tuple[Any, list[Any]]]:
        """Takes policy and value loss apart where they share no variable."""
        apart = (
            self.value is not None
            and not self.value.shares_trunk
            and type(self.objective) is losses.PPOLoss
            and type(self).batch_losses is PolicyLearner.batch_losses
            and self.objective.value_weight > 0.0
        )
        if not apart:
            return super().loss_terms()
        variables = self.learner_variables()
        count = len(self.policy.trainable_variables)
        return [
            (self._policy_losses, variables[:count]),
            (self._value_losses, variables[count:]),
        ]

    def _part_gradients(
        self, part: Experience | MixedExperience, count: Tensor
    ) -> tuple[list[Tensor], dict[str, tuple[Tensor, Tensor]]]:
        """See `TrainableModel`; examples add to what experience gave."""
        if not isinstance(part, MixedExperience):
            return super()._part_gradients(part, count)
        gradients, sums = super()._part_gradients(part.experience, count)
        variables = self.policy.trainable_variables
        with tf.control_dependencies(gradients), tf.GradientTape() as tape:
            where = self.positions(learnt(part.examples))
            terms = cross_entropy(self.policy, part.examples, where)
            loss = tf.reduce_sum(terms * part.weight[:, None])
        found = tape.gradient(
            loss,
            [v.value for v in variables],
            unconnected_gradients="zero",
        )
        for i, gradient in enumerate(found):
            gradients[i] += tf.convert_to_tensor(gradient)
        total, weight = sums[self.loss_name]
        sums[self.loss_name] = (total + loss * count, weight)
        tokens = tf.cast(tf.reduce_sum(learnt(part.examples)), tf.float32)
        sums["loss/sft"] = (tf.reduce_sum(terms), tokens)
        return gradients, sums

    def _policy_losses(self, batch: Experience, training: bool) -> BatchLosses:
        config = self.objective.get_config() | {"value_weight": 0.0}
        objective = losses.PPOLoss.from_config(config)
        output = self._policy_output(batch, with_values=False)
        metrics = policy_metrics(objective, batch, output)
        return self._terms(batch, objective(batch, output), metrics)

    def _value_losses(self, batch: Experience, training: bool) -> BatchLosses:
        value: Any = self.value
        values = value.call(
            batch.token_ids,
            batch.padding_mask,
            where=self.positions(batch.response_mask),
        )
        metrics = value_metrics(self.objective, batch, values)
        terms = self.objective.value_weight * metrics["loss/value"]
        return self._terms(batch, terms, metrics)

    def _terms(
        self, batch: Experience, terms: Tensor, metrics: dict[str, Tensor]
    ) -> BatchLosses:
        mask = tf.cast(batch.response_mask, tf.float32)
        count = tf.reduce_sum(mask)
        sums = {n: (tf.reduce_sum(x * mask), count) for n, x in metrics.items()}
        return BatchLosses(terms, self.batch_weights(batch), sums)

    def _policy_output(
        self, batch: Experience, with_values: bool = True
    ) -> PolicyOutput:
        seen, values = self.statistics_and_values(
            batch.token_ids,
            batch.padding_mask,
            self.positions(batch.response_mask),
            self.objective.entropy_weight > 0.0,
            with_values,
        )
        # Elsewhere nothing was asked for: a ratio of 1 there.
        log_probs = tf.where(
            batch.response_mask > 0, seen.log_probs, batch.old_log_probs
        )
        return PolicyOutput(log_probs, values, seen.entropy)
