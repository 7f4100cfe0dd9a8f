"""Language models with heads, their tokenizer and how they are sampled."""

from tfrlhf.models.ensemble import RewardEnsemble
from tfrlhf.models.policy import Policy
from tfrlhf.models.process_reward import ProcessRewardModel
from tfrlhf.models.reference import frozen_copy
from tfrlhf.models.reward import RewardModel
from tfrlhf.models.sampler import Sampler
from tfrlhf.models.small import small_policy
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.models.trainable import TrainableModel
from tfrlhf.models.value import ValueModel

__all__ = [
    "Policy",
    "ProcessRewardModel",
    "RewardEnsemble",
    "RewardModel",
    "Sampler",
    "Tokenizer",
    "TrainableModel",
    "ValueModel",
    "frozen_copy",
    "small_policy",
]
