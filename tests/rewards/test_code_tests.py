"""Code in responses: what is found, what is run, what it cannot do."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from tfrlhf.rewards import CodeTests
from tfrlhf.rewards import Sandbox
from tfrlhf.rewards import SandboxError
from tfrlhf.rewards import sandbox as module
from tfrlhf.rewards.code_tests import find_code

ISOLATION = pathlib.Path(module.ISOLATION)


ALONE = ["unshare", "--user", "--map-root-user"]


def allowed(*command):
    try:
        done = subprocess.run([*command, "true"], capture_output=True)
    except OSError:
        return False
    return done.returncode == 0


@pytest.fixture(scope="module")
def sandbox():
    user = ["unshare"] if os.geteuid() == 0 else ALONE
    if not allowed(*user, "--net", "--mount", "--pid", "--fork"):
        pytest.skip("this machine lets nobody make namespaces")
    return Sandbox(seconds=2.0, memory=256)


def running():
    """The processes of runs that are not over."""
    found = []
    for entry in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if str(ISOLATION).encode() in entry.read_bytes():
                found.append(int(entry.parent.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        ("x = 1", "x = 1"),
        ("So:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx\n```", "x\n"),
        ("```py\na\n```\n```python\nb\n```\n```text\nc\n```", "b\n"),
        ("```Python\nx = 1", "x = 1"),
        ("", ""),
    ],
)
def test_find_code(response, expected):
    assert find_code(response) == expected


@pytest.mark.parametrize(
    ("program", "tests", "expected"),
    [
        ("x = 1", ["assert x == 1", "assert x == 2", "x"], [1, 0, 1]),
        # A test may use what another one left.
        ("", ["y = 3", "assert y == 3", "assert z"], [1, 1, 0]),
        ("x =", ["pass"], [0]),
        ("raise ValueError", ["pass"], [0]),
        ("import sys; sys.exit(0)", ["pass"], [0]),
        ("import os; os._exit(0)", ["pass"], [0]),
        ("x = 1", ["import sys; sys.exit(0)", "assert x"], [0, 1]),
        ("print('hi')\nprint(input())", ["pass"], [0]),
        ("if __name__ == '__main__': raise ValueError", ["pass"], [1]),
        (
            "from dataclasses import dataclass\n@dataclass\nclass A: x: 'int'",
            ["assert A(1).x == 1"],
            [1],
        ),
        ("\0", ["pass"], [0]),
        ("s = '好\ud800'", ["pass"], [0]),
        ("s = '好'", ["assert len(s) == 1"], [1]),
        # Results that are not its own to write, and too many of them.
        ("import os; os.write(9, b'x passed 0\\n')", ["assert 0"], [0]),
        ("import os\nwhile True: os.write(9, b'x' * 2**16)", ["pass"], [0]),
    ],
)
def test_programs(sandbox, program, tests, expected):
    assert sandbox.run(program, tests) == [bool(x) for x in expected]


CANNOT = {
    "take all memory": "x = bytearray(2**30)",
    "leave /tmp": "open('/x', 'w')",
    "change the interpreter": f"open({os.__file__!r}, 'a')",
    "fill the disk": "open('a', 'wb').write(bytes(2**27))",
    "fill it bit by bit": (
        "for i in range(20): open(str(i), 'wb').write(bytes(2**23))"
    ),
    "see the home directory": f"import os; os.listdir({str(ISOLATION)!r})",
    "see processes": "import os; os.listdir('/proc/1')",
    "be root again": "import os; os.setuid(0)",
    "mount": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "assert libc.mount(b'none', b'/', None, 4128, None) == 0"
    ),
    "take namespaces": (
        "import ctypes\nlibc = ctypes.CDLL(None)\n"
        "assert libc.unshare(0x10000000) == 0"
    ),
    "fork without end": (
        "import os, time\nfor _ in range(50):\n"
        "  if os.fork() == 0: time.sleep(60)"
    ),
    "reach this machine": (
        "import socket; socket.create_connection(('127.0.0.1', PORT), 1)"
    ),
    "reach another": (
        "import socket\ns = socket.socket(type=socket.SOCK_DGRAM)\n"
        "s.connect(('192.0.2.1', 9))"
    ),
}


@pytest.mark.parametrize("what", CANNOT)
def test_what_a_program_cannot_do(sandbox, what):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1])
        test = CANNOT[what].replace("PORT", port)
        assert sandbox.run("", [test]) == [False]


def test_what_a_program_can_do(sandbox):
    tests = [
        "open('a', 'w').write('x')\nassert open('/tmp/a').read() == 'x'",
        "x = bytearray(2**26)",
        "import os\nif os.fork() == 0: os._exit(0)",
        "import json, random, re, math, itertools, collections, decimal",
        "assert list(os.environ) and os.environ['HOME'] == '/tmp'",
        # The first process of its namespace does not hear it.
        "import os; os.kill(1, 9)",
        "import sys; assert not any('site-packages' in p for p in sys.path)",
    ]
    assert sandbox.run("", tests) == [True] * len(tests)
    # Nothing is left to the next one.
    assert sandbox.run("", ["open('/tmp/a')"]) == [False]


@pytest.mark.parametrize(
    "program", ["while True: pass", "import time; time.sleep(60)"]
)
def test_time_comes_to_an_end(sandbox, program):
    tests = ["x = 1", program, "x = 1"]
    assert Sandbox(seconds=0.5).run("", tests) == [True, False, False]
    assert running() == []


def test_nothing_is_left(sandbox, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    # A child that left the group and does not hear that its parent dies.
    escape = (
        "import ctypes, os, time\nopen('/tmp/kept', 'w').write('x')\n"
        "if os.fork() == 0:\n"
        "  os.setsid()\n  ctypes.CDLL(None).prctl(1, 0, 0, 0, 0)\n"
        "  time.sleep(60)"
    )
    assert sandbox.run("", [escape]) == [True]
    assert running() == []
    assert list(tmp_path.iterdir()) == []


def test_root_is_not_needed(sandbox):
    """As a user with nobody beside it, in a user namespace."""
    if not allowed(*ALONE):
        pytest.skip("this machine lets nobody make user namespaces")
    script = (
        "from tfrlhf.rewards import Sandbox\n"
        "tests = ['assert x == 1', 'x.y', 'open(\"/x\", \"w\")',\n"
        "'import os; os.setuid(0)', 'assert os.getuid() == 1000']\n"
        "print(Sandbox().run('x = 1', tests))"
    )
    done = subprocess.run(
        [*ALONE, sys.executable, "-c", script],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[True, False, False, False, True]\n", done.stderr


def test_it_dies_with_its_trainer(sandbox):
    script = (
        "from tfrlhf.rewards import Sandbox\nbox = Sandbox(seconds=60)\n"
        "print('ready', flush=True)\nbox.run('while True: pass', [])"
    )
    trainer = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        cwd=pathlib.Path(__file__).parents[2],
    )
    try:
        assert trainer.stdout.readline() == b"ready\n"
        wait_until(lambda: len(running()) == 3)
    finally:
        trainer.send_signal(signal.SIGKILL)
        trainer.wait()
        trainer.stdout.close()
    wait_until(lambda: running() == [])


def wait_until(holds, seconds=20.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_killed_run_is_cleared_up(sandbox, monkeypatch):
    box = Sandbox(seconds=60)
    monkeypatch.setattr(module, "GRACE", -59.5)
    with pytest.raises(SandboxError, match="the machine is overloaded"):
        box.run("import time; time.sleep(60)", [])
    wait_until(lambda: running() == [])


# What is left out of the isolation, and what the refusal says is missing.
HOLES = {
    "0x20000000": "processes of its own",
    "0x40000000": "no network",
    "READ_ONLY | NO_SETUID": "a file system of its own",
    'build_root(job["directories"], job["devices"])': "a file system",
    'drop_privileges(job["number"])': "no privileges",
    'limit(job["seconds"], job["memory"])': "a limit on memory",
}


@pytest.mark.parametrize("hole", HOLES)
def test_a_sandbox_with_a_hole_is_refused(sandbox, hole, tmp_path, monkeypatch):
    source = ISOLATION.read_text("utf-8")
    assert hole in source
    script = tmp_path / "isolation.py"
    script.write_text(source.replace(hole, "0"), "utf-8")
    monkeypatch.setattr(module, "ISOLATION", script)
    with pytest.raises(SandboxError, match=f"would lack.*{HOLES[hole]}"):
        Sandbox()


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("import sys; sys.exit(3)", "ended with status 3"),
        ("", "it would lack running Python"),
    ],
)
def test_a_sandbox_that_cannot_start_is_refused(
    tmp_path, monkeypatch, script, message
):
    path = tmp_path / "isolation.py"
    path.write_text(script, "utf-8")
    monkeypatch.setattr(module, "ISOLATION", path)
    with pytest.raises(SandboxError, match=message):
        CodeTests()


def test_a_kernel_that_says_no_is_quoted(sandbox, tmp_path, monkeypatch):
    source = ISOLATION.read_text("utf-8")
    refused = 'raise SetupError(1, "unshare: not permitted")'
    script = tmp_path / "isolation.py"
    script.write_text(source.replace("take_namespaces()\n", f"{refused}\n", 1))
    monkeypatch.setattr(module, "ISOLATION", script)
    with pytest.raises(SandboxError, match="made here: .*not permitted"):
        sandbox.run("x = 1", ["x"])


def test_limits_that_are_lower_already_stay(sandbox):
    script = (
        "import resource\nfrom tfrlhf.rewards import Sandbox\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (48, 48))\n"
        "test = 'import resource as r; assert r.getrlimit(7) == (48, 48)'\n"
        "print(Sandbox().run('', [test]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.stdout == "[True]\n", done.stderr


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(module.sys, "platform", "darwin")
    with pytest.raises(SandboxError, match="on Linux only. Received: darwin"):
        Sandbox()


def test_settings_are_checked():
    with pytest.raises(ValueError, match="`seconds` must be more than 0"):
        Sandbox(seconds=0)
    with pytest.raises(ValueError, match="`memory` must be at least 64"):
        CodeTests(memory=1)


def test_the_reward_is_the_share_of_tests(sandbox):
    reward = CodeTests(seconds=2.0)
    right = "```python\ndef add(a, b):\n    return a + b\n```"
    wrong = right.replace("+", "-")
    tests = ["assert add(1, 0) == 1", "assert add(1, 2) == 3"]
    scores = reward(
        ["Add."] * 4,
        [right, wrong, "I cannot.", right],
        tests=[tests, tests, tests, "assert add('a', 'b') == 'ab'"],
    )
    assert scores == [1.0, 0.5, 0.0, 1.0]
    assert CodeTests("t")(["Add."], [right], t=[tests]) == [1.0]
    with pytest.raises(ValueError, match="CodeTests reads the column 'tests'"):
        reward(["Add."], [right])
