"""Every formula of ops/ and losses/ once more, as slow float64 loops.

Nothing is imported from tfrlhf. Masked slots are never read.
"""

import math

import numpy as np


def _log_sum_exp(numbers):
    top = max(numbers)
    return top + math.log(sum(math.exp(n - top) for n in numbers))


def _softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0.0)


def _unmasked(mask_row):
    return [t for t, counts in enumerate(mask_row) if counts]


def zero_outside(x, mask):
    out = np.zeros(np.shape(x))
    for index in np.ndindex(*out.shape):
        if mask[index]:
            out[index] = x[index]
    return out


def masked_mean(x, mask):
    counted = [v for v, m in zip(np.ravel(x), np.ravel(mask), strict=True) if m]
    return np.float64(sum(counted) / len(counted)) if counted else np.float64(0)


def masked_variance(x, mask):
    counted = [v for v, m in zip(np.ravel(x), np.ravel(mask), strict=True) if m]
    if not counted:
        return np.float64(0)
    mean = sum(counted) / len(counted)
    return np.float64(sum((v - mean) ** 2 for v in counted) / len(counted))


def whiten(x, mask, shift_mean=True, mean=None, variance=None):
    if mean is None:
        mean, variance = masked_mean(x, mask), masked_variance(x, mask)
    out = np.zeros(np.shape(x))
    for index in np.ndindex(*out.shape):
        if mask[index]:
            out[index] = (x[index] - mean) / math.sqrt(variance + 1e-8)
            out[index] += 0.0 if shift_mean else mean
    return out


def token_log_probs(logits, token_ids, temperature=1.0):
    out = np.zeros(token_ids.shape)
    for index in np.ndindex(*out.shape):
        scaled = [logit / temperature for logit in logits[index]]
        out[index] = scaled[token_ids[index]] - _log_sum_exp(scaled)
    return out


def entropy(logits, temperature=1.0):
    out = np.zeros(logits.shape[:-1])
    for index in np.ndindex(*out.shape):
        scaled = [logit / temperature for logit in logits[index]]
        total = _log_sum_exp(scaled)
        for logit in scaled:
            if logit > -math.inf:
                out[index] -= math.exp(logit - total) * (logit - total)
    return out


def _kl(log_prob, ref_log_prob, kind):
    difference = log_prob - ref_log_prob
    if kind == "k1":
        return difference
    if kind == "k2":
        return difference * difference / 2
    return math.exp(-difference) - 1 + difference


def kl_estimate(log_probs, ref_log_probs, kind="k1"):
    out = np.zeros(log_probs.shape)
    for index in np.ndindex(*out.shape):
        out[index] = _kl(log_probs[index], ref_log_probs[index], kind)
    return out


def token_rewards(
    scores, log_probs, ref_log_probs, mask, kl_weight, kind="k1", clip=None
):
    out = np.zeros(mask.shape)
    for row, mask_row in enumerate(mask):
        response = _unmasked(mask_row)
        for t in response:
            kl = _kl(log_probs[row, t], ref_log_probs[row, t], kind)
            if clip is not None:
                kl = min(max(kl, -clip), clip)
            out[row, t] = -kl_weight * kl
        if response:
            out[row, response[-1]] += scores[row]
    return out


def gae(rewards, values, mask, discount=1.0, decay=0.95, bootstrap_values=None):
    """Deletes the masked tokens, then runs the recursion backwards."""
    advantages, returns = np.zeros(mask.shape), np.zeros(mask.shape)
    for row, mask_row in enumerate(mask):
        advantage = 0.0
        value_after = 0.0 if bootstrap_values is None else bootstrap_values[row]
        for t in reversed(_unmasked(mask_row)):
            delta = rewards[row, t] + discount * value_after - values[row, t]
            advantage = delta + discount * decay * advantage
            advantages[row, t] = advantage
            returns[row, t] = advantage + values[row, t]
            value_after = values[row, t]
    return advantages, returns


def discounted_returns(rewards, mask, discount=1.0):
    out = np.zeros(mask.shape)
    for row, mask_row in enumerate(mask):
        total = 0.0
        for t in reversed(_unmasked(mask_row)):
            total = rewards[row, t] + discount * total
            out[row, t] = total
    return out


def last_token_index(mask):
    return np.array([max(_unmasked(row), default=0) for row in mask])


def truncate_at_stop(token_ids, mask, stop_token_ids):
    kept, finished = np.zeros(mask.shape), np.zeros(len(mask))
    for row, mask_row in enumerate(mask):
        for t in _unmasked(mask_row):
            kept[row, t] = 1
            if token_ids[row, t] in stop_token_ids:
                finished[row] = 1
                break
    return kept, finished


def clipped_policy_loss(
    log_probs,
    old_log_probs,
    advantages,
    mask,
    low,
    high,
    dual=math.inf,
    level="token",
):
    out = np.zeros(mask.shape)
    for row, column in np.ndindex(*out.shape):
        if not mask[row, column]:
            continue
        changes = [
            log_probs[row, t] - old_log_probs[row, t]
            for t in range(mask.shape[1])
            if mask[row, t] and (level == "sequence" or t == column)
        ]
        ratio = math.exp(sum(changes) / len(changes))
        clipped = min(max(ratio, 1 - low), 1 + high)
        advantage = advantages[row, column]
        loss = max(-advantage * ratio, -advantage * clipped)
        if advantage < 0:
            loss = min(loss, -advantage * dual)
        out[row, column] = loss
    return out


