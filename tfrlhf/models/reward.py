"""The reward model: one number for a prompt with its response."""

import pathlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import Self

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from tfrlhf import data
from tfrlhf import losses
from tfrlhf import ops
from tfrlhf.models import adapters
from tfrlhf.models import backbones
from tfrlhf.models import heads
from tfrlhf.models import start_check
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.compilation import resolve_jit
from tfrlhf.models.policy import UNLIMITED
from tfrlhf.models.policy import Policy
from tfrlhf.models.preset_files import read_settings
from tfrlhf.models.preset_files import read_tokenizer
from tfrlhf.models.preset_files import write_settings
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.models.trainable import BatchLosses
from tfrlhf.models.trainable import TrainableModel
from tfrlhf.models.trunk import WithTrunk
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings
from tfrlhf.types import Tensor

HEAD_FILE = "head.npz"


class RewardModel(WithTrunk, TrainableModel):
    """A backbone with a scalar head, learned from human judgements.

    The score is `gain · (w·h + b) + bias`, where h is the hidden state at the
    last token of the sequence; gain and bias are set by `normalize`. The head
    starts with standard deviation 1/√(H+1) and b = 0
    (https://arxiv.org/abs/1909.08593).

    Args:
        backbone: a KerasHub `Backbone`.
        tokenizer: `Tokenizer`; None to score ids only.
        context_length: the longest sequence in tokens; no limit if not given.
        head_stddev: standard deviation of the head's first weights; None for
            1/√(H+1).

    Example:
        >>> reward = RewardModel.from_policy(policy)
        >>> reward.compile("adam", loss=losses.PairwiseRanking())
        >>> reward.fit(preferences, batch_size=32, epochs=1)
        >>> reward.score(["Hi."], [" Hello!"])
    """

    metric_names: tuple[str, ...] = ("loss", "accuracy", "margin", "error")

    def __init__(
        self,
        backbone: keras.Model,
        tokenizer: Tokenizer | None = None,
        context_length: int = UNLIMITED,
        head_stddev: float | None = None,
    ) -> None:
        super().__init__(name="reward")
        size = heads.hidden_size(backbone)
        if head_stddev is None:
            head_stddev = (size + 1) ** -0.5
        self.backbone = backbone
        self.adapter: Adapter | None = None
        self.head = heads.scalar_head(size, head_stddev, "score")
        self.gain = self.add_weight(
            name="gain", initializer="ones", trainable=False
        )
        self.bias = self.add_weight(
            name="bias", initializer="zeros", trainable=False
        )
        self.tokenizer = tokenizer
        self.context_length = context_length
        self.built = True
        self._compile_score()

    @classmethod
    def from_policy(
        cls,
        policy: Policy,
        head_stddev: float | None = None,
        share_trunk: bool = False,
    ) -> Self:
        """Starts from a copy of a policy's weights.

        Args:
            policy: a `Policy` over a KerasHub model.
            head_stddev: see above.
            share_trunk: takes the policy's frozen backbone itself, with a copy
                of its adapter, which `Policy.enable_lora` gave it.

        Returns:
            A reward model that shares no variable that trains.
        """
        backbone = need_backbone(policy)
        if not share_trunk:
            backbone = adapters.own_backbone(backbone, policy.adapter)
        model = cls(
            backbone, policy.tokenizer, policy.context_length, head_stddev
        )
        if share_trunk:
            model.adapter = adapters.need(policy).copy(backbone)
        return model

    @classmethod
    def from_preset(cls, directory: str | pathlib.Path) -> Self:
        """Loads what `save_to_preset` wrote."""
        directory = pathlib.Path(directory)
        if not (directory / HEAD_FILE).exists():
            raise ValueError(
                f"{str(directory)!r} holds no reward model: give a directory "
                "that `RewardModel.save_to_preset` wrote."
            )
        model = cls(
            keras_hub.models.Backbone.from_preset(str(directory)),
            read_tokenizer(directory),
            read_settings(directory)["context_length"],
        )
        with np.load(directory / HEAD_FILE) as stored:
            for name, variable in model.head_variables().items():
                variable.assign(stored[name])
        adapters.read(model, model.backbone, directory)
        return model

    def save_to_preset(self, directory: str | pathlib.Path) -> None:
        """Writes a directory that `from_preset` reloads.

        Args:
            directory: where to; made if it does not exist.
        """
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        backbones.write_preset(self.backbone, directory)
        write_settings(directory, {"context_length": self.context_length})
        adapters.write(self, directory)
        stored: dict[str, Any] = {
            name: np.asarray(v) for name, v in self.head_variables().items()
        }
        np.savez(directory / HEAD_FILE, **stored)
        if self.tokenizer is not None:
            self.tokenizer.save(directory)

    @property
    def trunk(self) -> keras.Model:
        """The backbone."""
        return self.backbone

    def trunk_changed(self) -> None:
        """Forgets the compiled scoring."""
        self._compile_score()

    def head_variables(self) -> dict[str, keras.Variable]:
        """Returns what a reward model has beside its backbone, by name."""
        return {
            "kernel": self.head.kernel,
            "head_bias": self.head.bias,
            "gain": self.gain,
            "bias": self.bias,
        }

    def call(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Scores sequences.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S], right-padded.
            training: whether dropout is on.

        Returns:
            float32 [B].
        """
        last = ops.last_token_index(padding_mask)
        hidden = heads.hidden_states(
            *(self.backbone, token_ids, padding_mask, training, self.adapter),
            places=tf.stack([tf.range(tf.shape(last)[0]), last], axis=1),
        )
        raw = self.head(tf.gather(hidden, last, batch_dims=1))[:, 0]
        return raw * self.gain + self.bias

    def score(
        self, prompts: Any, responses: Any, batch_size: int = 64
    ) -> np.ndarray | Tensor:
        """Scores text, or ids.

        Args:
            prompts: B strings, or token_ids int32 [B, S].
            responses: B strings, or padding_mask int32 [B, S].
            batch_size: how many texts to run at a time.

        Returns:
            float32 [B]. A response in text ends with EOS, as in training.
        """
        if not isinstance(prompts, (list, tuple)):
            return self._score_function(prompts, responses)
        sequences = data.sequences(
            prompts, responses, self.need_tokenizer(), self.context_length
        )
        scores = [
            self._score_function(batch.token_ids, batch.padding_mask)
            for batch in data.batches(sequences, batch_size)
        ]
        return np.concatenate([np.asarray(s) for s in scores])

    def normalize(
        self, prompts: Sequence[str], responses: Sequence[str]
    ) -> None:
        """Sets gain and bias so that these responses score mean 0, std 1.

        Args:
            prompts: strings.
            responses: as many strings, usually samples of the policy.

        Raises:
            ValueError: every response has the same score.
        """
        scores = np.asarray(self.score(list(prompts), list(responses)))
        deviation = float(scores.std())
        if not deviation > 1e-6:
            raise ValueError(
                f"`normalize` needs responses of different scores: all "
                f"{len(scores)} score {scores.mean():.6g}, so the standard "
                "deviation is 0."
            )
        gain = heads.as_float(self.gain) / deviation
        self.bias.assign(
            (heads.as_float(self.bias) - scores.mean()) / deviation
        )
        self.gain.assign(gain)

    def as_function(self) -> Callable[..., list[float]]:
        """Returns the callable on text that every trainer takes as reward."""

        def score(
            prompts: list[str], responses: list[str], **columns: Any
        ) -> list[float]:
            return [float(s) for s in self.score(prompts, responses)]

        return score

    def _compile_score(self) -> None:
        self._score_function = tf.function(
            self.call,
            jit_compile=resolve_jit("auto")["score"],
            autograph=False,
            reduce_retracing=True,
        )

    def need_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer, or says that there is none."""
        if self.tokenizer is None:
            raise ValueError(
                "This reward model has no tokenizer: score token ids with "
                "their padding mask, or give it a tokenizer."
            )
        return self.tokenizer

    def default_loss(self) -> losses.PairwiseRanking:
        """Returns the Bradley-Terry loss."""
        return losses.PairwiseRanking()

    def as_carrier(self, x: Any) -> Preferences | Ratings:
        """Takes preference or rating records, or their carriers."""
        if isinstance(x, (Preferences, Ratings)):
            return x
        read = data.ratings if "rating" in x[0] else data.preferences
        return read(x, self.need_tokenizer(), self.context_length)

    def check_start(self, dataset: tf.data.Dataset) -> None:
        """See `TrainableModel`; the tokenizer must fit the model too."""
        start_check.check_vocabulary(self.backbone, self.tokenizer)
        super().check_start(dataset)

    def counted_part(
        self, batch: Preferences | Ratings
    ) -> tuple[Preferences | Ratings, dict[str, Tensor]]:
        """Keeps the weights of the first rows."""
        kept = start_check.first_rows(batch.weight)
        irrelevant = {
            "other rows": ~start_check.first_rows(batch.token_ids),
            "the padding": batch.padding_mask == 0,
        }
        weight = tf.where(kept, batch.weight, 0.0)
        return batch._replace(weight=weight), irrelevant

    def batch_weights(self, batch: Preferences | Ratings) -> Tensor:
        """Returns the weight of every record."""
        return tf.cast(batch.weight, tf.float32)

    def batch_losses(
        self, batch: Preferences | Ratings, training: bool
    ) -> BatchLosses:
        """Scores every candidate in one pass and compares."""
        if isinstance(batch, Ratings):
            scores = self.call(batch.token_ids, batch.padding_mask, training)
            error = tf.abs(scores - batch.rating) * batch.weight
            metrics = {
                "error": (tf.reduce_sum(error), tf.reduce_sum(batch.weight))
            }
            terms = self.objective(batch.rating, scores)
            return BatchLosses(terms, batch.weight, metrics)
        shape = tf.shape(batch.token_ids)
        flat = [-1, shape[2]]
        scores = tf.reshape(
            self.call(
                tf.reshape(batch.token_ids, flat),
                tf.reshape(batch.padding_mask, flat),
                training,
            ),
            shape[:2],
        )
        metrics = ranking_metrics(scores, batch.ranks, batch.weight)
        # To score as well as before, the better must now lead by the margin.
        lead = tf.cast(batch.ranks, tf.float32) * batch.margin[:, None]
        scores += lead
        terms = self.objective(batch.ranks, scores)
        return BatchLosses(terms, batch.weight, metrics)


