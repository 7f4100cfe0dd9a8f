"""How much the KL penalty weighs, from one iteration to the next."""

import dataclasses

from tfrlhf import checks
from tfrlhf.ops.kl import KINDS


@dataclasses.dataclass(frozen=True)
class FixedKL:
    """A KL weight that never changes.

    Attributes:
        weight: the weight.
        kind: the estimate that is penalised, see `ops.kl_estimate`.
        clip: the largest absolute value of a token's estimate; None for no
            limit.
        stop: the largest `policy/approx_kl`, mean over the steps so far, with
            which the passes over a rollout go on; None for no limit.

    Example:
        >>> FixedKL(0.05, kind="k3").next_weight(0.05, kl=9.0, episodes=512)
        0.05
    """

    weight: float
    kind: str = "k1"
    clip: float | None = None
    stop: float | None = None

    def __post_init__(self) -> None:
        _check_penalty(self.kind, self.clip, self.stop)

    @property
    def initial(self) -> float:
        """The weight of the first iteration."""
        return self.weight

    def next_weight(self, weight: float, kl: float, episodes: int) -> float:
        """Returns the weight of the next iteration."""
        return weight


@dataclasses.dataclass(frozen=True)
class AdaptiveKL:
    """A KL weight that holds the KL near a target.

    `weight · (1 + clip(kl / target - 1, -0.2, 0.2) · episodes / horizon)`,
    section 2.2 of https://arxiv.org/abs/1909.08593.

    Attributes:
        target: the wished mean KL of an episode, in nats.
        initial: the weight of the first iteration.
        horizon: how many episodes it takes to change the weight by a factor.
        kind: the estimate that is penalised, see `ops.kl_estimate`; the
            target is always compared with k1.
        clip: the largest absolute value of a token's estimate; None for no
            limit.
        stop: the largest `policy/approx_kl`, mean over the steps so far, with
            which the passes over a rollout go on; None for no limit.

    Example:
        >>> AdaptiveKL(6.0).next_weight(0.15, kl=9.0, episodes=512)
        0.151536
    """

    target: float
    initial: float = 0.15
    horizon: int = 10_000
    kind: str = "k1"
    clip: float | None = None
    stop: float | None = None

    def __post_init__(self) -> None:
        _check_penalty(self.kind, self.clip, self.stop)
        if self.target <= 0 or self.horizon <= 0:
            raise ValueError(
                "`target` and `horizon` must be positive. Received: "
                f"target={self.target}, horizon={self.horizon}"
            )

    def next_weight(self, weight: float, kl: float, episodes: int) -> float:
        """Returns the weight of the next iteration.

        Args:
            weight: the weight of this iteration.
            kl: mean over the episodes of the sequence KL, in nats.
            episodes: how many episodes the iteration had.

        Returns:
            The new weight.
        """
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return weight * (1.0 + error * episodes / self.horizon)


def _check_penalty(kind: str, clip: float | None, stop: float | None) -> None:
    checks.one_of("kind", kind, KINDS)
    for name, limit in (("clip", clip), ("stop", stop)):
        if limit is not None:
            checks.positive(name, limit)
