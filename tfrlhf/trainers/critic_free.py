"""Policy optimisation without a value model, on PPO's engine.

Each algorithm is an estimator of advantages, a loss and a few settings.
"""

from typing import Any

from tfrlhf import losses
from tfrlhf.models.policy import Policy
from tfrlhf.models.sampler import Sampler
from tfrlhf.rollout import AdvantageWeighted
from tfrlhf.rollout import GroupRelative
from tfrlhf.rollout import LeaveOneOut
from tfrlhf.rollout import MovingBaseline
from tfrlhf.rollout import Reward
from tfrlhf.rollout import RewardWeighted
from tfrlhf.rollout import WhitenedReturns
from tfrlhf.trainers.kl_control import FixedKL
from tfrlhf.trainers.policy_optimization import PPO


class CriticFree(PPO):
    """PPO's engine without a value model, one pass over each rollout.

    A subclass names its estimator, and what else `compile` takes by default.

    Args:
        policy: the `Policy` to train, in place.
        reward: a `RewardModel` or `RewardEnsemble`, which are frozen, or
            `(prompts, responses, **columns) -> list[float]` on text.
        reference: what the KL is measured against; None takes a frozen copy
            of the policy as it is now.
    """

    estimator: Any = MovingBaseline

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
            loss: `PPOLoss`; None takes the algorithm's.
            sampler: how responses are drawn; needs `max_new_tokens`.
            advantage: the estimator; None takes the algorithm's.
            **settings: the further settings of `PPO.compile`; one pass over a
                rollout unless `update_epochs` says otherwise.
        """
        super().compile(
            optimizer,
            loss,
            sampler=sampler,
            advantage=advantage or self.estimator(),
            **{"update_epochs": 1, **self.usual_settings(), **settings},
        )

    def usual_settings(self) -> dict[str, Any]:
        """Returns what `compile` passes on to `PPO.compile` unless told."""
        return {}


class REINFORCE(CriticFree):
    """Trains a policy by the likelihood of what scored above the average.

    The gradient of a rollout is the mean over its tokens of
    -A_t·∇log π(token_t), with A_t the return less a moving baseline (Williams,
    1992, https://doi.org/10.1007/BF00992696): one step a rollout, for which
    PPO's ratio is 1 and its clip idle.

    Example:
        >>> reinforce = REINFORCE(policy, reward=lambda prompts, responses: [
        ...     -float(len(r)) for r in responses
        ... ])
        >>> reinforce.compile("adam", sampler=Sampler(max_new_tokens=24))
        >>> reinforce.fit(["Once upon a time"] * 64, batch_size=32)
    """


class REINFORCEPlusPlus(CriticFree):
    """REINFORCE with returns whitened over the rollout, and PPO's clip.

    Hu, 2025 (https://arxiv.org/abs/2501.03262).

    Example:
        >>> trainer = REINFORCEPlusPlus(policy, reward)
        >>> trainer.compile("adam", sampler=sampler, minibatches=2)
    """

    estimator = WhitenedReturns


class RLOO(CriticFree):
    """Several responses a prompt, each against the mean of the others.

    REINFORCE with leave-one-out baselines. Ahmadian et al., 2024
    (https://arxiv.org/abs/2402.14740).

    Example:
        >>> rloo = RLOO(policy, reward)
        >>> rloo.compile("adam", sampler=sampler, advantage=LeaveOneOut(4))
    """

    estimator = LeaveOneOut


class GRPO(CriticFree):
    """Group-relative policy optimisation.

    Scores standardised within the responses to a prompt, the mean over
    responses of their token means, and a k3 KL in the loss instead of the
    reward. Shao et al., 2024 (https://arxiv.org/abs/2402.03300). Its
    descendants are settings, see docs/algorithms.md.

    Example:
        >>> grpo = GRPO(policy, reward)
        >>> grpo.compile("adam", sampler=sampler, advantage=GroupRelative(8))
    """

    estimator = GroupRelative

    def default_loss(self) -> losses.PPOLoss:
        """Returns the loss of the paper, β = 0.04."""
        return losses.PPOLoss(
            value_weight=0.0, mean_over="responses", kl_weight=0.04
        )

    def usual_settings(self) -> dict[str, Any]:
        """Leaves the KL to the loss."""
        return {"kl": FixedKL(0.0)}


class RewardWeightedRegression(CriticFree):
    """Supervised learning of one's own samples, weighted by the reward.

    -Σ R·log π, an expectation-maximisation step. Peters and Schaal, 2007
    (https://doi.org/10.1145/1273496.1273590).

    Example:
        >>> trainer = RewardWeightedRegression(policy, reward)
        >>> trainer.compile("adam", sampler=sampler)
    """

    estimator = RewardWeighted


class AdvantageWeightedRegression(CriticFree):
    """Supervised learning of one's own samples, weighted by exp(A / β).

    Peng et al., 2019 (https://arxiv.org/abs/1910.00177).

    Example:
        >>> trainer = AdvantageWeightedRegression(policy, reward)
        >>> trainer.compile("adam", sampler=sampler)
    """

    estimator = AdvantageWeighted
