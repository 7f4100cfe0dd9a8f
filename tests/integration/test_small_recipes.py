"""recipes/sft.py, reward_model.py and compare_algorithms.py, as started."""

import json
import subprocess
import sys

import pytest

from tests import small
from tests.conftest import ROOT

WORDS = ["park", "trees", "weather", "old house", "large garden"]


def start(recipe, *arguments):
    """Runs a recipe in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / recipe, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def summary(directory):
    return json.loads((directory / "summary.json").read_text("utf-8"))


def written(path, records):
    lines = (json.dumps(record) for record in records)
    path.write_text("\n".join(lines), "utf-8")
    return path


@pytest.fixture(scope="module")
def fine_tuned(tmp_path_factory):
    """The run of sft.py."""
    directory = tmp_path_factory.mktemp("sft")
    small.tokenizer().save(directory / "tokenizer")
    examples = [
        {"prompt": f"The {word} {n}", "response": " is large and fine."}
        for n in range(12)
        for word in WORDS
    ]
    answer = start(
        "sft.py",
        "--tiny",
        "--tokenizer",
        directory / "tokenizer",
        "--examples",
        written(directory / "examples.jsonl", examples),
        "--max-length",
        64,
        "--learning-rate",
        1e-2,
        "--output",
        directory / "run",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return directory / "run"


def test_a_model_from_nothing_learns_the_examples(fine_tuned):
    found = summary(fine_tuned)
    assert found["loss_after"] < found["loss_before"] - 0.3
    assert found["rows"] < found["examples"]


def test_ranked_lists_train_a_reward_model(fine_tuned, tmp_path):
    lists = [
        {
            "prompt": f"The {word} {n}",
            "responses": [" is fine.", " is.", " no no no"],
        }
        for n in range(12)
        for word in WORDS
    ]
    answer = start(
        "reward_model.py",
        "--tiny",
        "--model",
        fine_tuned / "models" / "policy",
        "--preferences",
        written(tmp_path / "lists.jsonl", lists),
        "--epochs",
        4,
        "--learning-rate",
        1e-2,
        "--output",
        tmp_path / "run",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = summary(tmp_path / "run")
    # Three pairs a list: the better one is longer, as long, shorter.
    assert found["held_out_pairs"] % 3 == 0
    assert found["longer_accuracy"] == pytest.approx(0.5)
    assert found["reward_model_accuracy"] > 0.9


def test_algorithms_side_by_side(tmp_path):
    answer = start(
        "compare_algorithms.py",
        "--tiny",
        "--algorithms",
        "RLOO",
        "--output",
        tmp_path / "run",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = summary(tmp_path / "run")
    assert [len(c["kl"]) for c in found["curves"]["RLOO"]] == [3, 3]
    assert "Reward at equal KL, 2 seeds" in answer.stdout


@pytest.mark.parametrize(
    ("recipe", "arguments", "message"),
    [
        ("sft.py", [], "Give one of --model and --tokenizer."),
        (
            "compare_algorithms.py",
            ["--algorithms", "PPO,TRPO"],
            "--algorithms has no 'TRPO': choose from PPO, REINFORCE",
        ),
    ],
)
def test_settings_that_cannot_be(recipe, arguments, message, tmp_path):
    answer = start(recipe, *arguments, "--output", tmp_path / "run")
    assert answer.returncode != 0
    assert message in " ".join((answer.stdout + answer.stderr).split())
    assert not (tmp_path / "run").exists()
