"""What policy, reward and value model have in common: a trunk to economise.

A low-rank adapter instead of training all weights, activations computed twice
instead of kept, and fewer bits for what does not train.
"""

import gc
import pathlib
from collections.abc import Sequence
from typing import Any

import keras

from tfrlhf.models import adapters
from tfrlhf.models.adapters import Adapter
from tfrlhf.models.peft_adapters import read_peft
from tfrlhf.models.rematerialization import rematerialize


class WithTrunk:
    """A model over a trunk, with an adapter or without.

    A subclass sets `adapter` and says what its `trunk` is.
    """

    name: str
    adapter: Adapter | None

    @property
    def trunk(self) -> keras.Model:
        """The model below the heads."""
        raise NotImplementedError

    def trunk_changed(self) -> None:
        """Forgets what was compiled for the trunk as it was."""

    def enable_lora(
        self,
        rank: int,
        alpha: float | None = None,
        targets: Sequence[str] = adapters.TARGETS,
    ) -> None:
        """Freezes the trunk and trains a low-rank adapter in its place.

        Args:
            rank: r; the adapter has r·(inputs + outputs) weights a layer.
            alpha: scales the adapter by alpha / rank; None is `rank`.
            targets: names of the layers to adapt.

        Raises:
            ValueError: there is an adapter already, no layer has such a name,
                or one of them cannot be adapted.
        """
        self._check_no_adapter()
        self._adapt(Adapter(self.trunk, rank, alpha, targets))

    def load_adapter(self, directory: str | pathlib.Path) -> None:
        """Freezes the trunk and takes a LoRA that PEFT wrote; it trains on.

        Args:
            directory: holds adapter_config.json and
                adapter_model.safetensors, of the model that this is.

        Raises:
            ValueError: there is an adapter already, the directory has one of
                another model, or adapter_config.json has a field that changes
                the output and is not honoured.

        Example:
            >>> policy = Policy.from_preset("base")
            >>> policy.load_adapter("adapter")
        """
        self._check_no_adapter()
        self._adapt(read_peft(self.trunk, pathlib.Path(directory)))

    def _check_no_adapter(self) -> None:
        if self.adapter is not None:
            raise ValueError(
                f"This {self.name} model has an adapter already: merge it "
                "first, by `merge_lora`."
            )

    def _adapt(self, adapter: Adapter) -> None:
        self.adapter = adapter
        self.trunk.trainable = False
        self.trunk_changed()

    def merge_lora(self) -> None:
        """Adds the adapter to the weights of the trunk, which then trains.

        Whatever shares the trunk (a reference, a value model) changes too.

        Raises:
            ValueError: there is no adapter, or the trunk is quantised.
        """
        adapters.need(self).merge_into(self.trunk)
        adapters.detach(self)
        self.trunk.trainable = True
        self.trunk_changed()

    def enable_remat(self) -> None:
        """Keeps the inputs of the layers alone, for the gradient.

        What is inside a layer is computed again when its gradient is, which
        costs a forward pass and saves the memory of it. Whatever shares the
        trunk does the same.

        Raises:
            ValueError: the trunk has dropout, or is not of KerasHub.
        """
        rematerialize(self.trunk)
        self.trunk_changed()

    def quantize(self, mode: str, **settings: Any) -> None:
        """Stores the trunk's matrices in fewer bits; it trains no more.

        For a reference or a reward model: 8 bits take a quarter of the
        memory of float32, and the numbers change by about a hundredth.

        Args:
            mode: "int8", or another of Keras' modes.
            **settings: of Keras' `Layer.quantize`.
        """
        kinds = (
            keras.layers.Dense,
            keras.layers.EinsumDense,
            keras.layers.Embedding,
        )
        # Keras collects garbage for every layer: a second each, in a process
        # with much in it, if it had to look at all that is there.
        gc.freeze()
        try:
            for layer in self.trunk._flatten_layers(include_self=False):
                if isinstance(layer, kinds) and layer.quantization_mode is None:
                    layer.quantize(mode, **settings)
        finally:
            gc.unfreeze()
        self.trunk.trainable = False
        self.trunk_changed()
