"""Layers that compute something else while a function is traced."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

from tfrlhf.types import Tensor

Calls = Sequence[tuple[Any, Callable[..., Any] | None]]
Methods = Sequence[tuple[Any, str, Callable[..., Any] | None]]


class UsingTensors:
    """A method that uses tensors besides its arguments.

    Args:
        make: makes it of the tensors.
        tensors: of the graph in which it is called.
    """

    def __init__(
        self, make: Callable[..., Callable[..., Any]], *tensors: Tensor
    ) -> None:
        self.make = make
        self.tensors = tensors
        self._method = make(*tensors)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Calls the method."""
        return self._method(*args, **kwargs)


def replaced_calls(calls: Calls) -> Any:
    """Lets layers be called by other functions inside a block.

    Args:
        calls: Keras layers and what is called in the place of their `call`;
            None for that of their class. They are as they were afterwards.

    Example:
        >>> with replaced_calls([(layer, lambda x: x)]):
        ...     hidden = model(inputs)
    """
    return replaced_methods([(layer, "call", call) for layer, call in calls])


@contextmanager
def replaced_methods(methods: Methods) -> Iterator[None]:
    """As `replaced_calls`, of methods by their names."""
    before = [(x, name, vars(x).get(name)) for x, name, _ in methods]
    _assign(methods)
    try:
        yield
    finally:
        _assign(before)


def _assign(methods: Methods) -> None:
    for layer, name, method in methods:
        # Past Keras' tracking, which a trace must not change.
        if method is not None:
            object.__setattr__(layer, name, method)
        elif name in vars(layer):
            object.__delattr__(layer, name)
