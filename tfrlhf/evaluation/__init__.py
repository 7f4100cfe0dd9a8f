"""Measuring a policy: against another one, and for what a score misses."""

from tfrlhf.evaluation.alerts import GrowthAlert
from tfrlhf.evaluation.alerts import draw_streams
from tfrlhf.evaluation.baselines import bag_of_words_accuracy
from tfrlhf.evaluation.baselines import longer_accuracy
from tfrlhf.evaluation.baselines import reward_accuracy
from tfrlhf.evaluation.calibration import Bin
from tfrlhf.evaluation.calibration import Calibration
from tfrlhf.evaluation.calibration import calibration
from tfrlhf.evaluation.comparison import compare
from tfrlhf.evaluation.comparison import draw_responses
from tfrlhf.evaluation.diversity import distinct_n
from tfrlhf.evaluation.diversity import self_similarity
from tfrlhf.evaluation.frontier import Curve
from tfrlhf.evaluation.frontier import plot_frontier
from tfrlhf.evaluation.frontier import score_at_kl
from tfrlhf.evaluation.labels import LabelQuality
from tfrlhf.evaluation.labels import label_quality
from tfrlhf.evaluation.labels import naive_bayes
from tfrlhf.evaluation.likelihood import sequence_kl
from tfrlhf.evaluation.ranking import ranking_estimates
from tfrlhf.evaluation.ranking import ranking_quality
from tfrlhf.evaluation.win_rate import Estimate
from tfrlhf.evaluation.win_rate import Interval
from tfrlhf.evaluation.win_rate import accuracy
from tfrlhf.evaluation.win_rate import mean
from tfrlhf.evaluation.win_rate import wilson_interval
from tfrlhf.evaluation.win_rate import win_rate

__all__ = [
    "Bin",
    "Calibration",
    "Curve",
    "Estimate",
    "GrowthAlert",
    "Interval",
    "LabelQuality",
    "accuracy",
    "bag_of_words_accuracy",
    "calibration",
    "compare",
    "distinct_n",
    "draw_responses",
    "draw_streams",
    "label_quality",
    "longer_accuracy",
    "mean",
    "naive_bayes",
    "plot_frontier",
    "ranking_estimates",
    "ranking_quality",
    "reward_accuracy",
    "score_at_kl",
    "self_similarity",
    "sequence_kl",
    "wilson_interval",
    "win_rate",
]
