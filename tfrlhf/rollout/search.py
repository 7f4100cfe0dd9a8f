"""Search without training: sample several responses a prompt, keep the best."""

import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from tfrlhf.data import batches_by_length
from tfrlhf.data import prompt_texts
from tfrlhf.models.policy import Policy
from tfrlhf.models.sampler import Sampler
from tfrlhf.rollout.prompt_records import as_columns
from tfrlhf.rollout.prompt_records import as_records
from tfrlhf.rollout.scoring import REWARD_MODELS
from tfrlhf.rollout.scoring import Reward
from tfrlhf.rollout.scoring import call_reward
from tfrlhf.rollout.scoring import scores_ids
from tfrlhf.rollout.scoring import with_end
from tfrlhf.types import Completions
from tfrlhf.types import Prompts


class BestOfN(NamedTuple):
    """The best of n sampled responses to each prompt.

    Attributes:
        prompts: B strings.
        responses: B strings, the best ones.
        scores: float32 [B], of the best ones.
        all_responses: B lists of n strings.
        all_scores: float32 [B, n].
        all_finished: int32 [B, n], 1 ended by itself, 0 cut by length.
        kl_bound: see `best_of_n_kl`.
    """

    prompts: list[str]
    responses: list[str]
    scores: np.ndarray
    all_responses: list[list[str]]
    all_scores: np.ndarray
    all_finished: np.ndarray
    kl_bound: float

    def pairs(self) -> list[dict[str, str]]:
        """Returns the best and the worst response of each prompt to compare.

        Of equal scores the first response counts; prompts whose responses
        all have the same score are left out.

        Returns:
            Records {"prompt", "chosen", "rejected"}, as `RewardModel` and
            `DPO` learn from.

        Example:
            >>> found = best_of_n(policy, reward, prompts, 2, sampler)
            >>> reward_model.fit(found.pairs())
        """
        return [
            {
                "prompt": prompt,
                "chosen": responses[scores.argmax()],
                "rejected": responses[scores.argmin()],
            }
            for prompt, responses, scores in zip(
                self.prompts, self.all_responses, self.all_scores, strict=True
            )
            if scores.min() < scores.max()
        ]


def best_of_n_kl(n: int) -> float:
    """Bounds the divergence of the best of n to the policy: ln n − (n − 1)/n.

    KL(best of n || policy) is at most this many nats, whatever the reward
    (Stiennon et al., 2020, https://arxiv.org/abs/2009.01325; that it is a
    bound: Beirami et al., 2024, https://arxiv.org/abs/2401.01879). Where no
    two responses have the same score and each is unlikely, it is the
    divergence.

    Args:
        n: responses a prompt, at least 1.

    Returns:
        In nats.

    Raises:
        ValueError: n is less than 1.

    Example:
        >>> round(best_of_n_kl(4), 4)
        0.6363
    """
    if n < 1:
        raise ValueError(f"`n` must be at least 1. Received: n={n}")
    return math.log(n) - (n - 1) / n


def best_of_n(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[Any],
    n: int,
    sampler: Sampler,
    seed: int = 0,
    batch_size: int = 64,
) -> BestOfN:
    """Samples n responses a prompt and takes the one with the highest score.

    Args:
        policy: the `Policy`, which stays as it is.
        reward: as in `PPO`; it scores ids where it has the policy's tokenizer.
        prompts: B strings, or records `{"prompt": ..., **columns}` whose
            columns reach a reward function.
        n: responses a prompt.
        sampler: how they are drawn; needs `max_new_tokens`.
        seed: int; the same seed and batch size give the same responses.
        batch_size: responses at a time, those of the shortest prompts first.

    Returns:
        `BestOfN`. Of equal scores the first response wins.

    Raises:
        ValueError: n is less than 1, or prompts that cannot be answered.
        RewardError: a reward function fails.

    Example:
        >>> found = best_of_n(policy, reward, prompts, 16, sampler)
        >>> found.responses[0], found.scores.mean(), found.kl_bound
    """
    bound = best_of_n_kl(n)
    records = as_records(prompts)
    responses: list[str] = []
    scores: list[np.ndarray] = []
    finished: list[np.ndarray] = []
    of_prompt: list[int] = []
    score = _scorer(policy, reward)
    for rows, completions in _sampled(
        policy, records, n, sampler, seed, batch_size
    ):
        texts = policy.decode_responses(completions)
        kept = slice(len(rows))
        found = score([records[i] for i in rows], texts[kept], completions)
        responses += texts[kept]
        scores.append(found[kept])
        finished.append(np.asarray(completions.finished)[kept])
        of_prompt += rows.tolist()
    back = np.argsort(of_prompt, kind="stable").reshape(len(records), n)
    table = np.concatenate(scores)[back]
    best = table.argmax(axis=1)
    each = [[responses[i] for i in row] for row in back]
    return BestOfN(
        prompts=[record["prompt"] for record in records],
        responses=[row[i] for row, i in zip(each, best, strict=True)],
        scores=table[np.arange(len(table)), best],
        all_responses=each,
        all_scores=table,
        all_finished=np.concatenate(finished)[back],
        kl_bound=bound,
    )


