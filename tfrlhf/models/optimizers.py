"""Which optimizers give the same step on one replica and on many."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.types import Tensor

# So many scaled gradients exist at the same time: one alone would leave
# processors idle between small variables.
AT_A_TIME = 8


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


def own_memory(variables: Sequence[Any]) -> None:
    """Lets variables share no memory with what they were copied from.

    TensorFlow copies once one of both is written to: in the first step, where
    it would be strewn among what only that step needs.

    Args:
        variables: Keras variables that are about to train.
    """
    for variable in variables:
        variable.assign(tf.raw_ops.DeepCopy(x=variable.value))


class FusedAdam:
    """Moves a variable by one operation, in the place of `update_step`.

    Keras moves it by a dozen, each of which reads and writes an array as long
    as the variable. TensorFlow's own operation has the same formula.

    Args:
        optimizer: Keras' Adam or AdamW, built.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        self.optimizer = optimizer
        self._scale: Tensor | None = None
        self._moved: list[tf.Operation] = []
        self._shared: dict[str, dict[str, Tensor]] = {}

    def __call__(
        self, gradient: Tensor, variable: Any, learning_rate: Any
    ) -> None:
        """Makes the step of a variable."""
        optimizer, dtype = self.optimizer, variable.dtype
        index = optimizer._get_variable_index(variable)
        shared = self._shared.get(dtype) or self._numbers(dtype, learning_rate)
        # The one that began so many before.
        awaited = self._moved[-AT_A_TIME : 1 - AT_A_TIME]
        with tf.control_dependencies(awaited):
            gradient = tf.cast(gradient, dtype)
            if self._scale is not None:
                gradient *= tf.cast(self._scale, dtype)
        moved = tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=optimizer._momentums[index].value.handle,
            v=optimizer._velocities[index].value.handle,
            grad=gradient,
            **shared,
        )
        if self._scale is not None:
            self._shared[dtype] = shared
            if moved is not None:
                # After all that were before, too.
                self._moved.append(tf.group(moved, *self._moved[-1:]))

    def _numbers(self, dtype: str, learning_rate: Any) -> dict[str, Tensor]:
        """Returns what all variables of a dtype share in a step."""
        optimizer = self.optimizer
        beta_1, beta_2 = (
            tf.cast(b, dtype) for b in (optimizer.beta_1, optimizer.beta_2)
        )
        step = tf.cast(optimizer.iterations + 1, dtype)
        return {
            "beta1_power": tf.pow(beta_1, step),
            "beta2_power": tf.pow(beta_2, step),
            "lr": tf.cast(learning_rate, dtype),
            "beta1": beta_1,
            "beta2": beta_2,
            "epsilon": tf.cast(optimizer.epsilon, dtype),
        }

    @contextmanager
    def in_turn(self, scale: Tensor) -> Iterator[None]:
        """Scales gradients where they are used, a few variables at a time.

        Args:
            scale: float scalar.
        """
        self._scale = scale
        try:
            yield
        finally:
            self._scale, self._moved, self._shared = None, [], {}


def fuse_adam(optimizer: keras.optimizers.Optimizer) -> None:
    """Lets Adam and AdamW make their steps by `FusedAdam`, from now on.

    Args:
        optimizer: any, built; others are left alone.
    """
    kinds = keras.optimizers.Adam, keras.optimizers.AdamW
    if type(optimizer) in kinds and not optimizer.amsgrad:
        # Keras would track what is set in its own way.
        object.__setattr__(optimizer, "update_step", FusedAdam(optimizer))


def apply_scaled(
    optimizer: keras.optimizers.Optimizer,
    gradients: Sequence[Tensor],
    scale: Tensor,
    variables: Sequence[Any],
) -> None:
    """Makes an optimizer's step, without a copy of all gradients if it can.

    Args:
        optimizer: a Keras optimizer.
        gradients: one for each variable, the same on every replica.
        scale: float scalar that multiplies them.
        variables: Keras variables.
    """
    step = vars(optimizer).get("update_step")
    # Replicas would wait for each other.
    if isinstance(step, FusedAdam) and not tf.distribute.has_strategy():
        with step.in_turn(scale):
            optimizer.apply(gradients, variables)
    else:
        with _summed(optimizer):
            optimizer.apply([g * scale for g in gradients], variables)


@contextmanager
def _summed(optimizer: keras.optimizers.Optimizer) -> Iterator[None]:
    """Keeps Keras from adding up over replicas what is a sum already."""
    name = "_all_reduce_sum_gradients"
    object.__setattr__(optimizer, name, lambda pairs: pairs)
    try:
        yield
    finally:
        # Every replica is traced by a thread, and the first puts it back.
        vars(optimizer).pop(name, None)
