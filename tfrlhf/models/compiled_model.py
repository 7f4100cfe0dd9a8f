"""A Keras model whose phases XLA compiles, or does not."""

import functools
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.models.compilation import Compilers
from tfrlhf.models.lean_layers import lean_layers
from tfrlhf.models.packed_rows import rows_are_packed
from tfrlhf.models.shared_traces import traces_are_shared
from tfrlhf.types import Tensor


class CompiledModel(keras.Model):
    """Compiles functions as is decided for their phase.

    Attributes:
        compilers: whether XLA compiles a phase, by its name; made by
            `compile`.
    """

    compilers: Compilers

    def choose_compiler(
        self,
        phase: str,
        make: Callable[[], None],
        run: Callable[[], Any],
        shapes: Any,
    ) -> None:
        """Compiles a phase in the faster way, if that is to be measured.

        Args:
            phase: of `compilation.PHASES`.
            make: compiles its functions as `compilers` says.
            run: runs the phase without changing anything.
            shapes: of what it is run on.
        """
        if phase in self.compilers.unmeasured:
            layers = self._flatten_layers()
            what = (
                type(self).__name__,
                shapes,
                self.distribute_strategy.num_replicas_in_sync,
                [(v.dtype, tuple(v.shape)) for v in self.variables],
                sorted({layer.compute_dtype for layer in layers}),
            )
            self.compilers.choose(phase, make, run, what)

    def positions(self, mask: Tensor, phase: str = "update") -> Tensor | None:
        """Returns where logits are needed, for `Policy.token_statistics`.

        Args:
            mask: int32 [B, S].
            phase: that needs them.

        Returns:
            The mask; None for XLA, whose shapes cannot depend on it.
        """
        return None if self.compilers[phase] else mask

    def trace_once(
        self, phase: str, function: Any, describe: Callable[[], Sequence[Any]]
    ) -> None:
        """Traces a function for all lengths at once, if it never was traced.

        Otherwise it is for the first length, and then again for the second.

        Args:
            phase: that it belongs to; XLA compiles each length by itself.
            function: of `_compiled`.
            describe: returns `tf.TensorSpec`s in the place of its inputs.
        """
        compiled = isinstance(
            function, tf.types.experimental.PolymorphicFunction
        )
        # Under a strategy it is traced anew for every replica in any case.
        one = self.distribute_strategy.num_replicas_in_sync == 1
        if not compiled or not one or self.compilers[phase]:
            return
        if not function.experimental_get_tracing_count():
            function.get_concrete_function(*describe())

    def _compiled(self, function: Any, phase: str = "update") -> Any:
        if self.run_eagerly:
            return function

        @functools.wraps(function)
        def lean(*inputs: Any) -> Any:
            plain = not self.compilers[phase]
            packed, shared = rows_are_packed(plain), traces_are_shared(plain)
            with lean_layers(self), packed, shared:
                return function(*inputs)

        return tf.function(
            # Decoding keeps to the layers that its cache was made by.
            function if phase == "rollout" else lean,
            jit_compile=self.compilers[phase],
            autograph=False,
            reduce_retracing=True,
        )
