"""A reference that follows the policy slowly."""

from typing import Any

import keras

from tfrlhf import checks


class MovingReference(keras.callbacks.Callback):
    """Moves the reference a little towards the policy at every iteration.

    θ_ref = decay·θ_ref + (1 - decay)·θ: the KL penalty then holds back the
    speed of the policy instead of its distance from the start, as in WARP
    (Ramé et al., 2024, https://arxiv.org/abs/2406.16768).

    Args:
        decay: in [0, 1); how much of the reference stays.

    Raises:
        ValueError: when training begins, if the reference has no weights of
            its own, or other ones than the policy.

    Example:
        >>> ppo.fit(prompts, callbacks=[MovingReference(0.99)])
    """

    def __init__(self, decay: float) -> None:
        super().__init__()
        checks.within("decay", decay, 0.0, 1.0 - 1e-6)
        self.decay = decay

    def on_train_begin(self, logs: Any = None) -> None:
        """Refuses a reference that cannot follow."""
        policy, reference = self.model.policy, self.model.reference
        own = {id(v) for v in policy.weights}
        shapes = [tuple(v.shape) for v in policy.weights]
        if any(id(v) in own for v in reference.weights) or shapes != [
            tuple(v.shape) for v in reference.weights
        ]:
            raise ValueError(
                "The reference cannot follow the policy: it shares weights "
                "with it, as beside an adapter, or has others. Leave "
                "`MovingReference` out."
            )

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Moves the reference."""
        for slow, fast in zip(
            self.model.reference.weights,
            self.model.policy.weights,
            strict=True,
        ):
            slow.assign(self.decay * slow + (1.0 - self.decay) * fast)
