"""The engine of policy optimisation: sample, score and look, compiled.

Knows how completions come to be; what is known of them is in `scoring.py` and
`looking.py`, how a policy learns from them further up.
"""

import warnings
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from tfrlhf import data
from tfrlhf.models.policy import Policy
from tfrlhf.models.sampler import Sampler
from tfrlhf.models.sampler import uniform_draws
from tfrlhf.models.value import ValueModel
from tfrlhf.rollout import Reward
from tfrlhf.rollout import rollout_metrics
from tfrlhf.trainers import replicas
from tfrlhf.trainers.looking import LookingEngine
from tfrlhf.trainers.prompt_batches import PromptBatches
from tfrlhf.trainers.state import TrainingState
from tfrlhf.types import Completions
from tfrlhf.types import Prompts
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor

EVALUATED = (
    "objective/scores",
    "objective/kl",
    "length/mean",
    "length/finished",
)


class Iteration(NamedTuple):
    """The last iteration of a run, for callbacks.

    Attributes:
        prompts: B strings; messages as the chat template writes them.
        responses: B strings.
        rollout: `Rollout` of B rows.
    """

    prompts: list[str]
    responses: list[str]
    rollout: Rollout


class RolloutEngine(LookingEngine):
    """Policy, reward, value model and reference with their compiled phases.

    Args:
        policy: the `Policy` to train, in place.
        reward: a `RewardModel` or `RewardEnsemble`, which are frozen, or
            `(prompts, responses, **columns) -> list[float]` on text.
        value: `ValueModel`, trained in place; None for estimators without.
        reference: what the KL is measured against; None takes a frozen copy
            of the policy as it is now.
    """

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        value: ValueModel | None = None,
        reference: Policy | None = None,
    ) -> None:
        super().__init__(policy, reward, value, reference)
        self.state = TrainingState()
        self.last_iteration: Iteration | None = None
        self.built = True

    def compile_phases(self, sampler: Sampler) -> None:
        """Makes the compiled phases, as `compilers` says.

        Args:
            sampler: how responses are drawn; needs `max_new_tokens`.
        """
        self.sampler = sampler
        self._compile_rollout()
        self._compile_collect()
        self._compile_score()

    def _compile_rollout(self) -> None:
        self._decoder = self.policy.decoder(
            self.sampler, lambda function: self._compiled(function, "rollout")
        )

        def rollout(
            token_ids: Tensor, padding_mask: Tensor, draws: Tensor
        ) -> Completions:
            # [P, n, T]: several responses to a prompt, which is read once.
            count, each = tf.shape(draws)[0], tf.shape(draws)[1]
            flat = tf.reshape(draws, [-1, draws.shape[2]])
            found = self._decoder(Prompts(token_ids, padding_mask), flat)

            def grouped(x: Tensor) -> Tensor:
                shape = tf.concat([[count, each], tf.shape(x)[1:]], axis=0)
                return tf.reshape(x, shape)

            return Completions(*map(grouped, found))

        strategy, xla = self.distribute_strategy, self.compilers["rollout"]
        if not replicas.one_program(strategy, xla):
            # Stages would make one replica wait for the other.
            rollout = self._compiled(rollout, "rollout")
        self._rollout_function = rollout

    def rollout(
        self,
        prompts: Sequence[Any] | Prompts,
        seed: int | tuple[int, int],
        batch_size: int = 1,
        responses: int = 1,
    ) -> Completions:
        """Samples responses.

        Args:
            prompts: strings or lists of messages, or `Prompts`; P of them.
            seed: int or a pair of them; the same gives the same responses, on
                any number of replicas.
            batch_size: prompts that a short batch is padded to.
            responses: how many to each prompt; they follow each other.

        Returns:
            `Completions` of P · responses rows, trimmed to the longest.
        """
        limit = int(self.sampler.max_new_tokens or 0)
        if not isinstance(prompts, Prompts):
            prompts = self.policy.encode_prompts(list(prompts), limit)
        pair = seed if isinstance(seed, tuple) else (seed, 0)
        count = len(prompts.token_ids)
        draws = uniform_draws(pair, count * responses, limit)
        draws = tf.reshape(draws, [count, responses, limit])
        rows = (*(tf.constant(x, tf.int32) for x in prompts), draws)
        grouped = self.run_phase("rollout", rows, batch_size)
        return trimmed(
            Completions(*(tf.reshape(x, [-1, *x.shape[2:]]) for x in grouped))
        )

    def evaluate(  # type: ignore[override]
        self,
        prompts: Sequence[Any],
        *,
        batch_size: int = 64,
        seed: int = 0,
    ) -> dict[str, float]:
        """Samples one response a prompt and measures; changes no state.

        Args:
            prompts: as `fit` takes them.
            batch_size: prompts at a time, the shortest first.
            seed: int.

        Returns:
            `objective/scores`, `objective/kl`, `length/mean` and
            `length/finished`, and what docs/metrics.md lists of some rewards.
        """
        self._assert_compile_called("evaluate")
        all_records = PromptBatches(prompts, batch_size, seed).records
        self.check_prompts(all_records)
        totals: dict[str, float] = {}
        encoded = self.policy.encode_prompts(
            [record["prompt"] for record in all_records],
            int(self.sampler.max_new_tokens or 0),
        )
        parts = data.batches_by_length(encoded, batch_size)
        for step, (rows, part) in enumerate(parts):
            records = [all_records[i] for i in rows]
            completions = self.rollout(part, (seed, step), batch_size)
            responses = self.policy.decode_responses(completions)
            found = self.judge(records, responses, completions, batch_size)
            rollout = self.collect(completions, found.scores, batch_size)
            metrics = rollout_metrics(rollout, self.state.kl_weight.numpy())
            metrics = {n: float(metrics[n]) for n in EVALUATED} | found.metrics
            for name, mean in metrics.items():
                total = totals.get(name, 0.0)
                totals[name] = total + mean * len(records)
        return {n: total / len(all_records) for n, total in totals.items()}

    def check_prompts(self, records: list[dict[str, Any]]) -> None:
        """Refuses prompts that would stop a training later on.

        Args:
            records: records `{"prompt": ..., **columns}`.

        Raises:
            DataError: the first prompt that is blank, too long, or not as the
                chat template takes it.
        """
        limit = int(self.sampler.max_new_tokens or 0)
        data.check_prompts(
            records,
            self.policy.need_tokenizer(),
            self.policy.context_length - limit,
        )


def check_sampler(sampler: Sampler) -> None:
    """Refuses samplers whose distribution the learner cannot compute.

    Args:
        sampler: the sampler of `PPO.compile`.

    Raises:
        ValueError: greedy, or without a maximum length.
    """
    if sampler.max_new_tokens is None:
        raise ValueError(
            "`sampler` needs the longest response: "
            "`Sampler(max_new_tokens=...)`."
        )
    if sampler.temperature == 0:
        raise ValueError(
            "PPO needs samples: `temperature` must be positive. Received: "
            "temperature=0"
        )
    if sampler.top_k or sampler.top_p < 1.0:
        warnings.warn(
            "With `top_k` or `top_p` the samples are not of the distribution "
            "whose log-probabilities PPO learns from: KL and ratios are off.",
            stacklevel=3,
        )


def trimmed(completions: Completions, bucket: int = 16) -> Completions:
    """Cuts columns that no row uses, to a multiple of `bucket`."""
    longest = int(tf.reduce_max(tf.reduce_sum(completions.padding_mask, -1)))
    width = min(
        replicas.round_up(longest, bucket), completions.token_ids.shape[1]
    )
    return Completions(
        *(x[:, :width] if x.shape.rank == 2 else x for x in completions)
    )
