"""What a loss of direct preference optimisation must say of itself."""

from typing import Any

import numpy as np

from tfrlhf.types import Preferences


def check_objective(loss: Any) -> None:
    """Refuses a loss that does not say what it reads.

    Args:
        loss: what `compile` was given.

    Raises:
        ValueError: an attribute is missing.
    """
    needed = ("beta", "mean_over_tokens", "needs_reference", "reads_ratings")
    missing = [name for name in needed if not hasattr(loss, name)]
    if missing:
        raise ValueError(
            f"A loss for DPO says what it reads: {loss!r} has no "
            f"`{missing[0]}`. Give one of tfrlhf.losses, such as DPOLoss."
        )


def takes_margins(loss: Any) -> bool:
    """Tells whether a loss compares rewards, which a margin can keep apart."""
    return bool(getattr(loss, "takes_margins", False))


def check_margins(loss: Any, preferences: Preferences) -> None:
    """Refuses margins that a loss would not see.

    Args:
        loss: what `compile` was given.
        preferences: `Preferences`.

    Raises:
        ValueError: a record has a margin, and the loss takes none.
    """
    asked = np.flatnonzero(np.asarray(preferences.margin))
    if len(asked) and not takes_margins(loss):
        raise ValueError(
            f"{type(loss).__name__} knows no margin, but record {asked[0]} "
            "asks for one: leave `margin` out, or give another loss, such as "
            "DPOLoss."
        )
