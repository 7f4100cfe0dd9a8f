"""Keras models that learn from examples and from rewards."""

from tfrlhf.trainers.critic_free import GRPO
from tfrlhf.trainers.critic_free import REINFORCE
from tfrlhf.trainers.critic_free import RLOO
from tfrlhf.trainers.critic_free import AdvantageWeightedRegression
from tfrlhf.trainers.critic_free import REINFORCEPlusPlus
from tfrlhf.trainers.critic_free import RewardWeightedRegression
from tfrlhf.trainers.kl_control import AdaptiveKL
from tfrlhf.trainers.kl_control import FixedKL
from tfrlhf.trainers.online_preference_optimization import OnlineDPO
from tfrlhf.trainers.policy_optimization import PPO
from tfrlhf.trainers.preference_optimization import DPO
from tfrlhf.trainers.supervised import SFT

__all__ = [
    "DPO",
    "GRPO",
    "PPO",
    "REINFORCE",
    "RLOO",
    "SFT",
    "AdaptiveKL",
    "AdvantageWeightedRegression",
    "FixedKL",
    "OnlineDPO",
    "REINFORCEPlusPlus",
    "RewardWeightedRegression",
]
