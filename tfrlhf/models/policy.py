"""The policy: a causal language model that answers prompts."""

import pathlib
import weakref
from typing import Any
from typing import Self

import keras
import keras_hub

from tfrlhf.models import adapters
from tfrlhf.models import backbones
from tfrlhf.models import heads
from tfrlhf.models import transformers_bridge
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.generation import WithGeneration
from tfrlhf.models.likelihood import WithLikelihood
from tfrlhf.models.output_head import PLAIN_HEADS
from tfrlhf.models.output_head import head_statistics
from tfrlhf.models.preset_files import read_settings
from tfrlhf.models.preset_files import read_tokenizer
from tfrlhf.models.preset_files import write_settings
from tfrlhf.models.statistics import TokenStatistics
from tfrlhf.models.statistics import token_statistics
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.models.trunk import WithTrunk
from tfrlhf.types import Tensor

# The context of a model that does not say how long a sequence may be.
UNLIMITED = 2**30


class Policy(WithTrunk, WithGeneration, WithLikelihood, keras.Model):
    """A causal language model with its tokenizer.

    Args:
        model: any KerasHub `CausalLM`, or any Keras model from `{"token_ids",
            "padding_mask"}` (int32 [B, S]) to logits [B, S, V]; the latter is
            decoded by full passes, without a cache.
        tokenizer: `Tokenizer`; None for a policy that sees only ids.
        context_length: the longest sequence in tokens; None takes KerasHub's
            `max_sequence_length` where the model has one, else no limit.

    Example:
        >>> policy = Policy.from_preset("gpt2_base_en")
        >>> policy.generate(["It was a dark"], max_new_tokens=8, seed=1)
    """

    def __init__(
        self,
        model: keras.Model,
        tokenizer: Tokenizer | None = None,
        context_length: int | None = None,
    ) -> None:
        super().__init__(name="policy")
        self.model = model
        self.tokenizer = tokenizer
        self.context_length = context_length or _context_length(model)
        self.adapter: Adapter | None = None
        # What `frozen_copy` copied, as long as it should be equal.
        self.original: weakref.ref[Policy] | None = None
        self.built = True
        self._decoders = {}

    @classmethod
    def from_preset(cls, preset: str | pathlib.Path) -> Self:
        """Loads a policy.

        Args:
            preset: a directory written by `save_to_preset`, a Hugging Face
                directory on disk (of a family in docs/models.md), or anything
                that `keras_hub.models.CausalLM.from_preset` takes.

        Returns:
            The policy.

        Raises:
            ValueError: the directory holds no model, or one that cannot be
                loaded without loss.
        """
        directory = pathlib.Path(preset)
        if transformers_bridge.is_transformers_directory(directory):
            loaded = transformers_bridge.read_causal_lm(directory)
            tokenizer = Tokenizer.from_directory(directory)
            return cls(loaded.model, tokenizer, loaded.context_length)
        if directory.is_dir():
            settings = read_settings(directory)
            policy = cls(
                backbones.read_causal_lm(directory),
                read_tokenizer(directory),
                settings.get("context_length"),
            )
            adapters.read(policy, policy.trunk, directory)
            return policy
        if _looks_like_path(preset):
            raise ValueError(
                f"There is no directory {str(preset)!r}: give the path of a "
                "model directory or the name of a KerasHub preset."
            )
        model = keras_hub.models.CausalLM.from_preset(str(preset))
        tokenizer = Tokenizer.from_keras_hub(model.preprocessor.tokenizer)
        return cls(model, tokenizer)

    def save_to_preset(self, directory: str | pathlib.Path) -> None:
        """Writes a directory that `from_preset` reloads.

        Args:
            directory: where to; made if it does not exist.
        """
        directory = pathlib.Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        backbones.write_preset(self.model, directory)
        write_settings(directory, {"context_length": self.context_length})
        adapters.write(self, directory)
        if self.tokenizer is not None:
            self.tokenizer.save(directory)

    def call(
        self, token_ids: Tensor, padding_mask: Tensor, training: bool = False
    ) -> Tensor:
        """Returns logits [B, S, V] for int32 [B, S] ids and mask."""
        inputs = {"token_ids": token_ids, "padding_mask": padding_mask}
        with adapters.active(self.adapter):
            return self.model(inputs, training=training)

    def hidden_states(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        training: bool = False,
        where: Tensor | None = None,
    ) -> Tensor:
        """Runs the trunk alone, for heads that share it.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            training: whether dropout is on.
            where: see `token_statistics`; only the states before these
                tokens have a meaning then.

        Returns:
            What the head takes, [B, S, H].

        Raises:
            ValueError: the model's head is more than its embedding, turned.
        """
        if not isinstance(self.model, PLAIN_HEADS):
            raise ValueError(
                f"A {type(self.model).__name__} cannot share its trunk: its "
                "head is more than its embedding. Use `share_trunk=False`."
            )
        return heads.hidden_states(
            *(self.model.backbone, token_ids, padding_mask, training),
            *(self.adapter, heads.places_before(where)),
        )

    def log_probs(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        temperature: float = 1.0,
        where: Tensor | None = None,
    ) -> Tensor:
        """Scores every token given the ones before it, in one pass.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            temperature: divides the logits, as the sampler does.
            where: see `token_statistics`.

        Returns:
            float32 [B, S]; index t speaks about `token_ids[:, t]`, column 0
            is 0.
        """
        return self.token_statistics(
            token_ids, padding_mask, temperature, where=where
        ).log_probs

    def token_statistics(
        self,
        token_ids: Tensor,
        padding_mask: Tensor,
        temperature: float = 1.0,
        training: bool = False,
        where: Tensor | None = None,
        entropy_has_gradient: bool = False,
    ) -> TokenStatistics:
        """Describes the distribution every token was drawn from, in one pass.

        Args:
            token_ids: int32 [B, S].
            padding_mask: int32 [B, S].
            temperature: divides the logits, as the sampler does.
            training: whether dropout is on.
            where: int32 [B, S], 1 on the tokens to speak about, which saves
                the others' logits where the head allows it; None for all.
                What is said of the others has no meaning. Not for XLA.
            entropy_has_gradient: whether something learns from the entropy;
                if not, it keeps less memory.

        Returns:
            `TokenStatistics`, aligned, column 0 is 0.
        """
        if isinstance(self.model, PLAIN_HEADS):
            return head_statistics(
                self.model,
                self.hidden_states(token_ids, padding_mask, training, where),
                token_ids,
                temperature,
                where,
                entropy_has_gradient,
            )
        return token_statistics(
            self.call(token_ids, padding_mask, training),
            token_ids,
            temperature,
            entropy_has_gradient,
        )

    @property
    def trunk(self) -> keras.Model:
        """The model below the logits, where KerasHub knows one."""
        if isinstance(self.model, keras_hub.models.CausalLM):
            return self.model.backbone
        return self.model

    def trunk_changed(self) -> None:
        """Forgets the compiled decode loops and log-probabilities."""
        self._decoders.clear()
        self.forget_likelihood()

    def quantize(self, mode: str, **settings: Any) -> None:
        """See `WithTrunk`; a reference is no exact copy any more."""
        super().quantize(mode, **settings)
        self.original = None

    def need_tokenizer(self) -> Tokenizer:
        """Returns the tokenizer, or says that there is none."""
        if self.tokenizer is None:
            raise ValueError(
                "This policy has no tokenizer: give one to "
                "`Policy(model, tokenizer)`, or pass token ids."
            )
        return self.tokenizer


def _context_length(model: keras.Model) -> int:
    if isinstance(model, keras_hub.models.CausalLM):
        config = model.backbone.get_config()
        return int(config.get("max_sequence_length", UNLIMITED))
    return UNLIMITED


def _looks_like_path(preset: str | pathlib.Path) -> bool:
    return isinstance(preset, pathlib.Path) or (
        "/" in preset and "://" not in preset
    )
