"""Scores of completions: from a reward model on ids, or a function on text."""

import math
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfrlhf.models.ensemble import RewardEnsemble
from tfrlhf.models.policy import Policy
from tfrlhf.models.reward import RewardModel
from tfrlhf.types import Completions
from tfrlhf.types import Rollout
from tfrlhf.types import Tensor

Reward = RewardModel | RewardEnsemble | Callable[..., Sequence[float]]
# Rewards that are models, which score ids as well as text.
REWARD_MODELS = (RewardModel, RewardEnsemble)
# From scores [B] and `Completions` to the scores [B] that count.
ScoreRule = Callable[[Tensor, Completions], Tensor]


class RewardError(ValueError):
    """A reward function raised or returned something that is no reward."""


def scores_ids(reward: Reward, policy: Policy) -> bool:
    """Tells whether the reward reads the policy's own ids."""
    return (
        isinstance(reward, REWARD_MODELS)
        and reward.tokenizer is not None
        and policy.tokenizer is not None
        and reward.tokenizer.to_json() == policy.tokenizer.to_json()
    )


def with_end(
    completions: Completions | Rollout, end_id: int | None
) -> tuple[Tensor, Tensor]:
    """Ends the responses that do not end with EOS, as in the training data.

    A reward model has seen only sequences that end with EOS; without it the
    score of a response that was cut by length, or ended by another stop token,
    would be read at a token of another kind.

    Args:
        completions: `Completions`, or a `Rollout`, of B rows, S long.
        end_id: the EOS id; None changes nothing.

    Returns:
        token_ids and padding_mask, int32 [B, S + 1].
    """
    token_ids = tf.pad(completions.token_ids, [[0, 0], [0, 1]])
    padding_mask = tf.pad(completions.padding_mask, [[0, 0], [0, 1]])
    if end_id is None:
        return token_ids, padding_mask
    length = tf.reduce_sum(completions.padding_mask, axis=-1, keepdims=True)
    position = tf.range(tf.shape(token_ids)[1])[None, :]
    last = tf.gather(token_ids, length - 1, batch_dims=1)
    open_end = (position == length) & (last != end_id)
    token_ids = tf.where(open_end, end_id, token_ids)
    return token_ids, padding_mask + tf.cast(open_end, tf.int32)


def call_reward(
    reward: Callable[..., Sequence[float]],
    prompts: list[str],
    responses: list[str],
    columns: dict[str, list[Any]],
) -> np.ndarray:
    """Calls a reward function on text and checks what it returns.

    Args:
        reward: `(prompts, responses, **columns) -> list[float]`.
        prompts: B strings.
        responses: B strings.
        columns: further columns of the records, B values each.

    Returns:
        float32 [B].

    Raises:
        RewardError: the function raised, or returned a wrong number of scores
            or one that is not finite.
    """
    name = _name(reward)
    try:
        scores = reward(prompts, responses, **columns)
    except Exception as error:
        raise RewardError(
            f"The reward function {name} raised {type(error).__name__}: "
            f"{error} (on {len(responses)} responses, the first: "
            f"{responses[0]!r})."
        ) from error
    try:
        values = np.asarray([float(s) for s in scores], np.float32)
    except (TypeError, ValueError) as error:
        raise RewardError(
            f"The reward function {name} must return a list of "
            f"{len(responses)} numbers. Received: {_shortened(scores)}"
        ) from error
    if len(values) != len(responses):
        raise RewardError(
            f"The reward function {name} must return one score for each of "
            f"the {len(responses)} responses. Received: {len(values)} scores"
        )
    for score, response in zip(values, responses, strict=True):
        if not math.isfinite(score):
            raise RewardError(
                f"The reward function {name} returned {score} for the "
                f"response {response!r}: every score must be finite."
            )
    return values


def part_metrics(reward: Reward, completions: Completions) -> dict[str, float]:
    """Averages the parts of a reward that was just called.

    Args:
        reward: one with an attribute `parts`, a dict from names to the scores
            of its last call, as `rewards.combine` makes; any other has none.
        completions: `Completions` of B rows that it was called on.

    Returns:
        `rewards/<name>` to the mean; an empty response counts nowhere.
    """
    if not hasattr(reward, "parts"):
        return {}
    present = np.asarray(completions.response_mask).any(axis=-1)
    return {
        f"rewards/{name}": float(np.mean(np.asarray(scores)[present]))
        if present.any()
        else 0.0
        for name, scores in reward.parts.items()
    }


def _name(reward: Any) -> str:
    if hasattr(reward, "__qualname__"):
        return f"`{reward.__qualname__}`"
    return f"of type `{type(reward).__name__}`"


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else text[:200] + "…"
