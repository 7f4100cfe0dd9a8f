"""What policies say of given completions."""

import numpy as np
import tensorflow as tf

from tfrlhf import rollout
from tfrlhf.models import Policy
from tfrlhf.types import Completions


def sequence_kl(
    policy: Policy,
    reference: Policy,
    completions: Completions,
    temperature: float = 1.0,
    batch_size: int = 64,
) -> np.ndarray:
    """Estimates the KL divergence of sampled responses to a reference.

    The k1 estimate log π(y) − log π_ref(y) of each response, unbiased over
    samples of `policy`.

    Args:
        policy: whose samples the completions are.
        reference: what the divergence is to.
        completions: `Completions` of B rows.
        temperature: at which they were sampled.
        batch_size: rows at a time.

    Returns:
        float32 [B], in nats.
    """

    @tf.function
    def estimate(batch: Completions) -> tf.Tensor:
        ids, mask = batch.token_ids, batch.padding_mask
        return rollout.sequence_kl(
            policy.log_probs(ids, mask, temperature),
            reference.log_probs(ids, mask, temperature),
            batch.response_mask,
        )

    rows = len(completions.token_ids)
    parts = [
        estimate(Completions(*(x[i : i + batch_size] for x in completions)))
        for i in range(0, rows, batch_size)
    ]
    return np.concatenate([np.asarray(part) for part in parts])
