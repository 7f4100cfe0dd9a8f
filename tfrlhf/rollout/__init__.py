"""Scores, experience and advantages: what lies between sample and update."""

from tfrlhf.rollout.advantages import GAE
from tfrlhf.rollout.advantages import MovingBaseline
from tfrlhf.rollout.advantages import WhitenedReturns
from tfrlhf.rollout.experience import make_experience
from tfrlhf.rollout.experience import rollout_metrics
from tfrlhf.rollout.experience import rollout_rewards
from tfrlhf.rollout.experience import sampler_gap
from tfrlhf.rollout.experience import sequence_kl
from tfrlhf.rollout.experience import value_metrics
from tfrlhf.rollout.prompt_records import as_columns
from tfrlhf.rollout.prompt_records import as_records
from tfrlhf.rollout.score_rules import ClipScores
from tfrlhf.rollout.score_rules import LengthPenalty
from tfrlhf.rollout.score_rules import MissingEndPenalty
from tfrlhf.rollout.scoring import REWARD_MODELS
from tfrlhf.rollout.scoring import Reward
from tfrlhf.rollout.scoring import RewardError
from tfrlhf.rollout.scoring import ScoreRule
from tfrlhf.rollout.scoring import call_reward
from tfrlhf.rollout.scoring import part_metrics
from tfrlhf.rollout.scoring import scores_ids
from tfrlhf.rollout.scoring import with_end
from tfrlhf.rollout.search import BestOfN
from tfrlhf.rollout.search import best_of_n
from tfrlhf.rollout.search import best_of_n_kl
from tfrlhf.rollout.search import rejection_sample
from tfrlhf.rollout.sequence_advantages import AdvantageWeighted
from tfrlhf.rollout.sequence_advantages import GroupRelative
from tfrlhf.rollout.sequence_advantages import LeaveOneOut
from tfrlhf.rollout.sequence_advantages import RewardWeighted

__all__ = [
    "AdvantageWeighted",
    "BestOfN",
    "ClipScores",
    "GAE",
    "GroupRelative",
    "LeaveOneOut",
    "LengthPenalty",
    "MissingEndPenalty",
    "MovingBaseline",
    "REWARD_MODELS",
    "Reward",
    "RewardError",
    "RewardWeighted",
    "ScoreRule",
    "WhitenedReturns",
    "as_columns",
    "as_records",
    "best_of_n",
    "best_of_n_kl",
    "call_reward",
    "make_experience",
    "part_metrics",
    "rejection_sample",
    "rollout_metrics",
    "rollout_rewards",
    "sampler_gap",
    "scores_ids",
    "sequence_kl",
    "value_metrics",
    "with_end",
]
