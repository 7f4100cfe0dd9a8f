"""What training minimises, per token or per row, never reduced.

One reduction for all: the trainer divides sums of weighted losses by counts
over all micro-batches and replicas. The classes are `keras.losses.Loss`es
around the functions, with `reduction="none"`.
"""

from tfrlhf.losses.policy import PPOLoss
from tfrlhf.losses.policy import clipped_policy_loss
from tfrlhf.losses.policy import policy_ratio
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
    "ListwiseRanking",
    "PPOLoss",
    "PairwiseRanking",
    "ScoreCrossEntropy",
    "ScoreRegression",
    "TokenCrossEntropy",
    "best_of_n_loss",
    "clipped_policy_loss",
    "clipped_value_loss",
    "listwise_ranking_loss",
    "pairwise_ranking_loss",
    "policy_ratio",
    "score_cross_entropy_loss",
    "score_regression_loss",
    "token_cross_entropy",
]
