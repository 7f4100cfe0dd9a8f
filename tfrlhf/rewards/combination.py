"""Several rewards in one, each of them logged."""

import math
import re
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

RewardFunction = Callable[..., Sequence[float]]

_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


class Combined:
    """The weighted sum of rewards; `combine` makes it.

    Attributes:
        parts: the scores of the last call by the names of the parts, before
            they are weighed. PPO logs the mean of each as `rewards/<name>`.
        weights: the weights by the names of the parts.
    """

    def __init__(
        self, rewards: dict[str, RewardFunction], weights: dict[str, float]
    ) -> None:
        self.rewards = rewards
        self.weights = weights
        self.parts: dict[str, list[float]] = {}

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns Σ weight · score for each response."""
        self.parts = {}
        parts = {
            name: _checked(
                name, reward(prompts, responses, **columns), len(responses)
            )
            for name, reward in self.rewards.items()
        }
        self.parts = parts
        return [
            sum(self.weights[name] * parts[name][row] for name in parts)
            for row in range(len(responses))
        ]


def combine(parts: Mapping[Any, Any]) -> Combined:
    """Makes one reward of several: Σ weight · reward.

    Args:
        parts: `{name: (reward, weight)}`, or `{reward: weight}`, whose names
            are then those of the functions and classes in snake case. A reward
            is any callable `(prompts, responses, **columns) -> list[float]`,
            or a `RewardModel`.

    Returns:
        The reward. After a call its `parts` hold the scores of each part.

    Raises:
        ValueError: no part, two of one name, or a weight that is not finite.

    Example:
        >>> reward = combine({Length(longest=2): 1.0, Repetition(n=1): 0.5})
        >>> reward([""], ["a a a a"])
        [-1.375]
        >>> reward.parts
        {'length': [-1.0], 'repetition': [-0.75]}
    """
    if not parts:
        raise ValueError("`combine` needs at least one reward with its weight.")
    rewards: dict[str, RewardFunction] = {}
    weights: dict[str, float] = {}
    for key, value in parts.items():
        name, reward, weight = _named(key, value)
        if name in rewards:
            raise ValueError(
                f"Two parts of `combine` are called {name!r}: name them, "
                '`{"name": (reward, weight)}`.'
            )
        if not math.isfinite(weight):
            raise ValueError(
                f"The weight of {name!r} must be finite. Received: {weight}"
            )
        rewards[name] = reward
        weights[name] = float(weight)
    return Combined(rewards, weights)


def _named(key: Any, value: Any) -> tuple[str, RewardFunction, float]:
    if isinstance(key, str):
        if not isinstance(value, tuple) or len(value) != 2:
            raise ValueError(
                f"The part {key!r} of `combine` must be a pair (reward, "
                f"weight). Received: {value!r}"
            )
        return key, _function(value[0]), value[1]
    if hasattr(key, "__name__"):
        name = str(key.__name__)
    else:
        name = _WORD_START.sub("_", type(key).__name__).lower()
    if not name.isidentifier():
        raise ValueError(
            f"A part of `combine` is {name}, which is no name for a metric: "
            'name it, `{"name": (reward, weight)}`.'
        )
    return name, _function(key), value


def _function(reward: Any) -> RewardFunction:
    # A reward model, whose own call is on ids.
    if hasattr(reward, "as_function"):
        return reward.as_function()
    if not callable(reward):
        raise ValueError(
            "A part of `combine` must be a reward: a callable (prompts, "
            f"responses, **columns), or a RewardModel. Received: {reward!r}"
        )
    return reward


def _checked(name: str, scores: Sequence[float], rows: int) -> list[float]:
    found = [float(score) for score in scores]
    if len(found) != rows or not all(map(math.isfinite, found)):
        raise ValueError(
            f"The part {name!r} must return one finite number for each of "
            f"{rows} responses. Received: {found}"
        )
    return found
