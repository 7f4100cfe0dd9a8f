"""Where a sequence ends."""

from collections.abc import Sequence

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor


def last_token_index(mask: Tensor) -> Tensor:
    """Index of the last position where the mask is 1.

    Args:
        mask: int32 [..., S].

    Returns:
        int32 [...]; 0 for a row without a single 1.

    Raises:
        ValueError: if the dtype is wrong.

    Example:
        >>> last_token_index([[1, 0, 1, 0], [0, 0, 0, 0]]).numpy().tolist()
        [2, 0]
    """
    mask = checks.int_tensor("mask", mask)
    positions = tf.range(tf.shape(mask)[-1])
    return tf.reduce_max(tf.where(tf.equal(mask, 1), positions, 0), axis=-1)


def truncate_at_stop(
    token_ids: Tensor, mask: Tensor, stop_token_ids: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """Ends each response at its first stop token.

    The stop token belongs to the response. Only positions under the mask are
    looked at: a stop token of the prompt ends nothing.

    Args:
        token_ids: int32 [B, S].
        mask: int32 [B, S], 1 on the response.
        stop_token_ids: ids, or int32 [N]; empty if nothing stops.

    Returns:
        The mask without what follows the first stop token, int32 [B, S], and
        whether there was one, int32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, or the shapes differ.

    Example:
        >>> mask, finished = truncate_at_stop(
        ...     [[2, 5, 2, 7]], [[0, 1, 1, 1]], stop_token_ids=[2]
        ... )
        >>> mask.numpy().tolist(), finished.numpy().tolist()
        ([[0, 1, 1, 0]], [1])
    """
    token_ids = checks.int_tensor("token_ids", token_ids, rank=2)
    mask = checks.int_tensor("mask", mask, rank=2)
    checks.same_shape(token_ids=token_ids, mask=mask)
    if not tf.is_tensor(stop_token_ids):
        # An empty list would become a float tensor.
        stop_token_ids = tf.constant(stop_token_ids, tf.int32)
    stops = checks.int_tensor("stop_token_ids", stop_token_ids, rank=1)
    is_stop = tf.reduce_any(tf.equal(token_ids[:, :, None], stops), axis=-1)
    is_stop = tf.cast(is_stop & tf.equal(mask, 1), tf.int32)
    stops_before = tf.cumsum(is_stop, axis=1, exclusive=True)
    kept = tf.where(tf.equal(stops_before, 0), mask, 0)
    return kept, tf.reduce_max(is_stop, axis=1)
