"""What a worker says to the driver: one JSON object a line.

Knows no library: it is imported in the environments of all sides. A task is a
function of `Turns` and its settings; it prepares, then does its work once a
turn:

    while turns.wait(awaken):
        ...
        turns.report({"iteration": seconds})

A process that has waited for its turn is slower at first, as the processors
went to rest: its threads work for a moment before the clock starts, as they
would have between one iteration of training and the next.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any

# Seconds of work before each turn.
AWAKEN = 0.1


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

    def wait(self, awaken: Callable[[], object] | None = None) -> bool:
        """Says that the work can begin, and blocks until it should.

        Args:
            awaken: keeps all threads of the library busy; called for a while
                before this returns.

        Returns:
            False if there is none any more.
        """
        self._say({"ready": True})
        if sys.stdin.readline().strip() != "go":
            return False
        end = time.perf_counter() + AWAKEN
        while awaken is not None and time.perf_counter() < end:
            awaken()
        return True

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
