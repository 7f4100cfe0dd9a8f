"""Direct preference optimisation: a policy learns from comparisons alone."""

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from tfrlhf import checks
from tfrlhf import data
from tfrlhf import losses
from tfrlhf import ops
from tfrlhf.models import start_check
from tfrlhf.models.compilation import JitCompile
from tfrlhf.models.micro_batches import rows_of_part
from tfrlhf.models.micro_batches import sum_over_parts
from tfrlhf.models.policy import Policy
from tfrlhf.models.reference import frozen_copy
from tfrlhf.models.start_check import SetupError
from tfrlhf.models.trainable import BatchLosses
from tfrlhf.models.trainable import TrainableModel
from tfrlhf.trainers import preference_metrics
from tfrlhf.trainers import replicas
from tfrlhf.trainers.preference_checks import check_margins
from tfrlhf.trainers.preference_checks import check_objective
from tfrlhf.trainers.preference_checks import takes_margins
from tfrlhf.trainers.rated_responses import with_other_responses
from tfrlhf.trainers.reference_cache import cached
from tfrlhf.trainers.reference_cache import fingerprint
from tfrlhf.trainers.scoring import freeze
from tfrlhf.types import Examples
from tfrlhf.types import PreferenceOutput
from tfrlhf.types import Preferences
from tfrlhf.types import RatingOutput
from tfrlhf.types import Ratings
from tfrlhf.types import ReferencedPreferences
from tfrlhf.types import ReferencedRatings
from tfrlhf.types import Tensor

# Sequences that the reference reads at a time.
REFERENCE_ROWS = 16
# The largest difference of a copy from its original, in nats a token, by
# whether all is computed in float32.
LARGEST_GAP = {True: 1e-3, False: 0.05}


