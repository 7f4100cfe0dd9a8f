"""Layers that differ in nothing but their weights, traced once.

Python and TensorFlow take their time for each operation of a graph, and a deep
model is the same operations layer after layer. Here a trace is a function of
the weights, which a graph calls for every layer that is alike, of every model.
"""

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfrlhf.models.replaced_calls import UsingTensors
from tfrlhf.models.replaced_calls import replaced_calls
from tfrlhf.models.replaced_calls import replaced_methods
from tfrlhf.types import Tensor

# What may set layers apart that compute the same.
NAMES = frozenset(
    {"name", "_name", "_path", "_parent_path", "_trainable", "_called"}
)

# The traces so far, with what they are traces of, until a block ends; None for
# a trace that is no function of arguments and weights.
_known: ContextVar[dict[Any, Any] | None] = ContextVar("traces", default=None)


@contextmanager
def traces_are_shared(wanted: bool = True) -> Iterator[None]:
    """Lets the layers inside `shared_layers` use each other's traces.

    Args:
        wanted: whether they may.

    Example:
        >>> with traces_are_shared():
        ...     log_probs = policy.log_probs(token_ids, mask)
    """
    token = _known.set({} if wanted else None)
    try:
        yield
    finally:
        _known.reset(token)


@contextmanager
def shared_layers(backbone: keras.Model) -> Iterator[None]:
    """Lets the layers of a backbone be traced once for all that are alike.

    Alike are those of the same classes, settings, shapes and replaced methods.
    A layer is traced by itself if it has a `call` of its own (rematerialised),
    if its weights are cast before it reads them, or if its trace reads what is
    neither an argument nor its own (an adapter's weights) or assigns to a
    variable (dropout's).

    Args:
        backbone: a KerasHub `Backbone`, with all that is to be replaced inside
            of its layers replaced already.

    Example:
        >>> with traces_are_shared(), shared_layers(policy.trunk):
        ...     hidden = policy.trunk(inputs)
    """
    known = _known.get()
    layers = getattr(backbone, "transformer_layers", [])
    calls = [
        (layer, _SharedCall(layer, known))
        for layer in layers
        if known is not None
        and "call" not in vars(layer)
        and all(hasattr(v.value, "assign") for v in layer.variables)
    ]
    with replaced_calls(calls):
        yield


class _SharedCall:
    """What is called in the place of a layer's `call`."""

    def __init__(self, layer: Any, known: dict[Any, Any]) -> None:
        self.plain = layer.call
        self.known = known
        self.variables = layer.variables
        # Out here, as they are: inside, a layer may cast what it reads.
        self.weights = [tf.convert_to_tensor(v.value) for v in self.variables]
        parts = layer._flatten_layers()
        self.methods = [
            (part, name, method)
            for part in parts
            for name, method in vars(part).items()
            if isinstance(method, UsingTensors)
        ]
        self.kind = (
            tuple((type(part), frozenset(_settings(part))) for part in parts),
            tuple((v.dtype, v.trainable) for v in self.variables),
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        flat = tf.nest.flatten((args, kwargs))
        given = [x for x in flat if tf.is_tensor(x)]
        if any(getattr(x, "_keras_mask", None) is not None for x in given):
            return self.plain(*args, **kwargs)
        around = [x for _, _, method in self.methods for x in method.tensors]
        inputs = [*given, *around, *self.weights]
        specs = tuple(tf.TensorSpec(x.shape, x.dtype) for x in inputs)
        rest = tuple(None if tf.is_tensor(x) else x for x in flat)
        name = self.kind, specs, rest, tuple(kwargs)
        if name not in self.known:
            self.known[name] = self._traced(args, kwargs, specs)
        trace = self.known[name]
        return self.plain(*args, **kwargs) if trace is None else trace(*inputs)

    def _traced(self, args: Any, kwargs: Any, specs: Any) -> Any:
        """Returns a function of the inputs; None if there is more to it."""
        assigns = False

        def compute(*inputs: Tensor) -> Any:
            nonlocal assigns
            left = iter(inputs)
            own_args, own_kwargs = tf.nest.map_structure(
                lambda x: next(left) if tf.is_tensor(x) else x, (args, kwargs)
            )
            methods = [
                (part, name, method.make(*(next(left) for _ in method.tensors)))
                for part, name, method in self.methods
            ]
            # Given to it at once, they would be cast.
            scope = keras.StatelessScope()
            for v, x in zip(self.variables, left, strict=True):
                # A function computes the gradients of all that it is given.
                own = x if v.trainable else tf.stop_gradient(x)
                scope.add_update((v, own))
            before = {name: id(x) for name, x in scope.state_mapping.items()}
            with scope, replaced_methods(methods):
                found = self.plain(*own_args, **own_kwargs)
            after = {name: id(x) for name, x in scope.state_mapping.items()}
            assigns = before != after
            return found

        function = tf.function(
            compute,
            autograph=False,
            # As a function it is optimised once, too.
            experimental_attributes={"_noinline": True},
        )
        trace = function.get_concrete_function(*specs)
        return None if assigns or trace.captured_inputs else trace


def _settings(part: Any) -> Iterator[tuple[str, Any]]:
    """Yields the attributes that decide what a layer computes."""
    for name, value in vars(part).items():
        if isinstance(value, UsingTensors):
            value = value.make
        arguments: tuple[Any, ...] = ()
        if isinstance(value, functools.partial):
            arguments = value.args, value.keywords
            value = value.func
        if isinstance(value, types.FunctionType):
            where = value.__module__, value.__qualname__
            yield name, (*where, repr(arguments))
        elif isinstance(value, np.ndarray):
            yield name, value.tobytes()
        elif name not in NAMES and _is_plain(value):
            yield name, repr(value)


def _is_plain(value: Any) -> bool:
    if isinstance(value, dict):
        value = list(value.items())
    if isinstance(value, tuple | list):
        return all(_is_plain(x) for x in value)
    return value is None or isinstance(value, bool | int | float | str)
