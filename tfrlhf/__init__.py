"""Reinforcement learning from human feedback for Keras and TensorFlow.

The names below are loaded on first use, so that `import tfrlhf` does not cost
the import of TensorFlow.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "AdaptiveKL": "tfrlhf.trainers",
    "AdvantageWeighted": "tfrlhf.rollout",
    "AdvantageWeightedRegression": "tfrlhf.trainers",
    "ClipScores": "tfrlhf.rollout",
    "DPO": "tfrlhf.trainers",
    "FixedKL": "tfrlhf.trainers",
    "GAE": "tfrlhf.rollout",
    "GRPO": "tfrlhf.trainers",
    "GroupRelative": "tfrlhf.rollout",
    "LeaveOneOut": "tfrlhf.rollout",
    "LengthPenalty": "tfrlhf.rollout",
    "MissingEndPenalty": "tfrlhf.rollout",
    "MovingBaseline": "tfrlhf.rollout",
    "OnlineDPO": "tfrlhf.trainers",
    "PPO": "tfrlhf.trainers",
    "Policy": "tfrlhf.models",
    "ProcessRewardModel": "tfrlhf.models",
    "REINFORCE": "tfrlhf.trainers",
    "REINFORCEPlusPlus": "tfrlhf.trainers",
    "RLOO": "tfrlhf.trainers",
    "RewardEnsemble": "tfrlhf.models",
    "RewardModel": "tfrlhf.models",
    "RewardWeighted": "tfrlhf.rollout",
    "RewardWeightedRegression": "tfrlhf.trainers",
    "SFT": "tfrlhf.trainers",
    "Sampler": "tfrlhf.models",
    "Tokenizer": "tfrlhf.models",
    "ValueModel": "tfrlhf.models",
    "WhitenedReturns": "tfrlhf.rollout",
    "best_of_n": "tfrlhf.rollout",
    "best_of_n_kl": "tfrlhf.rollout",
    "frozen_copy": "tfrlhf.models",
    "rejection_sample": "tfrlhf.rollout",
    "small_policy": "tfrlhf.models",
}
_PACKAGES = (
    "callbacks",
    "data",
    "evaluation",
    "export",
    "losses",
    "ops",
    "presets",
    "rewards",
    "types",
)

__all__ = [*_HOMES, *_PACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _PACKAGES:
        return importlib.import_module(f"tfrlhf.{name}")
    raise AttributeError(f"module 'tfrlhf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
