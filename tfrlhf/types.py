"""What flows between the parts: the carriers, their shapes, two rules.

Shapes: B sequences or prompts, S padded length, K candidates of one prompt,
V vocabulary, H hidden size. Token ids and masks are int32, everything else is
float32; a mask is 1 where a position counts. Sequences are right-padded and a
response continues its prompt in place.

Alignment rule: index t of every per-token array speaks about
`token_ids[:, t]`. `log_probs[:, t]` is the log-probability of that token given
the ones before it; `values[:, t]` is the value of the state before that token
is chosen (column 0 is 0).

Masking rule: masked slots may hold anything, NaN included. Inputs are replaced
by 0 with `tf.where` before arithmetic, outputs outside the mask are 0.
"""

from typing import Any
from typing import NamedTuple
from typing import TypeAlias

# TensorFlow ships no static types; the docstrings give dtype and shape.
Tensor: TypeAlias = Any


class Prompts(NamedTuple):
    """What the policy continues.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
    """

    token_ids: Tensor
    padding_mask: Tensor


class Completions(NamedTuple):
    """Prompts with the responses that were sampled for them.

    Attributes:
        token_ids: int32 [B, S], the pad id after the response.
        padding_mask: int32 [B, S], prompt and response.
        response_mask: int32 [B, S], the stop token included.
        finished: int32 [B], 1 stopped by itself, 0 cut by length.
        sampler_log_probs: float32 [B, S], as the sampler saw them.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    finished: Tensor
    sampler_log_probs: Tensor


class Rollout(NamedTuple):
    """Completions seen by policy, reference, value model and reward.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        response_mask: int32 [B, S].
        finished: int32 [B].
        sampler_log_probs: float32 [B, S].
        log_probs: float32 [B, S], of the policy at rollout time.
        ref_log_probs: float32 [B, S], of the frozen reference.
        values: float32 [B, S], 0 without a value model.
        scores: float32 [B], one per sequence.
        step_rewards: float32 [B, S], what of the scores lies where steps end;
            the rest lies on the last token.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    finished: Tensor
    sampler_log_probs: Tensor
    log_probs: Tensor
    ref_log_probs: Tensor
    values: Tensor
    scores: Tensor
    step_rewards: Tensor


class Experience(NamedTuple):
    """What one policy optimisation step learns from.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        response_mask: int32 [B, S].
        old_log_probs: float32 [B, S], at rollout time.
        old_values: float32 [B, S], at rollout time.
        advantages: float32 [B, S].
        returns: float32 [B, S], the target of the value model.
        ref_log_probs: float32 [B, S], of the reference, for a KL in the loss.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    old_log_probs: Tensor
    old_values: Tensor
    advantages: Tensor
    returns: Tensor
    ref_log_probs: Tensor


class Preferences(NamedTuple):
    """K responses to one prompt, ordered by a human.

    Attributes:
        token_ids: int32 [B, K, S].
        padding_mask: int32 [B, K, S].
        response_mask: int32 [B, K, S].
        ranks: int32 [B, K], 0 = best, -1 = absent.
        weight: float32 [B].
        margin: float32 [B], by how much the score of a response should exceed
            that of one a rank below; for a policy, the implicit reward.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    ranks: Tensor
    weight: Tensor
    margin: Tensor


class Ratings(NamedTuple):
    """One response with a number that a human gave it.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        response_mask: int32 [B, S].
        rating: float32 [B].
        weight: float32 [B].
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    rating: Tensor
    weight: Tensor


class StepRatings(NamedTuple):
    """One response with a number for each of its steps.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        response_mask: int32 [B, S].
        step_mask: int32 [B, S], 1 on the last token of a step.
        rating: float32 [B, S], 0 elsewhere.
        weight: float32 [B].
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    step_mask: Tensor
    rating: Tensor
    weight: Tensor


class ReferencedPreferences(NamedTuple):
    """Preferences with what the frozen reference says of them.

    Attributes:
        token_ids: int32 [B, K, S].
        padding_mask: int32 [B, K, S].
        response_mask: int32 [B, K, S].
        ranks: int32 [B, K], 0 = best, -1 = absent.
        weight: float32 [B].
        margin: float32 [B], see `Preferences`.
        ref_log_probs: float32 [B, K], of whole responses.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    ranks: Tensor
    weight: Tensor
    margin: Tensor
    ref_log_probs: Tensor


class ReferencedRatings(NamedTuple):
    """Ratings with what the frozen reference says of them.

    Attributes:
        token_ids: int32 [B, 2, S], the rated response, and the same prompt
            with another prompt's response.
        padding_mask: int32 [B, 2, S].
        response_mask: int32 [B, 2, S].
        rating: float32 [B], 1 good, 0 bad.
        weight: float32 [B].
        ref_log_probs: float32 [B, 2], of whole responses.
        kl: float32 [B], the batch's mean log-ratio of policy and reference on
            the other responses; 0 until a step knows it.
    """

    token_ids: Tensor
    padding_mask: Tensor
    response_mask: Tensor
    rating: Tensor
    weight: Tensor
    ref_log_probs: Tensor
    kl: Tensor


class Examples(NamedTuple):
    """Text to imitate.

    Attributes:
        token_ids: int32 [B, S].
        padding_mask: int32 [B, S].
        loss_mask: int32 [B, S], 1 on the tokens to learn.
    """

    token_ids: Tensor
    padding_mask: Tensor
    loss_mask: Tensor


class PolicyOutput(NamedTuple):
    """What a learner computes for a batch of experience.

    Attributes:
        log_probs: float32 [B, S].
        values: float32 [B, S], 0 without a value model.
        entropy: float32 [B, S], 0 where the loss has no use for it.
    """

    log_probs: Tensor
    values: Tensor
    entropy: Tensor


class PreferenceOutput(NamedTuple):
    """What a preference loss reads of compared responses.

    Attributes:
        log_probs: float32 [B, K], of whole responses, or their mean a token.
        ref_log_probs: float32 [B, K], the reference's; 0 where the loss has no
            use for it.
    """

    log_probs: Tensor
    ref_log_probs: Tensor


class RatingOutput(NamedTuple):
    """What a preference loss reads of single responses.

    Attributes:
        log_probs: float32 [B], of whole responses.
        ref_log_probs: float32 [B], the reference's.
        kl: float32 [B], the mean log-ratio on responses to other prompts.
    """

    log_probs: Tensor
    ref_log_probs: Tensor
    kl: Tensor
