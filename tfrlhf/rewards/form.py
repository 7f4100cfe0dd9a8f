"""The outward form of a response: length, repetition, pattern."""

import re
from typing import Any

from tfrlhf.rewards.arguments import at_least
from tfrlhf.rewards.words import words


class Length:
    """Takes off for every word too many or too few.

    −(words outside shortest … longest) / longest: with `shortest` equal to
    `longest` a target, with 0 a limit. A CJK character is a word.

    Args:
        longest: the most words that cost nothing, at least 1.
        shortest: the fewest words that cost nothing.

    Example:
        >>> reward = Length(longest=4, shortest=2)
        >>> reward([""] * 3, ["one", "one two", "one two three four five six"])
        [-0.25, 0.0, -0.5]
    """

    def __init__(self, longest: int, shortest: int = 0) -> None:
        at_least("longest", longest, 1)
        if not 0 <= shortest <= longest:
            raise ValueError(
                "`shortest` must be between 0 and `longest`. Received: "
                f"shortest={shortest}, longest={longest}"
            )
        self.longest = longest
        self.shortest = shortest

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, at most 0."""
        return [self._score(len(words(response))) for response in responses]

    def _score(self, count: int) -> float:
        room = self.longest - count
        return min(0, count - self.shortest, room) / self.longest


class Repetition:
    """Takes off the share of n-grams that were there before.

    −(1 − distinct n-grams / n-grams) of the response's words; a CJK character
    is a word. 0 for a response of fewer than n words.

    Args:
        n: words of an n-gram, at least 1.

    Example:
        >>> reward = Repetition(n=2)
        >>> reward(["", ""], ["a b a b a b", "a b c"])
        [-0.6, 0.0]
    """

    def __init__(self, n: int = 3) -> None:
        at_least("n", n, 1)
        self.n = n

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, over −1 and at most 0."""
        return [self._score(words(response)) for response in responses]

    def _score(self, found: list[str]) -> float:
        count = len(found) - self.n + 1
        if count < 1:
            return 0.0
        distinct = {tuple(found[i : i + self.n]) for i in range(count)}
        return (len(distinct) - count) / count


class Format:
    """Scores 1 where a response has a form, else 0.

    Args:
        pattern: a regular expression of Python's `re`, or a compiled one.
        full: whether it must match the whole response, not a part of it.

    Raises:
        ValueError: the pattern is no regular expression.

    Example:
        >>> reward = Format("<think>.*</think>.+")
        >>> reward(["", ""], ["<think>2</think> 3", "3"])
        [1.0, 0.0]
    """

    def __init__(self, pattern: str | re.Pattern[str], full: bool = True):
        try:
            self.pattern = re.compile(pattern)
        except re.error as error:
            raise ValueError(
                "`pattern` must be a regular expression; this one is not, "
                f"{error}: {pattern!r}"
            ) from error
        self.full = full

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, 0 or 1."""
        look = self.pattern.fullmatch if self.full else self.pattern.search
        return [float(look(response) is not None) for response in responses]
