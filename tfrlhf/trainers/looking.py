"""What policy, reference and value model say of responses, compiled."""

from typing import Any

import tensorflow as tf

from tfrlhf import ops
from tfrlhf.models.output_head import head_statistics
from tfrlhf.models.policy import Policy
from tfrlhf.models.reference import frozen_copy
from tfrlhf.models.sampler import Sampler
from tfrlhf.models.statistics import TokenStatistics
from tfrlhf.models.value import ValueModel
from tfrlhf.rollout import Reward
from tfrlhf.trainers.scoring import ScoringEngine
from tfrlhf.trainers.scoring import freeze
from tfrlhf.types import Completions
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor


class LookingEngine(ScoringEngine):
    """The phase that looks at responses with the models.

    Args:
        policy: see `RolloutEngine`.
        reward: see there.
        value: see there.
        reference: see there.
    """

    sampler: Sampler

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        value: ValueModel | None = None,
        reference: Policy | None = None,
    ) -> None:
        super().__init__(policy, reward)
        self.value = value
        self.reference = reference or frozen_copy(policy)
        freeze("reference", self.reference, policy)

    def _compile_collect(self) -> None:
        def collect(
            token_ids: Tensor,
            padding_mask: Tensor,
            response_mask: Tensor,
            known: Tensor,
            is_known: Tensor,
        ) -> Any:
            rows = token_ids, padding_mask, response_mask
            where = self.positions(response_mask, "collect")
            if self.shares_trunk or where is None:
                seen, values = self.statistics_and_values(*rows[:2], where)
                found = ops.zero_outside(seen.log_probs, response_mask)
            else:
                values = self.values(*rows[:2], where)
                # At least one row, to keep a watch on what is known.
                asked = tf.concat([[0], is_known[1:]], axis=0) == 0
                found = tf.tensor_scatter_nd_update(
                    known,
                    tf.where(asked),
                    log_probs(*(tf.boolean_mask(x, asked) for x in rows)),
                )
            return (
                found,
                self._response_log_probs(self.reference, *rows),
                ops.zero_outside(values, response_mask),
            )

        def log_probs(*rows: Tensor) -> Tensor:
            return self._response_log_probs(self.policy, *rows)

        self._log_probs_function = self._compiled(log_probs, "collect")
        self._collect_function = self._compiled(collect, "collect")

    def collect(
        self,
        completions: Completions,
        scores: Tensor,
        batch_size: int = 1,
        step_rewards: Tensor | None = None,
        trust_sampler: bool = False,
    ) -> Rollout:
        """Looks at completions with policy, reference and value model.

        Args:
            completions: `Completions` of B rows.
            scores: float32 [B].
            batch_size: what a short batch is padded to.
            step_rewards: float32 [B, S], what of the scores lies where steps
                end; None for nothing.
            trust_sampler: takes the sampler's log-probabilities for the
                policy's, but for those of one row a replica, where no pass of
                the policy is needed for something else.

        Returns:
            `Rollout`.
        """
        log_probs, ref_log_probs, values = self.look(
            completions.token_ids,
            completions.padding_mask,
            completions.response_mask,
            batch_size,
            completions.sampler_log_probs if trust_sampler else None,
        )
        return Rollout(
            *completions,
            log_probs=log_probs,
            ref_log_probs=ref_log_probs,
            values=values,
            scores=scores,
            step_rewards=(
                tf.zeros_like(log_probs)
                if step_rewards is None
                else step_rewards
            ),
        )

    def look(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        response_mask: Tensor,
        batch_size: int = 1,
        known: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Runs policy, reference and value model over sequences.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            response_mask: int32 [B, S].
            batch_size: what a short batch is padded to.
            known: float32 [B, S], log-probabilities of the policy, which
                looks at one row a replica all the same; None if it has to
                look at all.

        Returns:
            Log-probabilities of policy and reference and values, all 0
            outside responses, and the values without a value model; float32
            [B, S], aligned.
        """
        is_known = tf.fill([len(token_ids)], int(known is not None))
        if known is None:
            known = tf.zeros(token_ids.shape)
        known = ops.zero_outside(known, response_mask)
        rows = token_ids, padding_mask, response_mask, known, is_known
        return self.run_phase("collect", rows, batch_size)

    @property
    def shares_trunk(self) -> bool:
        """Whether one pass serves policy and value model."""
        return self.value is not None and self.value.shares_trunk

    @property
    def sampler_tells(self) -> bool:
        """Whether the sampler's log-probabilities may stand for the policy's.

        It computes in float32 and draws from the full distribution, and no
        pass of the policy is needed for something else.
        """
        return (
            not self.shares_trunk
            and not self.compilers["collect"]
            and not self.sampler.top_k
            and self.sampler.top_p >= 1.0
            and all(
                layer.compute_dtype == "float32"
                and layer.dtype_policy.quantization_mode is None
                for layer in self.policy.model._flatten_layers()
            )
        )

    def statistics_and_values(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        where: Tensor | None,
        entropy_has_gradient: bool = False,
        with_values: bool = True,
    ) -> tuple[TokenStatistics, Tensor]:
        """Runs policy and value model, in one pass if that serves both.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            where: see `Policy.token_statistics`, also for the values.
            entropy_has_gradient: see there.
            with_values: whether a value model of its own runs, too.

        Returns:
            What the policy says of the tokens, and the values, 0 without; [B,
            S], aligned.
        """
        temperature = self.sampler.temperature
        if self.value is not None and self.value.shares_trunk:
            hidden = self.policy.hidden_states(
                token_ids, padding_mask, where=where
            )
            seen = head_statistics(
                *(self.policy.model, hidden, token_ids, temperature, where),
                entropy_has_gradient,
            )
            return seen, self.value.from_hidden(hidden)
        seen = self.policy.token_statistics(
            *(token_ids, padding_mask, temperature),
            where=where,
            entropy_has_gradient=entropy_has_gradient,
        )
        if not with_values:
            return seen, tf.zeros_like(seen.log_probs)
        return seen, self.values(token_ids, padding_mask, where)

    def values(
        self, token_ids: Tensor, padding_mask: Tensor, where: Tensor | None
    ) -> Tensor:
        """Runs the value model; float32 [B, S], 0 without one."""
        if self.value is None:
            return tf.zeros_like(token_ids, tf.float32)
        return self.value.call(token_ids, padding_mask, where=where)

    def _response_log_probs(
        self,
        policy: Policy,
        token_ids: Tensor,
        padding_mask: Tensor,
        response_mask: Tensor,
    ) -> Tensor:
        log_probs = policy.log_probs(
            token_ids,
            padding_mask,
            self.sampler.temperature,
            where=self.positions(response_mask, "collect"),
        )
        return ops.zero_outside(log_probs, response_mask)

    def response_ratios(self, rollout: Rollout) -> Tensor:
        """Returns policy now over policy then, float32 [response tokens]."""
        now = self._log_probs_function(
            rollout.token_ids, rollout.padding_mask, rollout.response_mask
        )
        ratio = tf.exp(now - rollout.log_probs)
        return tf.boolean_mask(ratio, rollout.response_mask > 0)
