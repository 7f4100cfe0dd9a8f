"""Keras models that learn from examples and from rewards."""

from tfrlhf.trainers.kl_control import AdaptiveKL
from tfrlhf.trainers.kl_control import FixedKL
from tfrlhf.trainers.online_preference_optimization import OnlineDPO
from tfrlhf.trainers.policy_optimization import PPO
from tfrlhf.trainers.preference_optimization import DPO
from tfrlhf.trainers.reinforce import REINFORCE
from tfrlhf.trainers.supervised import SFT

__all__ = [
    "DPO",
    "PPO",
    "REINFORCE",
    "SFT",
    "AdaptiveKL",
    "FixedKL",
    "OnlineDPO",
]
