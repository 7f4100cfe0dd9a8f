"""The driver with a worker of its own: turns, reports, and an early end."""

import sys

import pytest

from benchmarks import driver
from benchmarks.cases import Case
from benchmarks.cases import Side
from benchmarks.watch import Watch

WORKER = """
import sys
from benchmarks.turns import Turns
turns = Turns()
order = turns.order()
print("this is not for the driver")
if order["settings"].get("broken"):
    sys.exit("it broke")
count = awake = 0
def awaken():
    global awake
    awake += 1
while turns.wait(awaken):
    count += 1
    task = len(order["task"])
    turns.report({"count": count, "task": task, "awake": awake > 0})
    awake = 0
"""


@pytest.fixture
def commands(monkeypatch, tmp_path):
    command = (sys.executable, "-c", WORKER)
    monkeypatch.setattr(driver, "COMMANDS", {"here": command})
    monkeypatch.setattr(driver, "OUTPUT", tmp_path)
    monkeypatch.setattr(driver, "PAUSE", 0.0)


def test_sides_work_in_turns(commands):
    sides = (Side("a", "here", "one", {}), Side("b", "here", "three", {}))
    rounds, machine = driver.measure(Case("case", sides, 2, ()), 2)
    assert rounds == [
        {
            "a": {"count": n, "task": 3, "awake": True},
            "b": {"count": n, "task": 5, "awake": True},
        }
        for n in (1, 2)
    ]
    assert set(machine) == {"others", "waiting"}


def test_fresh_turns_are_processes_of_their_own(commands):
    side = Side("a", "here", "one", {})
    rounds, _ = driver.measure(Case("case", (side,), 2, (), fresh=True), 2)
    assert [each["a"]["count"] for each in rounds] == [1, 1]


def test_a_worker_that_ends_is_named_with_what_it_said(commands):
    sides = (Side("a", "here", "one", {"broken": True}),)
    with pytest.raises(driver.WorkerError, match="a ended(.|\n)*it broke"):
        driver.measure(Case("case", sides, 1, ()), 1)


def test_the_watch_sees_memory_grow():
    import os
    import time

    with Watch(os.getpid()) as before:
        time.sleep(0.1)
    with Watch(os.getpid()) as watch:
        block = bytearray(b"x" * 50_000_000)
        time.sleep(0.1)
    grown = watch.peaks["peak anonymous"] - before.peaks["peak anonymous"]
    assert len(block) * 0.5 < grown
