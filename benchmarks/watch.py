"""The memory of another process, looked at a few hundred times a second."""

import pathlib
import threading
from typing import Self

INTERVAL = 0.004
# What a process has made itself, and all of it with libraries and files.
FIELDS = {"RssAnon": "peak anonymous", "VmHWM": "peak resident"}


class Watch:
    """Notes the largest memory of a process while the block runs.

    Attributes:
        peaks: bytes, by the names in `FIELDS`.
    """

    def __init__(self, process_id: int) -> None:
        self.status = pathlib.Path(f"/proc/{process_id}/status")
        self.peaks = dict.fromkeys(FIELDS.values(), 0.0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(INTERVAL):
            try:
                lines = self.status.read_text().splitlines()
            except OSError:
                # The process is gone, which the driver notices itself.
                return
            for line in lines:
                field, _, rest = line.partition(":")
                if field in FIELDS:
                    name = FIELDS[field]
                    size = 1024.0 * int(rest.split()[0])
                    self.peaks[name] = max(self.peaks[name], size)
