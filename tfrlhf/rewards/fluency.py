"""How likely a language model finds a response."""

from typing import Any
from typing import Protocol

from tfrlhf.rewards.arguments import at_least


class LanguageModel(Protocol):
    """What `NegativePerplexity` asks of a model; a `Policy` has it."""

    def perplexity(
        self, prompts: list[str], responses: list[str], batch_size: int = 64
    ) -> Any:
        """Returns B perplexities, at least 1."""


class NegativePerplexity:
    """Scores a response by its perplexity, taken off.

    −min(limit, exp(−1/T · Σ_t log p(token_t | prompt, tokens before t))), over
    the T tokens of the response, EOS included, at temperature 1
    (`Policy.perplexity`).

    Args:
        policy: the `Policy` that judges; one of its own or a `frozen_copy`, or
            the judgement changes with the policy that learns.
        limit: what a perplexity counts at the most, since one response may
            have millions; at least 1.
        batch_size: responses at a time.

    Example:
        >>> reward = NegativePerplexity(tfrlhf.frozen_copy(policy))
        >>> reward(["The park"], [" is large."])
        [-27.4]
    """

    def __init__(
        self,
        policy: LanguageModel,
        limit: float = 1000.0,
        batch_size: int = 64,
    ) -> None:
        at_least("limit", limit, 1)
        at_least("batch_size", batch_size, 1)
        self.policy = policy
        self.limit = limit
        self.batch_size = batch_size

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, from −limit to −1."""
        found = self.policy.perplexity(prompts, responses, self.batch_size)
        return [-min(self.limit, float(x)) for x in found]
