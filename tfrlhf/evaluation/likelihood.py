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
    parts = []
    for start in range(0, len(completions.token_ids), batch_size):
        batch = Completions(
            *(x[start : start + batch_size] for x in completions)
        )
        log_probs, ref_log_probs = (
            model.predict_log_probs(
                tf.convert_to_tensor(batch.token_ids),
                tf.convert_to_tensor(batch.padding_mask),
                temperature,
            )
            for model in (policy, reference)
        )
        parts.append(
            rollout.sequence_kl(log_probs, ref_log_probs, batch.response_mask)
        )
    return np.concatenate([np.asarray(part) for part in parts])