def rejection_sample(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[Any],
    n: int,
    sampler: Sampler,
    threshold: float | None = None,
    seed: int = 0,
    batch_size: int = 64,
) -> list[dict[str, Any]]:
    """Makes examples for `SFT` of the policy's own best responses.

    Left out are blank responses and those that were cut by length, which
    would teach the policy to end in the middle of a sentence; with a sampler
    that stops at nothing all are cut, and none is left out for it.

    Args:
        policy: see `best_of_n`.
        reward: see `best_of_n`.
        prompts: see `best_of_n`.
        n: responses a prompt.
        sampler: see `best_of_n`.
        threshold: keep every response, once a prompt, that scores at least
            this; None keeps the best one of each prompt.
        seed: see `best_of_n`.
        batch_size: see `best_of_n`.

    Returns:
        Records {"prompt", "response", "score"} in the order of the prompts.

    Raises:
        ValueError: no response is good enough, or see `best_of_n`.

    Example:
        >>> sft.fit(rejection_sample(policy, reward, prompts, 8, sampler))
    """
    found = best_of_n(policy, reward, prompts, n, sampler, seed, batch_size)
    stops = bool(policy.stop_token_ids(sampler))
    examples = []
    for row, prompt in enumerate(found.prompts):
        candidates: dict[str, float] = {}
        for response, score, finished in zip(
            found.all_responses[row],
            found.all_scores[row].tolist(),
            found.all_finished[row],
            strict=True,
        ):
            if response.strip() and (finished or not stops):
                candidates.setdefault(response, score)
        if threshold is None:
            kept = sorted(candidates, key=lambda r: -candidates[r])[:1]
        else:
            kept = [r for r, s in candidates.items() if s >= threshold]
        examples += [
            {"prompt": prompt, "response": r, "score": candidates[r]}
            for r in kept
        ]
    if not examples:
        raise ValueError(
            f"None of {found.all_scores.size} responses can be learned from: "
            f"the best scores {found.scores.max():.6g}, and "
            f"{int(found.all_finished.sum())} ended by themselves; lower "
            "`threshold`, or raise `n` or the sampler's `max_new_tokens`."
        )
    return examples


def _sampled(
    policy: Policy,
    records: list[dict[str, Any]],
    n: int,
    sampler: Sampler,
    seed: int,
    batch_size: int,
) -> Iterator[tuple[np.ndarray, Completions]]:
    """Yields the records' numbers and their completions, batch by batch."""
    limit = int(sampler.max_new_tokens or 0)
    texts = [record["prompt"] for record in records]
    encoded = policy.encode_prompts(texts, limit)
    size = min(batch_size, len(records) * n)
    batches = batches_by_length(encoded, size, each=n)
    for step, (chosen, prompts) in enumerate(batches):
        # A short batch would be compiled anew.
        missing = [[0, size - len(chosen)], [0, 0]]
        batch = Prompts(*(np.pad(x, missing, mode="edge") for x in prompts))
        completions: Any = policy.generate(
            batch, sampler=sampler, seed=(seed, step)
        )
        yield chosen, completions


def _scorer(policy: Policy, reward: Any) -> Callable[..., np.ndarray]:
    """Returns the function (records, responses, completions) to scores."""
    if scores_ids(reward, policy):
        end_id = policy.need_tokenizer().eos_id

        def of_ids(
            records: list[dict[str, Any]],
            responses: list[str],
            completions: Completions,
        ) -> np.ndarray:
            limit = reward.context_length
            ids, mask = with_end(completions, end_id)
            return np.asarray(reward.score(ids[:, :limit], mask[:, :limit]))

        return of_ids
    is_model = isinstance(reward, REWARD_MODELS)
    function = reward.as_function() if is_model else reward

    def of_text(
        records: list[dict[str, Any]],
        responses: list[str],
        completions: Completions,
    ) -> np.ndarray:
        prompts, columns = as_columns(records)
        if not is_model:  # A model writes messages by a template of its own.
            prompts = prompt_texts(prompts, policy.need_tokenizer())
        return call_reward(function, prompts, responses, columns)

    return of_text
