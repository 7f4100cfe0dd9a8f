"""Two replicas train as one does."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def runs():
    answer = subprocess.run(
        [sys.executable, "-m", "tests.distribute.mirrored"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(answer.stdout)


def test_rows_are_dealt_out_in_runs_and_joined_in_order(runs):
    assert runs["replicas"] == 2
    assert runs["rows"] == {"sizes": [3, 3], "back": [0, 10, 20, 30, 40]}


@pytest.mark.parametrize("trainer", ["sft", "reward", "ppo"])
def test_metrics_and_weights_are_the_same(runs, trainer):
    run = runs[trainer]
    one, two = run["one"], run["two"]
    assert len(one["steps"]) == len(two["steps"]) == 3
    for received, expected in zip(two["steps"], one["steps"], strict=True):
        assert received == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert two["evaluated"] == pytest.approx(
        one["evaluated"], rel=1e-4, abs=1e-5
    )
    assert run["weights"] < 1e-5


def test_samples_and_kl_weights_are_the_same(runs):
    one, two = runs["ppo"]["one"], runs["ppo"]["two"]
    assert two["responses"] == one["responses"]
    assert two["kl_weights"] == pytest.approx(one["kl_weights"], rel=1e-6)
    assert len(set(one["kl_weights"])) > 1
