"""What policy optimisation makes sure of before its first update.

Looks at the first rollout. Nothing is changed by looking.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from tfrlhf import ops
from tfrlhf.models import start_check
from tfrlhf.models.compilation import give_back
from tfrlhf.models.start_check import SetupError
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor

# The largest difference of two log-probabilities that should be equal, of a
# cached and an uncached pass, by whether all is computed in float32.
LARGEST_GAP = {True: 1e-2, False: 0.5}


def check_models(engine: Any) -> None:
    """Refuses models that cannot be trained together.

    Args:
        engine: a `RolloutEngine`.

    Raises:
        SetupError: nothing to train, or a tokenizer that does not fit.
    """
    start_check.check_trainable(engine.name, engine.learner_variables())
    start_check.check_vocabulary(engine.policy.trunk, engine.policy.tokenizer)


def check_rollout(engine: Any, rollout: Rollout, batch_size: int) -> None:
    """Refuses a first rollout that tells of a broken setup.

    Args:
        engine: a `RolloutEngine`.
        rollout: its first `Rollout`.
        batch_size: what a short batch is padded to.

    Raises:
        SetupError: numbers that are not finite, sampler and learner or policy
            and reference that disagree, or a model that sees what it must not.
    """
    give_back()
    _check_finite(engine, rollout)
    _check_independence(engine, rollout, batch_size)
    _check_sampler(engine, rollout)
    _check_reference(engine, rollout)


def check_ratio(engine: Any, approx_kl: float) -> None:
    """Refuses a learner that does not begin where the rollout was.

    Args:
        engine: a `RolloutEngine`.
        approx_kl: half the mean squared change of the log-probabilities at
            the first minibatch, before any step.

    Raises:
        SetupError: the ratios are not 1.
    """
    change = float(np.sqrt(2.0 * approx_kl))
    if change > 0.1 * LARGEST_GAP[_computes_float32(engine)]:
        raise SetupError(
            "The policy's ratio is not 1 at the first minibatch: the "
            f"log-probabilities moved by {change:.2g} (root mean square) "
            "between rollout and update, though no weight did. Is there "
            "dropout, or anything else random, that stays on?"
        )


def _check_finite(engine: Any, rollout: Rollout) -> None:
    present = tf.reduce_max(rollout.response_mask, axis=-1)
    for name, values, model in (
        ("The sampler's log-probabilities", rollout.sampler_log_probs, None),
        ("The policy's log-probabilities", rollout.log_probs, engine.policy),
        (
            "The reference's log-probabilities",
            rollout.ref_log_probs,
            engine.reference,
        ),
        ("The values", rollout.values, engine.value),
    ):
        start_check.check_finite(name, values, rollout.response_mask, model)
    start_check.check_finite(
        "The scores", rollout.scores, present, engine.reward_model
    )


def _check_sampler(engine: Any, rollout: Rollout) -> None:
    gap = np.where(
        rollout.response_mask,
        np.abs(rollout.sampler_log_probs - rollout.log_probs),
        0.0,
    )
    largest = float(gap.max(initial=0.0))
    if largest > LARGEST_GAP[_computes_float32(engine)]:
        row, position = np.unravel_index(gap.argmax(), gap.shape)
        raise SetupError(
            f"Sampler and learner disagree by {largest:.2g} about the "
            f"log-probability of a token (row {row}, position {position} of "
            "the first batch): decoding with the cache must give the "
            "distribution of a whole pass, at the same temperature and "
            "without dropout."
        )


def _check_reference(engine: Any, rollout: Rollout) -> None:
    original = engine.reference.original
    if original is None or original() is not engine.policy:
        return
    # From here on the policy may leave its copy.
    engine.reference.original = None
    mask = rollout.response_mask
    gap = np.where(mask, np.abs(rollout.log_probs - rollout.ref_log_probs), 0)
    if gap.max(initial=0.0) > 0.1 * LARGEST_GAP[_computes_float32(engine)]:
        kl = ops.masked_mean(rollout.log_probs - rollout.ref_log_probs, mask)
        raise SetupError(
            f"The KL to the reference is {float(kl):.2g} nats a token before "
            "the first update: the policy has changed since it was copied. "
            "Make the reference last, by `frozen_copy(policy)`."
        )


def _check_independence(engine: Any, rollout: Rollout, batch_size: int) -> None:
    kept = start_check.first_half(rollout.response_mask)
    rows = start_check.first_rows(kept)
    padding = rollout.padding_mask == 0

    def seen(token_ids: Tensor) -> dict[str, Tensor]:
        names = (
            "The policy's log-probabilities",
            "The reference's log-probabilities",
            "The values",
        )
        arrays = engine.look(
            token_ids, rollout.padding_mask, rollout.response_mask, batch_size
        )
        return {
            name: tf.where(kept, x, 0.0)
            for name, x in zip(names, arrays, strict=True)
        }

    start_check.check_independence(
        seen,
        rollout.token_ids,
        {
            "other rows": ~rows,
            "later tokens": rows & ~start_check.up_to_last(kept) & ~padding,
            "the padding": padding,
        },
    )
    if not engine.reward_reads_ids:
        return

    def scores(token_ids: Tensor) -> dict[str, Tensor]:
        x = engine.read(rollout._replace(token_ids=token_ids), batch_size)[0]
        return {"The scores": tf.where(start_check.first_rows(x), x, 0.0)}

    start_check.check_independence(
        scores,
        rollout.token_ids,
        {
            "other rows": ~start_check.first_rows(padding),
            "the padding": padding,
        },
    )


def _computes_float32(engine: Any) -> bool:
    return bool(engine.policy.trunk.compute_dtype == "float32")
