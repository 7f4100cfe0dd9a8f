"""Which optimizers give the same step on one replica and on many."""

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf


def check_optimizer(optimizer: keras.optimizers.Optimizer) -> None:
    """Refuses optimizer settings that break or lie under a strategy.

    Args:
        optimizer: a Keras optimizer.

    Raises:
        ValueError: clipping, averaging or accumulation is set on it.
    """
    instead = {
        "clipnorm": "`compile(clip_norm=...)`",
        "global_clipnorm": "`compile(clip_norm=...)`",
        "clipvalue": "`compile(clip_norm=...)`",
        "use_ema": "no averaging",
        "gradient_accumulation_steps": "`compile(micro_batches=...)`",
    }
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        raise ValueError(
            "A `LossScaleOptimizer` would divide the gradients by a scale that "
            "the loss never had: give its inner optimizer instead."
        )
    config = optimizer.get_config()
    for name, advice in instead.items():
        if config.get(name):
            raise ValueError(
                f"The optimizer's `{name}` gives other results on several "
                f"replicas than on one: use {advice} instead. Received: "
                f"{name}={config[name]}"
            )


def check_precision(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]
) -> None:
    """Refuses Adam on variables that are too coarse for its averages.

    In bfloat16 a β₂ of 0.999 is 1: the average of the squared gradients stays
    0, and so does the step, without an error.

    Args:
        optimizer: a Keras optimizer.
        variables: what it trains.

    Raises:
        ValueError: a variable is of half precision, and β₂ rounds to 1 in it.
    """
    beta_2 = optimizer.get_config().get("beta_2")
    for variable in variables if beta_2 else ():
        if float(tf.cast(beta_2, variable.dtype)) == 1.0:
            raise ValueError(
                f"`{variable.path}` is {variable.dtype}, in which beta_2="
                f"{beta_2} is 1 and the weights would never move: load the "
                'model with dtype="mixed_bfloat16", which keeps float32 '
                "weights, or take beta_2=0.99."
            )


def fuse_adam(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets Adam and AdamW move a variable by one operation, from now on.

    Keras moves it by a dozen, each of which reads and writes an array as long
    as the variable. TensorFlow's own operation has the same formula.

    Args:
        optimizer: any; others are left alone.
    """
    kinds = keras.optimizers.Adam, keras.optimizers.AdamW
    if type(optimizer) not in kinds or optimizer.amsgrad:
        return

    def update_step(gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = optimizer._get_variable_index(variable)
        dtype = variable.dtype
        beta_1, beta_2 = (
            tf.cast(b, dtype) for b in (optimizer.beta_1, optimizer.beta_2)
        )
        step = tf.cast(optimizer.iterations + 1, dtype)
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            beta1_power=tf.pow(beta_1, step),
            beta2_power=tf.pow(beta_2, step),
            lr=tf.cast(learning_rate, dtype),
            beta1=beta_1,
            beta2=beta_2,
            epsilon=tf.cast(optimizer.epsilon, dtype),
            grad=tf.cast(gradient, dtype),
        )

    # Keras would track what is set in its own way.
    object.__setattr__(optimizer, "update_step", update_step)
