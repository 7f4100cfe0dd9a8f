"""What a worker says to the driver: one JSON object a line.

Knows no library: it is imported in the environments of all sides. A task is a
function of `Turns` and its settings; it prepares, then does its work once a
turn:

    while turns.wait():
        ...
        turns.report({"iteration": seconds})
"""

import importlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any


class Finished(Exception):
    """Leaves a library's training loop when the driver wants no more turns."""


class Turns:
    """The worker's end of the pipe to the driver.

    What else writes to the standard output goes to the standard error.
    """

    def __init__(self) -> None:
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)

    def order(self) -> dict[str, Any]:
        """Reads the task and its settings."""
        return json.loads(sys.stdin.readline())

    def wait(self) -> bool:
        """Says that the work can begin, and blocks until it should.

        Returns:
            False if there is none any more.
        """
        self._say({"ready": True})
        return sys.stdin.readline().strip() == "go"

    def report(self, numbers: Mapping[str, float]) -> None:
        """Sends what was measured in this turn."""
        self._say({"report": dict(numbers)})

    def _say(self, message: dict[str, Any]) -> None:
        self._answers.write(json.dumps(message) + "\n")
        self._answers.flush()


def serve(package: str) -> None:
    """Runs the task that the driver asks for.

    Args:
        package: holds a module for each task, with a function `run`.
    """
    turns = Turns()
    order = turns.order()
    task = importlib.import_module(f"{package}.{order['task']}")
    try:
        task.run(turns, **order["settings"])
    except Finished:
        pass
