"""What the frozen reference says of a data set: computed once, kept on disk."""

import hashlib
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import keras_hub
import numpy as np

from tfrlhf.models.policy import Policy


def fingerprint(reference: Policy, arrays: tuple[Any, ...]) -> str:
    """Names what the log-probabilities follow from.

    Args:
        reference: its model, all weights and the adapter.
        arrays: token ids and masks.

    Returns:
        A SHA-256 in hexadecimal.
    """
    digest = hashlib.sha256()
    trunk = reference.trunk
    digest.update(type(reference.model).__name__.encode())
    if isinstance(trunk, keras_hub.models.Backbone):
        config = json.dumps(trunk.get_config(), sort_keys=True, default=str)
        digest.update(config.encode())
    weights = [(v.path, v) for v in reference.weights]
    for name, x in [*weights, *enumerate(arrays)]:
        x = np.ascontiguousarray(x)
        digest.update(f"{name} {x.dtype} {x.shape}".encode())
        digest.update(x.tobytes())
    return digest.hexdigest()


def cached(
    directory: pathlib.Path | None,
    key: str,
    compute: Callable[[], np.ndarray],
) -> np.ndarray:
    """Reads what was computed under this key, or computes and keeps it.

    Args:
        directory: of the files, one a key; made if it does not exist. None
            keeps nothing.
        key: see `fingerprint`: other data or weights have another file.
        compute: gives the array.

    Returns:
        The array.
    """
    if directory is None:
        return compute()
    file = directory / f"{key}.npz"
    if file.exists():
        with np.load(file) as stored:
            return stored["ref_log_probs"]
    made = compute()
    directory.mkdir(parents=True, exist_ok=True)
    # Nobody ever finds half a file.
    unfinished = directory / f"{key}.{os.getpid()}.unfinished.npz"
    np.savez(unfinished, ref_log_probs=made)
    os.replace(unfinished, file)
    return made
