"""Losses that teach a policy from preferences directly, without a reward model.

The functions take log-probabilities of whole responses and return one loss a
pair, or one a response. `log_probs` are sums over the tokens of a response,
`mean_log_probs` their sum divided by their number.
"""

import tensorflow as tf

from tfrlhf import checks
from tfrlhf.types import Tensor

# Odds are those of a probability of e^-1e-7 at the most, to stay finite.
SURE = -1e-7


def dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimisation: logistic loss on implicit rewards.

    (1 - e)·softplus(-h) + e·softplus(h), with
    h = β·((policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)).
    Rafailov et al., 2023 (https://arxiv.org/abs/2305.18290); e > 0 is cDPO,
    Mitchell, 2023 (https://ericmitchell.ai/cdpo.pdf), least at
    h = log((1 - e) / e).

    Args:
        policy_chosen: float32 [B], log-probability of the better response.
        policy_rejected: float32 [B], of the worse response.
        ref_chosen: float32 [B], the reference's of the better response.
        ref_rejected: float32 [B], the reference's of the worse response.
        beta: β > 0, how close the policy stays to the reference.
        label_smoothing: e, the share of labels taken to be wrong, in [0, 1].

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or an
            argument is out of range.

    Example:
        >>> loss = dpo_loss([-1.0], [-4.0], [-2.0], [-3.0], beta=0.5)
        >>> round(float(loss[0]), 4)
        0.3133
    """
    checks.within("label_smoothing", label_smoothing, 0.0, 1.0)
    h = beta * _log_ratio_difference(
        policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta
    )
    loss = (1.0 - label_smoothing) * tf.math.softplus(-h)
    return loss + label_smoothing * tf.math.softplus(h)


def robust_dpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
    label_smoothing: float = 0.1,
) -> Tensor:
    """DPO's loss as it would be without the wrong labels, in expectation.

    ((1 - e)·softplus(-h) - e·softplus(h)) / (1 - 2e), h as in `dpo_loss`.
    Chowdhury et al., 2024 (https://arxiv.org/abs/2403.00409). Where a share e
    of the labels was flipped at random, its mean is that of `dpo_loss` on the
    right labels. It has no lower bound: a single pair pushes for ever.

    Args:
        policy_chosen: float32 [B], log-probability of the better response.
        policy_rejected: float32 [B], of the worse response.
        ref_chosen: float32 [B], the reference's of the better response.
        ref_rejected: float32 [B], the reference's of the worse response.
        beta: β > 0, how close the policy stays to the reference.
        label_smoothing: e, the share of labels that are wrong, in [0, 0.5).

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or an
            argument is out of range.

    Example:
        >>> loss = robust_dpo_loss([-1.0], [-4.0], [-2.0], [-3.0], beta=0.5)
        >>> round(float(loss[0]), 4)
        0.1883
    """
    checks.within("label_smoothing", label_smoothing, 0.0, 1.0)
    checks.positive("1 - 2 · label_smoothing", 1.0 - 2.0 * label_smoothing)
    h = beta * _log_ratio_difference(
        policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta
    )
    right = (1.0 - label_smoothing) * tf.math.softplus(-h)
    wrong = label_smoothing * tf.math.softplus(h)
    return (right - wrong) / (1.0 - 2.0 * label_smoothing)


def ipo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float = 0.1,
) -> Tensor:
    """Identity preference optimisation: the margin is to be 1 / (2β).

    (d - 1 / (2β))², with
    d = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected).
    Azar et al., 2023 (https://arxiv.org/abs/2310.12036), where β is τ. The
    trainer gives it mean log-probabilities, as TRL does after asking the
    authors: sums would make long responses far from the goal.

    Args:
        policy_chosen: float32 [B], log-probability of the better response.
        policy_rejected: float32 [B], of the worse response.
        ref_chosen: float32 [B], the reference's of the better response.
        ref_rejected: float32 [B], the reference's of the worse response.
        beta: β > 0, how close the policy stays to the reference.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or β is
            not positive.

    Example:
        >>> float(ipo_loss([-1.0], [-4.0], [-2.0], [-3.0], beta=0.1)[0])
        9.0
    """
    difference = _log_ratio_difference(
        policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta
    )
    return tf.square(difference - 1.0 / (2.0 * beta))


def simpo_loss(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    beta: float = 2.0,
    margin: float = 0.5,
) -> Tensor:
    """Simple preference optimisation: no reference, but a margin to reach.

    softplus(-(β·(policy_chosen - policy_rejected) - γ)).
    Meng et al., 2024 (https://arxiv.org/abs/2405.14734).

    Args:
        policy_chosen: float32 [B], mean log-probability of a token of the
            better response.
        policy_rejected: float32 [B], of the worse response.
        beta: β > 0, the scale of the implicit reward.
        margin: γ, by which the better response's reward is to be larger.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or β is
            not positive.

    Example:
        >>> loss = simpo_loss([-1.0], [-1.75], beta=2.0, margin=0.5)
        >>> round(float(loss[0]), 4)
        0.3133
    """
    checks.positive("beta", beta)
    chosen, rejected = _log_probs(
        policy_chosen=policy_chosen, policy_rejected=policy_rejected
    )
    return tf.math.softplus(margin - beta * (chosen - rejected))


def orpo_loss(
    policy_chosen: Tensor, policy_rejected: Tensor, beta: float = 0.1
) -> Tensor:
    """Odds ratio preference optimisation: imitation with a penalty.

    -policy_chosen + β·softplus(-(logit p_chosen - logit p_rejected)), where
    p = exp(mean log-probability) and logit p = log(p / (1 - p)).
    Hong et al., 2024 (https://arxiv.org/abs/2403.07691), where β is λ.

    Args:
        policy_chosen: float32 [B], mean log-probability of a token of the
            better response; above -1e-7 it counts as -1e-7 in the odds.
        policy_rejected: float32 [B], of the worse response.
        beta: β > 0, the weight of the odds ratio.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or β is
            not positive.

    Example:
        >>> chosen, rejected = tf.math.log([0.5]), tf.math.log([0.25])
        >>> round(float(orpo_loss(chosen, rejected, beta=1.0)[0]), 4)
        0.9808
    """
    checks.positive("beta", beta)
    chosen, rejected = _log_probs(
        policy_chosen=policy_chosen, policy_rejected=policy_rejected
    )
    log_odds_ratio = _logit(chosen) - _logit(rejected)
    return beta * tf.math.softplus(-log_odds_ratio) - chosen


def kto_loss(
    policy: Tensor,
    reference: Tensor,
    ratings: Tensor,
    kl: Tensor,
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: single responses, good or bad.

    w·(1 - sigmoid(s·β·((policy - reference) - max(z, 0)))), with s = 1 and
    w = `desirable_weight` for a good response, s = -1 and
    w = `undesirable_weight` for a bad one.
    Ethayarajh et al., 2024 (https://arxiv.org/abs/2402.01306).

    Args:
        policy: float32 [B], log-probability of the response.
        reference: float32 [B], the reference's.
        ratings: float32 [B], 1 for a good response, 0 for a bad one.
        kl: z, float32 [B], the mean log-ratio of policy and reference on
            responses that belong to other prompts; without a gradient.
        beta: β > 0, how close the policy stays to the reference.
        desirable_weight: at least 0.
        undesirable_weight: at least 0.

    Returns:
        float32 [B].

    Raises:
        ValueError: if a dtype or rank is wrong, the shapes differ, or an
            argument is out of range.

    Example:
        >>> policy, reference = [-2.0, -2.0], [-5.0, -5.0]
        >>> loss = kto_loss(policy, reference, [1.0, 0.0], [1.0, 1.0], 0.5)
        >>> [round(float(x), 4) for x in loss]
        [0.2689, 0.7311]
    """
    checks.positive("beta", beta)
    checks.within("desirable_weight", desirable_weight, 0.0)
    checks.within("undesirable_weight", undesirable_weight, 0.0)
    policy, reference, ratings, kl = _log_probs(
        policy=policy, reference=reference, ratings=ratings, kl=kl
    )
    reward = policy - reference - tf.maximum(kl, 0.0)
    good = ratings > 0.5
    weight = tf.where(good, desirable_weight, undesirable_weight)
    # 1 - sigmoid(x) is sigmoid(-x).
    return weight * tf.sigmoid(beta * tf.where(good, -reward, reward))


def _log_ratio_difference(
    policy_chosen: Tensor,
    policy_rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    beta: float,
) -> Tensor:
    checks.positive("beta", beta)
    chosen, rejected, ref_chosen, ref_rejected = _log_probs(
        policy_chosen=policy_chosen,
        policy_rejected=policy_rejected,
        ref_chosen=ref_chosen,
        ref_rejected=ref_rejected,
    )
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def _log_probs(**arrays: Tensor) -> list[Tensor]:
    tensors = {
        name: checks.float_tensor(name, x, rank=1) for name, x in arrays.items()
    }
    checks.same_shape(**tensors)
    return list(tensors.values())


def _logit(log_prob: Tensor) -> Tensor:
    log_prob = tf.minimum(log_prob, SURE)
    return log_prob - tf.math.log(-tf.math.expm1(log_prob))