def clipped_value_loss(values, old_values, returns, mask, clip=0.2):
    out = np.zeros(mask.shape)
    for index in np.ndindex(*out.shape):
        if mask[index]:
            value, old, target = (
                values[index],
                old_values[index],
                returns[index],
            )
            error = (value - target) ** 2
            if clip is not None:
                clipped = min(max(value, old - clip), old + clip)
                error = max(error, (clipped - target) ** 2)
            out[index] = error / 2
    return out


def pairwise_ranking_loss(chosen, rejected, margin=0.0, label_smoothing=0.0):
    out = np.zeros(len(chosen))
    for row in range(len(chosen)):
        shift = np.broadcast_to(margin, out.shape)[row]
        difference = chosen[row] - rejected[row] - shift
        out[row] = (1 - label_smoothing) * _softplus(-difference)
        out[row] += label_smoothing * _softplus(difference)
    return out


def pairwise_ranking(scores, ranks, margin=0.0, label_smoothing=0.0):
    """Mean over the pairs of unequal rank of each row."""
    out = np.zeros(len(scores))
    for row, row_ranks in enumerate(ranks):
        losses = [
            pairwise_ranking_loss(
                scores[row, i : i + 1],
                scores[row, j : j + 1],
                margin,
                label_smoothing,
            )[0]
            for i, first in enumerate(row_ranks)
            for j, second in enumerate(row_ranks)
            if 0 <= first < second
        ]
        out[row] = sum(losses) / len(losses) if losses else 0.0
    return out


def listwise_ranking_loss(scores, ranks):
    out = np.zeros(len(scores))
    for row, row_ranks in enumerate(ranks):
        for i, rank in enumerate(row_ranks):
            if rank >= 0:
                rivals = [scores[row, i]]
                for j, other in enumerate(row_ranks):
                    if other > rank:
                        rivals.append(scores[row, j])
                out[row] += _log_sum_exp(rivals) - scores[row, i]
    return out


def best_of_n_loss(scores, best):
    out = np.zeros(len(scores))
    for row, row_scores in enumerate(scores):
        out[row] = _log_sum_exp(list(row_scores)) - row_scores[best[row]]
    return out


def best_of_n(scores, ranks):
    """Cross-entropy of the first best among the present candidates."""
    out = np.zeros(len(scores))
    for row, row_ranks in enumerate(ranks):
        present = [k for k, rank in enumerate(row_ranks) if rank >= 0]
        if present:
            best = min(present, key=lambda k: (row_ranks[k], k))
            total = _log_sum_exp([scores[row, k] for k in present])
            out[row] = total - scores[row, best]
    return out


def score_regression_loss(scores, ratings):
    return np.array(
        [(s - r) ** 2 for s, r in zip(scores, ratings, strict=True)]
    )


def score_cross_entropy_loss(scores, ratings):
    return np.array(
        [
            r * _softplus(-s) + (1 - r) * _softplus(s)
            for s, r in zip(scores, ratings, strict=True)
        ]
    )


def token_cross_entropy(log_probs, mask):
    out = np.zeros(mask.shape)
    for index in np.ndindex(*out.shape):
        if mask[index]:
            out[index] = -log_probs[index]
    return out


def dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, smoothing):
    out = np.zeros(len(chosen))
    for row in range(len(chosen)):
        ratio = chosen[row] - ref_chosen[row]
        h = beta * (ratio - (rejected[row] - ref_rejected[row]))
        out[row] = (1 - smoothing) * _softplus(-h) + smoothing * _softplus(h)
    return out


def robust_dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, flipped):
    """The unbiased estimate: the two plain losses, weighed to cancel."""
    right = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, beta, 0.0)
    wrong = dpo_loss(rejected, chosen, ref_rejected, ref_chosen, beta, 0.0)
    return ((1 - flipped) * right - flipped * wrong) / (1 - 2 * flipped)


def ipo_loss(chosen, rejected, ref_chosen, ref_rejected, beta):
    out = np.zeros(len(chosen))
    for row in range(len(chosen)):
        policy = chosen[row] - rejected[row]
        reference = ref_chosen[row] - ref_rejected[row]
        out[row] = (policy - reference - 0.5 / beta) ** 2
    return out


def simpo_loss(chosen, rejected, beta, margin):
    return np.array(
        [
            _softplus(-(beta * c - beta * r - margin))
            for c, r in zip(chosen, rejected, strict=True)
        ]
    )


def orpo_loss(chosen, rejected, beta):
    out = np.zeros(len(chosen))
    for row, logs in enumerate(zip(chosen, rejected, strict=True)):
        odds = [math.exp(x) / (1 - math.exp(x)) for x in logs]
        share = odds[0] / (odds[0] + odds[1])
        out[row] = -logs[0] - beta * math.log(share)
    return out


def kto_loss(policy, reference, ratings, kl, beta, good_weight, bad_weight):
    out = np.zeros(len(policy))
    for row, rating in enumerate(ratings):
        gain = beta * (policy[row] - reference[row] - max(kl[row], 0.0))
        if rating == 1:
            out[row] = good_weight * (1 - 1 / (1 + math.exp(-gain)))
        else:
            out[row] = bad_weight * (1 - 1 / (1 + math.exp(gain)))
    return out


def mean_over_pairs(loss, ranks, *log_probs):
    """Mean of a loss of (better, worse) over a row's pairs."""
    out = np.zeros(len(ranks))
    for row, row_ranks in enumerate(ranks):
        losses = [
            loss(*[x[row, k : k + 1] for x in log_probs for k in (i, j)])[0]
            for i, first in enumerate(row_ranks)
            for j, second in enumerate(row_ranks)
            if 0 <= first < second
        ]
        out[row] = sum(losses) / len(losses) if losses else 0.0
    return out
