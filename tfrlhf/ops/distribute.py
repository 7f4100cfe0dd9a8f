"""Sums over replicas."""

from typing import Any

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
    replica = _replica("global_sum")
    if replica.num_replicas_in_sync == 1:
        return tf.convert_to_tensor(x)
    return replica.all_reduce(tf.distribute.ReduceOp.SUM, x)


def global_sums(tensors: list[Tensor]) -> list[Tensor]:
    """Sums of tensors over all replicas, without a gradient of their own.

    Where replicas are processors they are faster than `global_sum` of each.

    Args:
        tensors: of the same shapes on every replica; to be called where
            `global_sum` may be.

    Returns:
        As many tensors, the same on every replica.

    Raises:
        ValueError: in cross-replica context of several replicas.

    Example:
        >>> [x.numpy().tolist() for x in global_sums([tf.constant([1, 2])])]
        [[1, 2]]
    """
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        return tensors

    def add(strategy: tf.distribute.Strategy, parts: list[Any]) -> list[Any]:
        plus = tf.distribute.ReduceOp.SUM
        return [strategy.extended.reduce_to(plus, x, x) for x in parts]

    replica = _replica("global_sums")
    return replica.merge_call(add, args=(tensors,))  # type: ignore[no-any-return]


def _replica(caller: str) -> Any:
    replica = tf.distribute.get_replica_context()
    if replica is None:
        raise ValueError(
            f"`{caller}` was called in cross-replica context; call it inside "
            "`strategy.run` or a Keras `train_step`."
        )
    return replica
