"""Measuring a policy: against another one, and for what a score misses."""

from tfrlhf.evaluation.baselines import bag_of_words_accuracy
from tfrlhf.evaluation.baselines import longer_accuracy
from tfrlhf.evaluation.comparison import compare
from tfrlhf.evaluation.diversity import distinct_n
from tfrlhf.evaluation.diversity import self_similarity
from tfrlhf.evaluation.likelihood import sequence_kl
from tfrlhf.evaluation.win_rate import Estimate
from tfrlhf.evaluation.win_rate import accuracy
from tfrlhf.evaluation.win_rate import win_rate

__all__ = [
    "Estimate",
    "accuracy",
    "bag_of_words_accuracy",
    "compare",
    "distinct_n",
    "longer_accuracy",
    "self_similarity",
    "sequence_kl",
    "win_rate",
]
