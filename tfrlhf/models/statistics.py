"""What logits say of the tokens that are there."""

from typing import NamedTuple

import tensorflow as tf

from tfrlhf import ops
from tfrlhf.types import Tensor


class TokenStatistics(NamedTuple):
    """What a policy says of tokens that are there, aligned with them.

    Attributes:
        log_probs: float32 [B, S].
        entropy: float32 [B, S], of the distribution the token came from.
        most_likely: bool [B, S], whether no other token was likelier.
    """

    log_probs: Tensor
    entropy: Tensor
    most_likely: Tensor


def token_statistics(
    logits: Tensor,
    token_ids: Tensor,
    temperature: float = 1.0,
    entropy_has_gradient: bool = False,
) -> TokenStatistics:
    """Aligns logits with the tokens that they predict.

    Args:
        logits: float [B, S, V].
        token_ids: int32 [B, S].
        temperature: divides the logits, as the sampler does.
        entropy_has_gradient: whether something learns from the entropy; if
            not, it is computed row by row, which keeps no second [B, S, V].

    Returns:
        `TokenStatistics`, column 0 is 0.
    """
    logits, predicted = logits[:, :-1], token_ids[:, 1:]
    chosen = tf.gather(logits, predicted, batch_dims=2)
    if entropy_has_gradient:
        entropy = ops.entropy(logits, temperature)
    else:
        entropy = _entropy_by_row(tf.stop_gradient(logits), temperature)
    return aligned(
        ops.token_log_probs(logits, predicted, temperature),
        entropy,
        chosen >= tf.reduce_max(logits, axis=-1),
    )


def aligned(*found: Tensor) -> TokenStatistics:
    """Puts what was found of the tokens but the first where they are.

    Args:
        *found: the fields of `TokenStatistics`, [B, S - 1] each.

    Returns:
        `TokenStatistics` of S columns.
    """
    return TokenStatistics(*(tf.pad(x, [[0, 0], [1, 0]]) for x in found))


def _entropy_by_row(logits: Tensor, temperature: float) -> Tensor:
    # Not `map_fn`, which copies its input and needs at least one row.
    rows = tf.shape(logits)[0]

    def step(row: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
        entropy = ops.entropy(logits[row], temperature)
        found = tf.tensor_scatter_nd_update(found, [[row]], entropy[None])
        return row + 1, found

    _, entropy = tf.while_loop(
        lambda row, found: row < rows,
        step,
        (0, tf.zeros(tf.shape(logits)[:2])),
        parallel_iterations=1,
    )
    return entropy
