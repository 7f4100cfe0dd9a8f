"""Advantage estimators: rewards and values to what a token was worth."""

import dataclasses

from tfrlhf import ops
from tfrlhf.types import Tensor


@dataclasses.dataclass(frozen=True)
class GAE:
    """Generalised advantage estimation (https://arxiv.org/abs/1506.02438).

    Attributes:
        discount: γ, what a reward one token later is worth.
        decay: λ, between the one-step estimate (0) and the return (1).
        whiten: whether the advantages of a rollout get mean 0, deviation 1.

    Example:
        >>> advantages, returns = GAE(decay=0.95)(rewards, values, mask)
    """

    discount: float = 1.0
    decay: float = 0.95
    whiten: bool = True

    def __post_init__(self) -> None:
        for name in ("discount", "decay"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(
                    f"`{name}` must be in [0, 1]. Received: {name}={value}"
                )

    def __call__(
        self, rewards: Tensor, values: Tensor | None, mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Estimates the advantages of a whole rollout.

        Args:
            rewards: float32 [B, S], per token.
            values: float32 [B, S], before each token.
            mask: int32 [B, S], 1 on response tokens.

        Returns:
            advantages and returns, float32 [B, S], 0 outside the mask.

        Raises:
            ValueError: there are no values.
        """
        if values is None:
            raise ValueError(
                "GAE needs a value model: give `PPO(value=...)` one."
            )
        advantages, returns = ops.gae(
            rewards, values, mask, self.discount, self.decay
        )
        if self.whiten:
            advantages = ops.whiten(advantages, mask)
        return advantages, returns
