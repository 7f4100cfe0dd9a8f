"""The losses of preference.py as Keras losses, for `tfrlhf.DPO`.

Each says what the trainer has to compute for it: `needs_reference`,
`mean_over_tokens` (log-probabilities divided by the length of the response),
`reads_ratings` (single responses instead of comparisons) and `beta`, the factor
between log-ratio and implicit reward. A loss of one's own needs the same four.
With `takes_margins`, log-probabilities come with rank · margin / β added, so
that the better response must lead by the margin of its record.

Where a record compares more than two responses, its loss is the mean over the
pairs of unequal rank.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.losses import preference
from tfrlhf.types import PreferenceOutput
from tfrlhf.types import RatingOutput
from tfrlhf.types import Tensor


class _PreferenceLoss(keras.losses.Loss):
    """What the trainer asks a loss about, and its numbers by name."""

    needs_reference = True
    mean_over_tokens = False
    reads_ratings = False
    takes_margins = True

    def __init__(self, name: str, **numbers: float) -> None:
        super().__init__(name=name, reduction="none")
        checks.positive("beta", numbers["beta"])
        self.beta = numbers["beta"]
        self.numbers = numbers

    def __call__(self, y_true: Tensor, y_pred: Any) -> Tensor:
        """Calls `call`, without Keras' cast of ranks to float."""
        return self.call(y_true, y_pred)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that make this loss again."""
        return {**self.numbers, "name": self.name}


@keras.saving.register_keras_serializable(package="tfrlhf")
class DPOLoss(_PreferenceLoss):
    """Mean of `dpo_loss` over a record's pairs of unequal rank.

    Args:
        beta: see `dpo_loss`.
        label_smoothing: see `dpo_loss`; above 0 it is cDPO.
        name: name of the loss.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> output = PreferenceOutput([[-1.0, -4.0]], [[-2.0, -3.0]])
        >>> round(float(DPOLoss(beta=0.5)([[0, 1]], output)[0]), 4)
        0.3133
    """

    def __init__(
        self,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        name: str = "dpo",
    ) -> None:
        super().__init__(name, beta=beta, label_smoothing=label_smoothing)
        checks.within("label_smoothing", label_smoothing, 0.0, 1.0)

    def call(self, y_true: Tensor, y_pred: PreferenceOutput) -> Tensor:
        """Computes the loss of each record.

        Args:
            y_true: ranks, int32 [B, K], 0 = best, -1 = absent.
            y_pred: log-probabilities, [B, K] each.

        Returns:
            float32 [B], 0 for a record without such a pair.
        """
        return _mean_over_pairs(
            lambda *pairs: preference.dpo_loss(*pairs, **self.numbers),
            y_true,
            *y_pred,
        )


@keras.saving.register_keras_serializable(package="tfrlhf")
class RobustDPOLoss(_PreferenceLoss):
    """Mean of `robust_dpo_loss` over a record's pairs of unequal rank.

    Args:
        beta: see `robust_dpo_loss`.
        label_smoothing: see `robust_dpo_loss`.
        name: name of the loss.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> output = PreferenceOutput([[-1.0, -4.0]], [[-2.0, -3.0]])
        >>> round(float(RobustDPOLoss(beta=0.5)([[0, 1]], output)[0]), 4)
        0.1883
    """

    def __init__(
        self,
        beta: float = 0.1,
        label_smoothing: float = 0.1,
        name: str = "robust_dpo",
    ) -> None:
        super().__init__(name, beta=beta, label_smoothing=label_smoothing)
        checks.within("label_smoothing", label_smoothing, 0.0, 0.5)
        checks.positive("1 - 2 · label_smoothing", 1.0 - 2.0 * label_smoothing)

    def call(self, y_true: Tensor, y_pred: PreferenceOutput) -> Tensor:
        """Computes the loss of each record.

        Args:
            y_true: ranks, int32 [B, K], 0 = best, -1 = absent.
            y_pred: log-probabilities, [B, K] each.

        Returns:
            float32 [B], 0 for a record without such a pair.
        """
        return _mean_over_pairs(
            lambda *pairs: preference.robust_dpo_loss(*pairs, **self.numbers),
            y_true,
            *y_pred,
        )


@keras.saving.register_keras_serializable(package="tfrlhf")
class IPOLoss(_PreferenceLoss):
    """Mean of `ipo_loss` over a record's pairs of unequal rank.

    Args:
        beta: see `ipo_loss`.
        name: name of the loss.

    Raises:
        ValueError: if β is not positive.

    Example:
        >>> output = PreferenceOutput([[-1.0, -4.0]], [[-2.0, -3.0]])
        >>> IPOLoss(beta=0.1)([[0, 1]], output).numpy().tolist()
        [9.0]
    """

    mean_over_tokens = True

    def __init__(self, beta: float = 0.1, name: str = "ipo") -> None:
        super().__init__(name, beta=beta)

    def call(self, y_true: Tensor, y_pred: PreferenceOutput) -> Tensor:
        """Computes the loss of each record.

        Args:
            y_true: ranks, int32 [B, K], 0 = best, -1 = absent.
            y_pred: mean log-probabilities, [B, K] each.

        Returns:
            float32 [B], 0 for a record without such a pair.
        """
        return _mean_over_pairs(
            lambda *pairs: preference.ipo_loss(*pairs, **self.numbers),
            y_true,
            *y_pred,
        )


@keras.saving.register_keras_serializable(package="tfrlhf")
class SimPOLoss(_PreferenceLoss):
    """Mean of `simpo_loss` over a record's pairs of unequal rank.

    Args:
        beta: see `simpo_loss`.
        margin: see `simpo_loss`.
        name: name of the loss.

    Raises:
        ValueError: if β is not positive.

    Example:
        >>> output = PreferenceOutput([[-1.0, -1.75]], [[0.0, 0.0]])
        >>> round(float(SimPOLoss()([[0, 1]], output)[0]), 4)
        0.3133
    """

    needs_reference = False
    mean_over_tokens = True

    def __init__(
        self, beta: float = 2.0, margin: float = 0.5, name: str = "simpo"
    ) -> None:
        super().__init__(name, beta=beta, margin=margin)

    def call(self, y_true: Tensor, y_pred: PreferenceOutput) -> Tensor:
        """Computes the loss of each record.

        Args:
            y_true: ranks, int32 [B, K], 0 = best, -1 = absent.
            y_pred: mean log-probabilities, [B, K]; the reference's are not
                read.

        Returns:
            float32 [B], 0 for a record without such a pair.
        """
        return _mean_over_pairs(
            lambda *pairs: preference.simpo_loss(*pairs, **self.numbers),
            y_true,
            y_pred.log_probs,
        )


@keras.saving.register_keras_serializable(package="tfrlhf")
class ORPOLoss(_PreferenceLoss):
    """Mean of `orpo_loss` over a record's pairs of unequal rank.

    Args:
        beta: see `orpo_loss`.
        name: name of the loss.

    Raises:
        ValueError: if β is not positive.

    Example:
        >>> log_probs = tf.math.log([[0.5, 0.25]])
        >>> output = PreferenceOutput(log_probs, tf.zeros([1, 2]))
        >>> round(float(ORPOLoss(beta=1.0)([[0, 1]], output)[0]), 4)
        0.9808
    """

    needs_reference = False
    mean_over_tokens = True
    # Odds are of probabilities, which have no room for it.
    takes_margins = False

    def __init__(self, beta: float = 0.1, name: str = "orpo") -> None:
        super().__init__(name, beta=beta)

    def call(self, y_true: Tensor, y_pred: PreferenceOutput) -> Tensor:
        """Computes the loss of each record.

        Args:
            y_true: ranks, int32 [B, K], 0 = best, -1 = absent.
            y_pred: mean log-probabilities, [B, K]; the reference's are not
                read.

        Returns:
            float32 [B], 0 for a record without such a pair.
        """
        return _mean_over_pairs(
            lambda *pairs: preference.orpo_loss(*pairs, **self.numbers),
            y_true,
            y_pred.log_probs,
        )


@keras.saving.register_keras_serializable(package="tfrlhf")
class KTOLoss(_PreferenceLoss):
    """`kto_loss` of each rated response.

    Args:
        beta: see `kto_loss`.
        desirable_weight: see `kto_loss`.
        undesirable_weight: see `kto_loss`.
        name: name of the loss.

    Raises:
        ValueError: if an argument is out of range.

    Example:
        >>> output = RatingOutput([-2.0], [-5.0], [1.0])
        >>> round(float(KTOLoss(beta=0.5)([1.0], output)[0]), 4)
        0.2689
    """

    reads_ratings = True

    def __init__(
        self,
        beta: float = 0.1,
        desirable_weight: float = 1.0,
        undesirable_weight: float = 1.0,
        name: str = "kto",
    ) -> None:
        super().__init__(
            name,
            beta=beta,
            desirable_weight=desirable_weight,
            undesirable_weight=undesirable_weight,
        )
        checks.within("desirable_weight", desirable_weight, 0.0)
        checks.within("undesirable_weight", undesirable_weight, 0.0)

    def call(self, y_true: Tensor, y_pred: RatingOutput) -> Tensor:
        """Computes the loss of each response.

        Args:
            y_true: ratings, float32 [B], 1 for a good response, 0 for a bad
                one.
            y_pred: log-probabilities and KL, [B] each.

        Returns:
            float32 [B].
        """
        return preference.kto_loss(
            y_pred.log_probs,
            y_pred.ref_log_probs,
            y_true,
            y_pred.kl,
            **self.numbers,
        )


def unequal_pairs(ranks: Tensor) -> Tensor:
    """Tells which candidates are better than which.

    Args:
        ranks: int32 [B, K], 0 = best, -1 = absent.

    Returns:
        bool [B, K, K], True where i and j are present and i is better.
    """
    first, second = ranks[:, :, None], ranks[:, None, :]
    return (first >= 0) & (first < second)


def _mean_over_pairs(
    function: Callable[..., Tensor], ranks: Tensor, *log_probs: Tensor
) -> Tensor:
    """Averages a loss over the pairs of unequal rank of each record.

    Args:
        function: from (better, worse) [P] of the policy, and of the reference
            if that is given, to losses [P].
        ranks: int32 [B, K], 0 = best, -1 = absent.
        log_probs: float32 [B, K], of the policy and, if need be, the
            reference; an absent candidate's may be anything.

    Returns:
        float32 [B], 0 for a record without such a pair.
    """
    ranks = checks.int_tensor("ranks", ranks, rank=2)
    pairs = unequal_pairs(ranks)
    shape = tf.shape(pairs)
    sides = []
    for x in log_probs:
        x = checks.float_tensor("log_probs", x, rank=2)
        checks.same_shape(ranks=ranks, log_probs=x)
        x = tf.where(ranks >= 0, x, 0.0)
        sides += [
            tf.reshape(tf.broadcast_to(side, shape), [-1])
            for side in (x[:, :, None], x[:, None, :])
        ]
    losses = tf.where(pairs, tf.reshape(function(*sides), shape), 0.0)
    count = tf.reduce_sum(tf.cast(pairs, tf.float32), axis=[1, 2])
    return tf.reduce_sum(losses, axis=[1, 2]) / tf.maximum(count, 1.0)