class DPO(TrainableModel):
    """Trains a policy on preferences, without a reward model or sampling.

    The reference's log-probabilities are computed once, before training; no
    step runs the reference. Dropout is off, as in the reference.

    Args:
        policy: the `Policy` to train, in place.
        reference: the frozen `Policy` that the losses compare with; None takes
            a frozen copy of the policy when a loss that needs one is compiled.
        reference_cache: a directory that keeps the reference's numbers, in a
            file for each data set and reference; None keeps none.

    Example:
        >>> dpo = DPO(policy)
        >>> dpo.compile(keras.optimizers.Adam(1e-6), losses.DPOLoss(beta=0.1))
        >>> dpo.fit([{"prompt": "Hi", "chosen": " there", "rejected": " X"}])
    """

    def __init__(
        self,
        policy: Policy,
        reference: Policy | None = None,
        reference_cache: str | pathlib.Path | None = None,
    ) -> None:
        super().__init__(name="dpo")
        self.policy = policy
        self.reference = reference
        if reference is not None:
            freeze("reference", reference, policy)
        self.reference_cache = reference_cache
        self.built = True

    def compile(  # type: ignore[override]
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        *,
        sft_weight: float = 0.0,
        micro_batches: int = 1,
        clip_norm: float | None = 1.0,
        jit_compile: JitCompile = "auto",
        run_eagerly: bool = False,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: one of the classes of docs/preference_optimization.md; None
                is `DPOLoss()`.
            sft_weight: of the negative mean log-probability of a token of the
                best responses, added to the loss of comparisons (RPO:
                https://arxiv.org/abs/2404.19733).
            micro_batches: parts a batch is cut into to save memory.
            clip_norm: largest global norm of the gradient; None for no limit.
            jit_compile: whether XLA compiles the passes; "auto" decides by
                the device, "measure" by trying both on the first batch.
            run_eagerly: runs the steps without `tf.function`, to debug.

        Raises:
            ValueError: a loss that does not say what it reads, or a setting
                that cannot be.
        """
        checks.within("sft_weight", sft_weight, 0.0)
        loss = self.default_loss() if loss is None else loss
        check_objective(loss)
        self.sft_weight = sft_weight
        super().compile(
            optimizer,
            loss,
            micro_batches=micro_batches,
            clip_norm=clip_norm,
            jit_compile=jit_compile,
            run_eagerly=run_eagerly,
        )
        if loss.needs_reference and self.reference is None:
            with self.distribute_strategy.scope():
                self.reference = frozen_copy(self.policy)

    def make_update_functions(self) -> None:
        """See `TrainableModel`; and those that look at a batch before it."""
        super().make_update_functions()
        self._reference_function = self._compiled(
            lambda *rows: self._log_probs(self.reference, *rows)
        )
        self._policy_function = self._compiled(
            lambda *rows: self._log_probs(self.policy, *rows)
        )
        self._kl_function = self._compiled(self._kl_sums)

    def default_loss(self) -> losses.DPOLoss:
        """Returns the loss of DPO with its usual β."""
        return losses.DPOLoss()

    @property
    def metric_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """The metrics of docs/metrics.md, by what the loss reads."""
        if self.objective.reads_ratings:
            return preference_metrics.RATINGS
        return preference_metrics.PAIRS

    def as_carrier(self, x: Any) -> Any:
        """Adds what the reference says, if the loss needs it.

        Args:
            x: preference or rating records, `Preferences`, `Ratings`, or what
                this method returned.

        Returns:
            `ReferencedPreferences`, `ReferencedRatings`, or `Preferences` for
            a loss that needs no reference.

        Raises:
            ValueError: comparisons for a loss of ratings, the reverse, or a
                margin that the loss does not know.
        """
        self._assert_compile_called("as_carrier")
        is_done = not isinstance(x, Preferences)
        if is_done and isinstance(x, self._carrier_type()):
            return x
        length = self.policy.context_length
        if not isinstance(x, (Preferences, Ratings)):
            read = data.ratings if "rating" in x[0] else data.preferences
            x = read(x, self.policy.need_tokenizer(), length)
        if isinstance(x, Ratings) != self.objective.reads_ratings:
            needed = "ratings" if isinstance(x, Preferences) else "comparisons"
            raise ValueError(
                f"{type(self.objective).__name__} learns from {needed}: give "
                "other records, or compile another loss."
            )
        if isinstance(x, Ratings):
            pad_id = getattr(self.policy.tokenizer, "pad_id", 0)
            rows = with_other_responses(x, pad_id, length)
            found = self._reference_log_probs(rows)
            kl = np.zeros(len(found), np.float32)
            return ReferencedRatings(*rows, x.rating, x.weight, found, kl)
        check_margins(self.objective, x)
        if not self.objective.needs_reference:
            return x
        found = self._reference_log_probs(x[:3])
        return ReferencedPreferences._make((*x, found))

    def as_dataset(
        self, x: Any, batch_size: int, shuffle: bool, seed: int
    ) -> tf.data.Dataset:
        """See `TrainableModel`; batches must hold the reference's part."""
        self._assert_compile_called("as_dataset")
        dataset = super().as_dataset(x, batch_size, shuffle, seed)
        needed, given = self._carrier_type(), type(dataset.element_spec)
        if given is not needed:
            raise ValueError(
                f"Batches for {type(self.objective).__name__} must be of "
                f"{needed.__name__}, not of {given.__name__}: make them of "
                "what `as_carrier` returns."
            )
        return dataset

    def check_start(self, dataset: tf.data.Dataset) -> None:
        """See `TrainableModel`; a copy must be one still."""
        start_check.check_vocabulary(self.policy.trunk, self.policy.tokenizer)
        super().check_start(dataset)
        self._check_reference(dataset)

    def counted_part(self, batch: Any) -> tuple[Any, dict[str, Tensor]]:
        """Keeps the first half of the responses of the first rows."""
        kept = start_check.first_half(batch.response_mask)
        rows = start_check.first_rows(kept)
        padding = batch.padding_mask == 0
        return batch._replace(response_mask=tf.cast(kept, tf.int32)), {
            "other rows": ~rows,
            "later tokens": rows & ~start_check.up_to_last(kept) & ~padding,
            "the padding": padding,
        }

    def batch_weights(self, batch: Any) -> Tensor:
        """Returns the weight of every record."""
        return tf.cast(batch.weight, tf.float32)

    def batch_losses(self, batch: Any, training: bool) -> BatchLosses:
        """Compares whole responses, in one pass over all of them."""
        if self.objective.reads_ratings:
            return self._rating_losses(batch)
        log_probs = self._log_probs(self.policy, *batch[:3])
        lengths = tf.reduce_sum(batch.response_mask, axis=-1)
        lengths = tf.cast(tf.maximum(lengths, 1), tf.float32)
        reference = tf.zeros_like(log_probs)
        if self.objective.needs_reference:
            reference = batch.ref_log_probs
        output = PreferenceOutput(log_probs, reference)
        if self.objective.mean_over_tokens:
            output = PreferenceOutput(*(x / lengths for x in output))
        beta = self.objective.beta
        metrics = preference_metrics.pair_metrics(
            beta * (output.log_probs - output.ref_log_probs),
            log_probs,
            batch.ranks,
            batch.weight,
        )
        if takes_margins(self.objective):
            # To be preferred as before, the better must lead by the margin.
            lead = tf.cast(batch.ranks, tf.float32) * batch.margin[:, None]
            ahead = output.log_probs + lead / beta
            output = output._replace(log_probs=ahead)
        terms = self.objective(batch.ranks, output)
        if self.sft_weight:
            best = tf.cast(batch.ranks == 0, tf.float32)
            best /= tf.maximum(tf.reduce_sum(best, axis=1, keepdims=True), 1.0)
            imitated = tf.reduce_sum(best * log_probs / lengths, axis=1)
            terms -= self.sft_weight * imitated
        return BatchLosses(terms, batch.weight, metrics)

    def train_step(self, batch: Any) -> dict[str, Tensor]:
        """See `TrainableModel`; KTO looks at the whole batch first."""
        return super().train_step(self._with_kl(batch))

    def test_step(self, batch: Any) -> dict[str, Tensor]:
        """See `TrainableModel`; KTO looks at the whole batch first."""
        return super().test_step(self._with_kl(batch))

    def _carrier_type(self) -> Any:
        if self.objective.reads_ratings:
            return ReferencedRatings
        if self.objective.needs_reference:
            return ReferencedPreferences
        return Preferences

    def _log_probs(
        self, policy: Any, ids: Tensor, padding: Tensor, response: Tensor
    ) -> Tensor:
        compact = not self.xla
        return response_log_probs(policy, ids, padding, response, compact)

    def _rating_losses(self, batch: ReferencedRatings) -> BatchLosses:
        rated = (x[:, 0] for x in batch[:3])
        log_probs = self._log_probs(self.policy, *rated)
        reference = batch.ref_log_probs[:, 0]
        output = RatingOutput(log_probs, reference, batch.kl)
        beta, weight = self.objective.beta, batch.weight
        metrics = preference_metrics.rating_metrics(
            beta * (log_probs - reference),
            log_probs,
            beta * tf.maximum(batch.kl, 0.0),
            batch.rating,
            weight,
        )
        metrics["kl"] = (
            tf.reduce_sum(batch.kl * weight),
            tf.reduce_sum(weight),
        )
        terms = self.objective(batch.rating, output)
        return BatchLosses(terms, weight, metrics)

    def _with_kl(self, batch: Any) -> Any:
        """Fills in the mean over the batches of all replicas."""
        if not self.objective.reads_ratings:
            return batch
        total, count = (ops.global_sum(x) for x in self._kl_function(batch))
        kl = total / tf.maximum(count, 1e-8)
        return batch._replace(kl=tf.fill(tf.shape(batch.kl), kl))

    def _kl_sums(self, batch: ReferencedRatings) -> tuple[Tensor, Tensor]:
        def of_part(index: Any) -> tuple[Tensor, Tensor]:
            part = rows_of_part(batch, index, self.micro_batches)
            other = (x[:, 1] for x in part[:3])
            log_probs = self._log_probs(self.policy, *other)
            ratio = (log_probs - part.ref_log_probs[:, 1]) * part.weight
            return tf.reduce_sum(ratio), tf.reduce_sum(part.weight)

        zeros = tf.zeros([]), tf.zeros([])
        return sum_over_parts(of_part, self.micro_batches, zeros, self.xla)

    def _reference_log_probs(self, rows: tuple[Any, ...]) -> np.ndarray:
        """Runs the reference over [B, K, S], or reads what it said; [B, K]."""
        reference: Any = self.reference
        arrays = tuple(np.asarray(x) for x in rows)
        directory, key = None, ""
        if self.reference_cache is not None:
            directory = pathlib.Path(self.reference_cache)
            key = fingerprint(reference, arrays)
        return cached(directory, key, lambda: self._run_reference(arrays))

    def _run_reference(self, arrays: tuple[np.ndarray, ...]) -> np.ndarray:
        records, candidates, width = arrays[0].shape
        flat = Examples(*(x.reshape(-1, width) for x in arrays))
        found = [
            replicas.on_replicas(
                self.distribute_strategy,
                self._reference_function,
                tuple(batch),
                min(REFERENCE_ROWS, len(flat.token_ids)),
            )
            for batch in data.batches(flat, REFERENCE_ROWS)
        ]
        return np.concatenate(found).reshape(records, candidates)

    def _check_reference(self, dataset: tf.data.Dataset) -> None:
        """Refuses a copy of a policy that has changed since."""
        reference = self.reference
        if reference is None or not self.objective.needs_reference:
            return
        if (
            reference.original is None
            or reference.original() is not self.policy
        ):
            return
        # From here on the policy may leave its copy.
        reference.original = None
        for batch in dataset.take(1):
            now = self._policy_function(*batch[:3])
            length = tf.reduce_sum(batch.response_mask, axis=-1)
            gap = np.abs(now - batch.ref_log_probs) / np.maximum(length, 1)
        limit = LARGEST_GAP[self.policy.trunk.compute_dtype == "float32"]
        if gap.max(initial=0.0) > limit:
            raise SetupError(
                f"Policy and reference differ by up to {gap.max():.2g} nats a "
                "token before the first step: the policy has changed since "
                "it was copied. Make the reference last, by "
                "`frozen_copy(policy)`."
            )


def response_log_probs(
    policy: Any,
    token_ids: Tensor,
    padding_mask: Tensor,
    response_mask: Tensor,
    compact: bool = False,
) -> Tensor:
    """Sums a policy's log-probabilities over the tokens of responses.

    Args:
        policy: a `Policy`.
        token_ids: int32 [..., S].
        padding_mask: int32 [..., S].
        response_mask: int32 [..., S].
        compact: whether there are logits of the responses alone, which XLA
            does not take.

    Returns:
        float32 [...], in nats; 0 for an empty response.
    """
    shape = tf.shape(token_ids)
    ids, padding, response = (
        tf.reshape(x, [-1, shape[-1]])
        for x in (token_ids, padding_mask, response_mask)
    )
    where = response if compact else None
    log_probs = policy.log_probs(ids, padding, where=where)
    log_probs = ops.zero_outside(log_probs, response)
    return tf.reshape(tf.reduce_sum(log_probs, axis=-1), shape[:-1])
