"""What is seen of the options of losses, estimators and rules: numbers."""

import functools

import numpy as np
import tensorflow as tf

import tfrlhf
from tests.modes import MASK
from tests.modes import normal
from tfrlhf import losses
from tfrlhf.types import Completions
from tfrlhf.types import Experience
from tfrlhf.types import PolicyOutput


def of_gae(**changed):
    """Advantages and returns of a ragged batch."""
    rewards, values = normal(1, *MASK.shape), normal(2, *MASK.shape)
    made = tfrlhf.GAE(**changed)(rewards, values, tf.constant(MASK))
    return [x.numpy().tolist() for x in made]


def of_baseline(**changed):
    estimator = tfrlhf.MovingBaseline(**changed)
    made = []
    for seed in (1, 2, 3):
        rewards = tf.constant(1.0 + normal(seed, *MASK.shape))
        advantages, _ = estimator(rewards, None, tf.constant(MASK))
        made.append(advantages.numpy().tolist())
    return made


def of_loss(**changed):
    """The loss of a batch, far enough off for every clip."""
    floats = [normal(seed, *MASK.shape) for seed in range(8)]
    mask = tf.constant(MASK)
    batch = Experience(mask, mask, mask, *floats[:5])
    loss = losses.PPOLoss(**changed)(batch, PolicyOutput(*floats[5:]))
    return np.asarray(loss).tolist()


def of_kl_in_the_loss(**changed):
    return of_loss(kl_weight=0.1, **changed)


def of_estimator(kind):
    """What an estimator without values makes of rewards, once and again."""

    def observe(**changed):
        rewards = tf.constant(normal(1, *MASK.shape))
        advantages, _ = kind(**changed)(rewards, None, tf.constant(MASK))
        return advantages.numpy().tolist()

    return observe


def of_rule(kind, **usual):
    """The scores that a rule leaves of 1, for responses short and long."""

    def observe(**changed):
        mask = tf.constant(MASK)
        completions = Completions(
            mask, mask, mask, tf.constant([1, 0, 1, 0]), tf.zeros(MASK.shape)
        )
        rule = kind(**usual | changed)
        return rule(tf.ones([len(MASK)]), completions).numpy().tolist()

    return observe


def of_ranking(**changed):
    ranks, scores = [[0, 1, 2], [1, 0, -1]], normal(1, 2, 3)
    loss = losses.PairwiseRanking(**changed)(ranks, scores)
    return np.asarray(loss).tolist()


OPTIONS = {
    losses.PPOLoss: (
        of_loss,
        {
            "clip": (0.2, 0.5),
            "value_clip": None,
            "value_weight": 0.5,
            "entropy_weight": 0.1,
            "dual_clip": 1.05,
            "level": "sequence",
            "mean_over": "responses",
            "kl_weight": 0.1,
            "kl_kind": "k1",
        },
    ),
    tfrlhf.GroupRelative: (
        of_estimator(functools.partial(tfrlhf.GroupRelative, group_size=2)),
        {"group_size": 4, "scale": False},
    ),
    tfrlhf.LeaveOneOut: (
        of_estimator(functools.partial(tfrlhf.LeaveOneOut, group_size=2)),
        {"group_size": 4},
    ),
    tfrlhf.WhitenedReturns: (
        of_estimator(tfrlhf.WhitenedReturns),
        {"discount": 0.9},
    ),
    tfrlhf.RewardWeighted: (
        of_estimator(tfrlhf.RewardWeighted),
        {"minimum": -0.5},
    ),
    tfrlhf.AdvantageWeighted: (
        of_estimator(tfrlhf.AdvantageWeighted),
        {"temperature": 0.5, "limit": 1.1},
    ),
    tfrlhf.MissingEndPenalty: (
        of_rule(tfrlhf.MissingEndPenalty, penalty=1.0),
        {"penalty": 2.0},
    ),
    tfrlhf.LengthPenalty: (
        of_rule(tfrlhf.LengthPenalty, free=2, limit=6),
        {"free": 3, "limit": 7, "penalty": 2.0},
    ),
    tfrlhf.GAE: (
        of_gae,
        {
            "discount": 0.9,
            "decay": 0.5,
            "whiten": False,
            "whiten_rewards": True,
            "unbiased": True,
            "when": "minibatch",
        },
    ),
    losses.PairwiseRanking: (
        of_ranking,
        {"margin": 0.5, "label_smoothing": 0.2},
    ),
    tfrlhf.MovingBaseline: (of_baseline, {"momentum": 0.5, "discount": 0.9}),
}
