"""Two replicas train as one does, in one piece or in micro-batches."""

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

# In float32, after three steps or iterations.
TOLERANCE = 1e-5


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


# trl#2596: whitening and means by rank, so that a run on one GPU was another
# than on many. torchtune#1875: a mean of the micro-batches' means.
@pytest.mark.parametrize(
    ("trainer", "run"),
    [
        ("sft", "two"),
        ("sft", "quarters"),
        ("reward", "two"),
        ("reward", "quarters"),
        ("dpo", "two"),
        ("dpo", "halves"),
        ("dpo", "quarters"),
        ("kto", "two"),
        ("kto", "quarters"),
        ("ppo", "two"),
        ("ppo", "halves"),
        ("ppo", "quarters"),
        ("grpo", "two"),
        ("grpo", "two halves"),
        ("grpo", "quarters"),
    ],
)
def test_metrics_and_weights_are_the_same(runs, trainer, run):
    one, other = runs[trainer]["one"], runs[trainer][run]
    assert len(one["steps"]) == len(other["steps"]) == 3
    assert all(set(step) == set(one["steps"][0]) for step in other["steps"])
    assert other["differences"]["metrics"] <= TOLERANCE
    assert other["differences"]["weights"] <= TOLERANCE
    assert other["differences"]["kl_weights"] <= TOLERANCE


@pytest.mark.parametrize("trainer", ["sft", "dpo", "kto", "ppo", "grpo"])
def test_what_is_measured_is_the_same(runs, trainer):
    one, two = (runs[trainer][run]["evaluated"] for run in ("one", "two"))
    assert len(one) > 1
    assert two == pytest.approx(one, rel=TOLERANCE, abs=TOLERANCE)


@pytest.mark.parametrize(
    ("trainer", "run"),
    [
        ("ppo", "two"),
        ("ppo", "halves"),
        ("ppo", "quarters"),
        ("grpo", "two"),
        ("grpo", "two halves"),
        ("grpo", "quarters"),
    ],
)
def test_samples_are_the_same(runs, trainer, run):
    one, other = runs[trainer]["one"], runs[trainer][run]
    assert other["responses"] == one["responses"]


def test_the_control_and_the_examples_have_a_part_in_it(runs):
    assert len(set(runs["ppo"]["one"]["kl_weights"])) > 1
    assert runs["grpo"]["one"]["steps"][0]["loss/sft"] > 1.0


def test_the_largest_differences(runs, record_testsuite_property):
    """Written to the report of `pytest --junitxml`, and shown with -s."""
    for name in ("metrics", "weights", "kl_weights"):
        largest = max(
            run["differences"][name]
            for trainer in ("sft", "reward", "dpo", "kto", "ppo", "grpo")
            for run in runs[trainer].values()
        )
        record_testsuite_property(f"largest difference of {name}", largest)
        print(f"largest difference of {name}: {largest:.2g}")
        assert largest <= TOLERANCE
