"""Sums over replicas."""

import tensorflow as tf

from tfrlhf.types import Tensor


def global_sum(x: Tensor) -> Tensor:
    """Sum of a tensor over all replicas; the tensor itself without a strategy.

    To be called in replica context (inside `strategy.run`, which a Keras
    `train_step` is), and not inside a further `tf.function` there, where
    TensorFlow refuses the collective.

    Args:
        x: tensor [...], of the same shape on every replica.

    Returns:
        Tensor [...], the same on every replica.

    Raises:
        ValueError: in cross-replica context.

    Example:
        >>> global_sum(tf.constant([1, 2])).numpy().tolist()
        [1, 2]
    """
    replica = tf.distribute.get_replica_context()
    if replica is None:
        raise ValueError(
            "`global_sum` was called in cross-replica context; call it inside "
            "`strategy.run` or a Keras `train_step`."
        )
    if replica.num_replicas_in_sync == 1:
        return tf.convert_to_tensor(x)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, x)
