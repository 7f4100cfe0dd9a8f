"""Python code that is run against tests, in a sandbox."""

import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tfrlhf.rewards.arguments import texts_of
from tfrlhf.rewards.sandbox import Sandbox

_FENCE = re.compile(r"```[ \t]*(\w*)[^\n]*\n(.*?)(?:```|\Z)", re.DOTALL)
_PYTHON = ("python", "python3", "py")


class CodeTests:
    """Scores a response by the share of tests that its code passes.

    The code is the last fenced block that says `python`, else the last fenced
    block, else the whole response. Every response runs in a process of its
    own, shut off from the machine: `Sandbox`, docs/rewards.md.

    Args:
        column: each value a test in Python, or a list of them; a test passes
            when it runs to its end in the names of the code.
        seconds: longest time of code and tests together; a test that has not
            passed by then has failed.
        memory: most memory of a process, in MiB.

    Raises:
        SandboxError: the machine does not allow the sandbox; nothing is run.

    Example:
        >>> reward = CodeTests()
        >>> reward(["Add."], ["def add(a, b): return a + b"],
        ...        tests=[["assert add(1, 2) == 3", "assert add('a', 1)"]])
        [0.5]
    """

    def __init__(
        self, column: str = "tests", seconds: float = 5.0, memory: int = 512
    ) -> None:
        self.column = column
        self.sandbox = Sandbox(seconds, memory)

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one share a response, from 0 to 1."""
        tests = texts_of("CodeTests", self.column, columns, len(responses))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return list(pool.map(self._share, responses, tests))

    def _share(self, response: str, tests: list[str]) -> float:
        passed = self.sandbox.run(find_code(response), tests)
        return sum(passed) / len(tests)


def find_code(response: str) -> str:
    r"""Finds the code of a response.

    Args:
        response: any text; a fence that is not closed reaches to its end.

    Returns:
        The code.

    Example:
        >>> find_code("So:\n```python\nx = 1\n```\nDone.")
        'x = 1\n'
    """
    blocks = _FENCE.findall(response)
    python = [code for kind, code in blocks if kind.lower() in _PYTHON]
    if python:
        return str(python[-1])
    return str(blocks[-1][1]) if blocks else response
