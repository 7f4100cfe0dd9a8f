"""Python programs run shut off from the machine, or not at all.

Starts `isolation.py`, which does the shutting off. Knows no reward.
"""

import json
import os
import pathlib
import secrets
import signal
import subprocess
import sys
import tempfile

from tfrlhf.rewards.arguments import at_least
from tfrlhf.rewards.arguments import more_than

# Started, not imported: it needs Linux.
ISOLATION = pathlib.Path(__file__).with_name("isolation.py")
# What the dynamic loader and the interpreter read.
DIRECTORIES = ("/usr", "/lib", "/lib32", "/lib64", "/nix/store")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
# For the interpreter to start and the kernel to clear up.
GRACE = 20.0
READ_BYTES = 2**16
# What must hold before anything is run; each raises where it does not.
PROBES = {
    "running Python": "import json, math, random, re",
    "a limit on memory": """
import resource
assert 0 < resource.getrlimit(resource.RLIMIT_AS)[1] <= {memory} * 2**20
""",
    "a file system of its own": """
import os
assert not os.path.exists({host_file!r})
for place in ("/", {prefix!r}):
    assert os.statvfs(place).f_flag & os.ST_RDONLY
""",
    "processes of its own": "import os; assert os.getpid() == 2",
    "no network": """
import socket
for family, place in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET, "127.1")):
    try:
        socket.create_connection((place, 9), timeout=0.5)
    except ConnectionRefusedError:
        raise AssertionError
    except OSError:
        continue
    raise AssertionError
""",
    "no privileges": """
import os
assert os.getuid() != 0
try:
    os.chroot("/tmp")
except OSError:
    pass
else:
    raise AssertionError
""",
}


class SandboxError(RuntimeError):
    """Programs cannot be shut off from this machine, so none is run."""


class Sandbox:
    """Runs Python programs with the standard library and nothing else.

    Linux only: each run has namespaces of its own, without root by a user
    namespace. docs/rewards.md says what is guaranteed and what is not.

    Args:
        seconds: longest time of a run.
        memory: most memory of each of its processes, in MiB.

    Raises:
        SandboxError: the machine does not allow it; found out by trying.

    Example:
        >>> sandbox = Sandbox(seconds=2.0)
        >>> sandbox.run("x = 1", ["assert x == 1", "assert x == 2"])
        [True, False]
    """

    def __init__(self, seconds: float = 5.0, memory: int = 512) -> None:
        more_than("seconds", seconds, 0)
        at_least("memory", memory, 64)
        self.seconds = seconds
        self.memory = memory
        self._check()

    def run(self, program: str, tests: list[str]) -> list[bool]:
        """Runs a program, then each test in its names.

        Args:
            program: Python; where it raises or ends itself, no test passes.
            tests: Python each; passed when run to the end without an error.

        Returns:
            Whether each test passed before the time was over.

        Raises:
            SandboxError: the run could not be shut off, and was not made.
        """
        return self._run(program, tests, self.seconds)

    def _run(
        self, program: str, tests: list[str], seconds: float
    ) -> list[bool]:
        secret = secrets.token_hex(16)
        job = {
            "secret": secret,
            "program": program,
            "tests": tests,
            "seconds": seconds,
            "memory": self.memory,
            "directories": _directories(),
            "devices": [x for x in DEVICES if os.path.exists(x)],
        }
        passed = [False] * len(tests)
        for line in self._lines(json.dumps(job), seconds):
            said, _, rest = line.partition(" ")
            kind, _, rest = rest.partition(" ")
            if said != secret:
                continue
            if kind == "refused":
                raise SandboxError(f"The sandbox cannot be made here: {rest}.")
            passed[int(rest)] = True
        return passed

    def _lines(self, job: str, seconds: float) -> list[str]:
        """Starts a run; returns what it wrote."""
        # Files without a name: nothing is left, whoever dies.
        with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out:
            given.write(job.encode())
            given.seek(0)
            process = subprocess.Popen(
                [_interpreter(), "-I", "-S", "-B", str(ISOLATION)],
                stdin=given,
                stdout=out,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"HOME": "/tmp", "TMPDIR": "/tmp", "PATH": "/usr/bin"},
                start_new_session=True,
            )
            try:
                status = process.wait(seconds + GRACE)
            except subprocess.TimeoutExpired as error:
                raise SandboxError(
                    f"The sandbox did not end {GRACE:.0f} s after its time: "
                    "the machine is overloaded; run fewer at a time."
                ) from error
            finally:
                # While it is not waited for, its number is no one else's.
                if process.returncode is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
            out.seek(0)
            lines = out.read(READ_BYTES).decode("utf-8", "replace").splitlines()
        if status != 0 and not lines:
            raise SandboxError(
                f"The sandbox cannot be made here: its process ended with "
                f"status {status} before the program was run."
            )
        return lines

    def _check(self) -> None:
        if sys.platform != "linux":
            raise SandboxError(
                "Programs can be shut off on Linux only. Received: "
                f"{sys.platform}"
            )
        with tempfile.NamedTemporaryFile() as host_file:
            probes = [
                probe.format(
                    memory=self.memory,
                    host_file=host_file.name,
                    prefix=sys.base_prefix,
                )
                for probe in PROBES.values()
            ]
            # The probes are quick; a busy machine is not.
            passed = self._run("", probes, GRACE)
        missing = [
            name for name, x in zip(PROBES, passed, strict=True) if not x
        ]
        if missing:
            raise SandboxError(
                "The sandbox cannot be made here: it would lack "
                f"{' and '.join(missing)}."
            )


def _interpreter() -> str:
    """Returns the interpreter itself, not the link of an environment."""
    return os.path.realpath(sys.executable)


def _directories() -> list[str]:
    """Returns what a program may read, without parts of one another."""
    kept: list[str] = []
    for place in (*DIRECTORIES, sys.base_prefix, sys.base_exec_prefix):
        inside = any(
            pathlib.PurePath(place).is_relative_to(other) for other in kept
        )
        if not inside and os.path.isdir(place):
            kept.append(place)
    return kept
