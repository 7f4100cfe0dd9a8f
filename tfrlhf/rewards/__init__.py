"""Reward functions over text, a family of them in one file.

A reward is any callable `(prompts: list[str], responses: list[str],
**columns) -> list[float]`. The functions here know no model and no data set.
"""

from tfrlhf.rewards.courtesy import courtesy

__all__ = ["courtesy"]
