"""Reward functions over text, a family of them in one file.

A reward is any callable `(prompts: list[str], responses: list[str],
**columns) -> list[float]`. The functions here know no model and no data set.
"""

from tfrlhf.rewards.courtesy import courtesy
from tfrlhf.rewards.sentiment import vader
from tfrlhf.rewards.words import words

__all__ = ["courtesy", "vader", "words"]
