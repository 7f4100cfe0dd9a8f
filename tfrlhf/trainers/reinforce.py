"""REINFORCE: the plain policy gradient, on PPO's engine."""

from typing import Any

from tfrlhf import losses
from tfrlhf.models.policy import Policy
from tfrlhf.models.sampler import Sampler
from tfrlhf.rollout import MovingBaseline
from tfrlhf.rollout import Reward
from tfrlhf.trainers.policy_optimization import PPO


class REINFORCE(PPO):
    """Trains a policy by the likelihood of what scored above the average.

    The gradient of a rollout is the mean over its tokens of
    -A_t·∇log π(token_t), with A_t the return less a moving baseline (Williams,
    1992, https://doi.org/10.1007/BF00992696): one step a rollout, for which
    PPO's ratio is 1 and its clip idle. There is no value model.

    Args:
        policy: the `Policy` to train, in place.
        reward: a `RewardModel` or `RewardEnsemble`, which are frozen, or
            `(prompts, responses, **columns) -> list[float]` on text.
        reference: what the KL is measured against; None takes a frozen copy
            of the policy as it is now.

    Example:
        >>> reinforce = REINFORCE(policy, reward=lambda prompts, responses: [
        ...     -float(len(r)) for r in responses
        ... ])
        >>> reinforce.compile("adam", sampler=Sampler(max_new_tokens=24))
        >>> reinforce.fit(["Once upon a time"] * 64, batch_size=32)
    """

    def __init__(
        self, policy: Policy, reward: Reward, reference: Policy | None = None
    ) -> None:
        super().__init__(policy, reward, reference=reference)

    def compile(  # type: ignore[override]
        self,
        optimizer: Any = "adam",
        loss: losses.PPOLoss | None = None,
        *,
        sampler: Sampler,
        advantage: Any = None,
        **settings: Any,
    ) -> None:
        """Prepares for training.

        Args:
            optimizer: a Keras optimizer or its name.
            loss: `PPOLoss`, for its entropy bonus; None is without.
            sampler: how responses are drawn; needs `max_new_tokens`.
            advantage: the estimator; None is `MovingBaseline()`.
            **settings: the further settings of `PPO.compile`; one pass over a
                rollout unless `update_epochs` says otherwise.
        """
        super().compile(
            optimizer,
            loss,
            sampler=sampler,
            advantage=advantage or MovingBaseline(),
            **{"update_epochs": 1, **settings},
        )
