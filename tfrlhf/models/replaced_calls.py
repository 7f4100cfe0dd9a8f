"""Layers that compute something else while a function is traced."""

from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from typing import Any

Calls = Sequence[tuple[Any, Callable[..., Any] | None]]


@contextmanager
def replaced_calls(calls: Calls) -> Iterator[None]:
    """Lets layers be called by other functions inside the block.

    Args:
        calls: Keras layers and what is called in the place of their `call`;
            None for that of their class. They are as they were afterwards.

    Example:
        >>> with replaced_calls([(layer, lambda x: x)]):
        ...     hidden = model(inputs)
    """
    before = [(layer, vars(layer).get("call")) for layer, _ in calls]
    _assign(calls)
    try:
        yield
    finally:
        _assign(before)


def _assign(calls: Calls) -> None:
    for layer, call in calls:
        # Past Keras' tracking, which a trace must not change.
        if call is not None:
            object.__setattr__(layer, "call", call)
        elif "call" in vars(layer):
            object.__delattr__(layer, "call")
