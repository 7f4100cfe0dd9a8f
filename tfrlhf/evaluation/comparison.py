"""One table for a policy before and after training."""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import numpy as np

from tfrlhf.data import prompt_texts
from tfrlhf.evaluation.diversity import distinct_n
from tfrlhf.evaluation.diversity import self_similarity
from tfrlhf.evaluation.likelihood import sequence_kl
from tfrlhf.evaluation.win_rate import win_rate
from tfrlhf.models import Policy
from tfrlhf.models import Sampler
from tfrlhf.types import Completions

Score = Callable[[list[str], list[str]], Sequence[float]]


def draw_responses(
    policy: Policy, prompts: list[Any], sampler: Sampler, seed: int = 0
) -> tuple[list[str], Completions]:
    """Samples one response a prompt, as text and as ids.

    Args:
        policy: who answers.
        prompts: B strings, or lists of messages.
        sampler: how responses are drawn; needs `max_new_tokens`.
        seed: int.

    Returns:
        B texts, and the `Completions` of B rows, such as `sequence_kl` takes.

    Example:
        >>> texts, drawn = draw_responses(policy, ["Hello"], sampler)
        >>> nats = sequence_kl(policy, reference, drawn, sampler.temperature)
    """
    ids = policy.encode_prompts(prompts, int(sampler.max_new_tokens or 0))
    drawn: Any = policy.generate(ids, sampler=sampler, seed=seed)
    return policy.decode_responses(drawn), drawn


def compare(
    before: Policy,
    after: Policy,
    prompts: list[Any],
    sampler: Sampler,
    score: Score,
    gold: Score,
    seed: int = 0,
) -> dict[str, Any]:
    """Samples one response a prompt from both policies and measures.

    Args:
        before: the policy training started from.
        after: the trained policy.
        prompts: strings, or lists of messages, that neither has been trained
            on; the scores get the text of `after`'s chat template.
        sampler: how responses are drawn.
        score: what was optimised, `(prompts, responses) -> scores`.
        gold: what should have been, likewise.
        seed: int.

    Returns:
        `reward_`, `gold_`, `length_` (tokens), `distinct2_` and
        `self_similarity_` `before` and `after`; `win_rate` by gold and
        `win_rate_stderr`; `kl` of `after` to `before` in nats; `prompts`,
        their number; and two `samples` [prompt, before, after].
    """
    result: dict[str, Any] = {"prompts": len(prompts)}
    responses: dict[str, list[str]] = {}
    golds: dict[str, Sequence[float]] = {}
    written = prompt_texts(prompts, after.need_tokenizer())
    for name, policy in (("before", before), ("after", after)):
        texts, completions = draw_responses(policy, prompts, sampler, seed)
        responses[name] = texts
        golds[name] = gold(written, texts)
        length = np.asarray(completions.response_mask).sum(axis=1)
        result |= {
            f"reward_{name}": float(np.mean(score(written, texts))),
            f"gold_{name}": float(np.mean(golds[name])),
            f"length_{name}": float(length.mean()),
            f"distinct2_{name}": distinct_n(texts),
            f"self_similarity_{name}": self_similarity(texts),
        }
    kl = sequence_kl(after, before, completions, sampler.temperature)
    won = win_rate(golds["after"], golds["before"])
    return result | {
        "win_rate": won.value,
        "win_rate_stderr": won.stderr,
        "kl": float(kl.mean()),
        "samples": [
            [written[i], responses["before"][i], responses["after"][i]]
            for i in (0, len(prompts) // 2)
        ],
    }
