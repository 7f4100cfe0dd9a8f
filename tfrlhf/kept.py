"""Where things are kept that make the next start faster.

Imports nothing that takes time: the command line asks before TensorFlow is
imported.
"""

import hashlib
import importlib.metadata
import os
import pathlib


def kept_directory(kind: str) -> pathlib.Path | None:
    """Makes a directory of this TensorFlow and this processor.

    Below `$XDG_CACHE_HOME` (~/.cache); it may be deleted at any time.

    Args:
        kind: what is kept there, the beginning of its name.

    Returns:
        The directory; None where it cannot be made.
    """
    home = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    version = importlib.metadata.version("tensorflow")
    directory = pathlib.Path(home) / f"tfrlhf/{kind}-{version}-{_processor()}"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return directory


def _processor() -> str:
    """Returns a name for what the processor can do."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = list(os.uname())
    same = [x for x in lines if x.startswith(("flags", "Features", "model na"))]
    return hashlib.sha256("".join(same[:2]).encode()).hexdigest()[:12]
