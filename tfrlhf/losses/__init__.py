"""What training minimises, per token or per row, never reduced.

One reduction for all: the trainer divides sums of weighted losses by counts
over all micro-batches and replicas. The classes are `keras.losses.Loss`es
around the functions, with `reduction="none"`.
"""

from tfrlhf.losses.policy import PPOLoss
from tfrlhf.losses.policy import clipped_policy_loss
from tfrlhf.losses.policy import policy_ratio
from tfrlhf.losses.preference import dpo_loss
from tfrlhf.losses.preference import ipo_loss
from tfrlhf.losses.preference import kto_loss
from tfrlhf.losses.preference import orpo_loss
from tfrlhf.losses.preference import robust_dpo_loss
from tfrlhf.losses.preference import simpo_loss
from tfrlhf.losses.preference_objectives import DPOLoss
from tfrlhf.losses.preference_objectives import IPOLoss
from tfrlhf.losses.preference_objectives import KTOLoss
from tfrlhf.losses.preference_objectives import ORPOLoss
from tfrlhf.losses.preference_objectives import RobustDPOLoss
from tfrlhf.losses.preference_objectives import SimPOLoss
from tfrlhf.losses.ranking import BestOfN
from tfrlhf.losses.ranking import ListwiseRanking
from tfrlhf.losses.ranking import PairwiseRanking
from tfrlhf.losses.ranking import best_of_n_loss
from tfrlhf.losses.ranking import listwise_ranking_loss
from tfrlhf.losses.ranking import pairwise_ranking_loss
from tfrlhf.losses.regression import ScoreCrossEntropy
from tfrlhf.losses.regression import ScoreRegression
from tfrlhf.losses.regression import score_cross_entropy_loss
from tfrlhf.losses.regression import score_regression_loss
from tfrlhf.losses.supervised import TokenCrossEntropy
from tfrlhf.losses.supervised import token_cross_entropy
from tfrlhf.losses.value import clipped_value_loss

__all__ = [
    "BestOfN",
    "DPOLoss",
    "IPOLoss",
    "KTOLoss",
    "ListwiseRanking",
    "ORPOLoss",
    "PPOLoss",
    "PairwiseRanking",
    "RobustDPOLoss",
    "ScoreCrossEntropy",
    "ScoreRegression",
    "SimPOLoss",
    "TokenCrossEntropy",
    "best_of_n_loss",
    "clipped_policy_loss",
    "clipped_value_loss",
    "dpo_loss",
    "ipo_loss",
    "kto_loss",
    "listwise_ranking_loss",
    "orpo_loss",
    "pairwise_ranking_loss",
    "policy_ratio",
    "robust_dpo_loss",
    "score_cross_entropy_loss",
    "score_regression_loss",
    "simpo_loss",
    "token_cross_entropy",
]
