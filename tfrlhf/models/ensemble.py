"""Several reward models as one: what they agree on, and where they do not."""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrlhf import checks
from tfrlhf.models.reward import RewardModel
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.types import Tensor


class RewardEnsemble(keras.Model):
    """The scores of several reward models, reduced to one.

    A policy that is optimised against one reward model finds what this model
    is wrong about; a score that falls where the models disagree is harder to
    exploit (https://arxiv.org/abs/2310.02743). Over the M members:

    - "mean": the mean of their scores;
    - "min": the lowest score (worst-case optimisation);
    - "mean-std": mean − deviation_weight · deviation, with the biased standard
      deviation √(Σ(s − mean)² / M).

    Ranking losses leave scale and offset of a model's scores open: call
    `normalize` before scores of different models are compared.

    Args:
        members: at least two `RewardModel`s, which are not copied. Where all
            have the same tokenizer, ids can be scored as well as text.
        reduce: "mean", "min" or "mean-std".
        deviation_weight: of the deviation, for "mean-std".

    Raises:
        ValueError: fewer than two members, one that is no `RewardModel`, an
            unknown reduction, or a negative weight.

    Example:
        >>> ensemble = RewardEnsemble([one, another], reduce="mean-std")
        >>> ensemble.score(["Hi."], [" Hello!"])
        >>> ppo = PPO(policy, reward=ensemble)
    """

    def __init__(
        self,
        members: Sequence[RewardModel],
        reduce: str = "mean",
        deviation_weight: float = 1.0,
    ) -> None:
        super().__init__(name="reward_ensemble")
        checks.one_of("reduce", reduce, ("mean", "min", "mean-std"))
        checks.within("deviation_weight", deviation_weight, 0.0)
        kinds = [type(member).__name__ for member in members]
        if len(members) < 2 or not all(
            isinstance(member, RewardModel) for member in members
        ):
            raise ValueError(
                "`members` must be at least two RewardModels. Received: "
                f"[{', '.join(kinds)}]"
            )
        self.members = list(members)
        self.reduce = reduce
        self.deviation_weight = deviation_weight
        self.built = True

    @property
    def tokenizer(self) -> Tokenizer | None:
        """The tokenizer that all members have; None if they differ."""
        first = self.members[0].tokenizer
        written = {
            None if m.tokenizer is None else m.tokenizer.to_json()
            for m in self.members
        }
        return first if len(written) == 1 else None

    @property
    def context_length(self) -> int:
        """The longest sequence that every member takes, in tokens."""
        return min(member.context_length for member in self.members)

    def call(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Scores sequences.

        Args:
            token_ids: int32 [B, S], of the tokenizer that all members share.
            padding_mask: int32 [B, S], right-padded.
            training: whether dropout is on.

        Returns:
            float32 [B].
        """
        return self.reduced(self.each_score(token_ids, padding_mask, training))

    def each_score(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Returns what each member says of ids, float32 [M, B]; see `call`."""
        return tf.stack(
            [
                member.call(token_ids, padding_mask, training)
                for member in self.members
            ]
        )

    def reduced(self, scores: Tensor) -> Tensor:
        """Reduces the members' scores, float32 [M, B], to [B]."""
        if self.reduce == "min":
            return tf.reduce_min(scores, axis=0)
        mean = tf.reduce_mean(scores, axis=0)
        if self.reduce == "mean":
            return mean
        deviation = tf.math.reduce_std(scores, axis=0)
        return mean - self.deviation_weight * deviation

    def score(
        self, prompts: Any, responses: Any, batch_size: int = 64
    ) -> np.ndarray:
        """Scores text, or ids.

        Args:
            prompts: B strings, or token_ids int32 [B, S].
            responses: B strings, or padding_mask int32 [B, S].
            batch_size: how many texts to run at a time.

        Returns:
            float32 [B].
        """
        each = self.member_scores(prompts, responses, batch_size)
        return np.asarray(self.reduced(tf.constant(each)))

    def member_scores(
        self, prompts: Any, responses: Any, batch_size: int = 64
    ) -> np.ndarray:
        """Returns what each member says, float32 [M, B]; see `score`."""
        scores = [
            np.asarray(member.score(prompts, responses, batch_size))
            for member in self.members
        ]
        return np.stack(scores)

    def disagreement(
        self, prompts: Any, responses: Any, batch_size: int = 64
    ) -> np.ndarray:
        """Measures how far the members are apart.

        Args:
            prompts: B strings, or token_ids int32 [B, S].
            responses: B strings, or padding_mask int32 [B, S].
            batch_size: how many texts to run at a time.

        Returns:
            float32 [B], the biased standard deviation over the members.
        """
        return self.member_scores(prompts, responses, batch_size).std(axis=0)

    def normalize(
        self, prompts: Sequence[str], responses: Sequence[str]
    ) -> None:
        """Gives every member mean 0 and deviation 1 over these responses.

        Args:
            prompts: strings.
            responses: as many strings, usually samples of the policy.

        Raises:
            ValueError: a member gives every response the same score.
        """
        for member in self.members:
            member.normalize(prompts, responses)

    def as_function(self) -> "EnsembleFunction":
        """Returns the callable on text that every trainer takes as reward."""
        return EnsembleFunction(self)


class EnsembleFunction:
    """An ensemble as a reward on text; `RewardEnsemble.as_function` makes it.

    Attributes:
        disagreement: float32 [B], of the last call; see
            `RewardEnsemble.disagreement`.
    """

    def __init__(self, ensemble: RewardEnsemble) -> None:
        self.ensemble = ensemble
        self.disagreement = np.zeros([0], np.float32)

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Scores B texts."""
        each = self.ensemble.member_scores(prompts, responses)
        self.disagreement = each.std(axis=0)
        reduced: list[float] = (
            self.ensemble.reduced(tf.constant(each)).numpy().tolist()
        )
        return reduced