def ranking_metrics(
    scores: Tensor, ranks: Tensor, weight: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Measures how often the better candidate has the higher score.

    Args:
        scores: float32 [B, K].
        ranks: int32 [B, K], 0 = best, -1 = absent.
        weight: float32 [B].

    Returns:
        Sum and count, over pairs of unequal rank: `accuracy` (an equal score
        counts half) and `margin`, the mean difference of the scores.
    """
    present = ranks >= 0
    pairs = (
        (ranks[:, :, None] < ranks[:, None, :])
        & present[:, :, None]
        & present[:, None, :]
    )
    counts = tf.cast(pairs, tf.float32) * weight[:, None, None]
    margin = scores[:, :, None] - scores[:, None, :]
    right = 0.5 * (tf.sign(margin) + 1.0)
    total = tf.reduce_sum(counts)
    return {
        "accuracy": (tf.reduce_sum(right * counts), total),
        "margin": (tf.reduce_sum(margin * counts), total),
    }


def need_backbone(policy: Policy) -> keras.Model:
    """Returns a policy's KerasHub backbone, or says that there is none."""
    if not isinstance(policy.model, keras_hub.models.CausalLM):
        raise ValueError(
            "Reward and value models are made from a KerasHub model. "
            f"Received a policy over {type(policy.model).__name__}, which has "
            "no backbone."
        )
    return policy.model.backbone
