"""Recipes that take models and data, as they are started."""

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
        "RLOO,DPO",
        "--output",
        tmp_path / "run",
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = summary(tmp_path / "run")
    for name in ("RLOO", "DPO"):
        for curve in found["curves"][name]:
            assert len(curve["kl"]) == len(curve["scores"]) > 0
    # The more samples to choose from, the better the best one.
    bounds, scores = zip(*found["best_of_n"].values(), strict=True)
    assert bounds[0] == 0.0 < bounds[1] < bounds[2]
    assert scores[0] < scores[1] < scores[2]
    assert "Reward at equal KL, 2 seeds" in answer.stdout
    assert (tmp_path / "run" / "frontier.png").stat().st_size > 10_000


def longer(prompts, responses):
    """Labels as somebody does who likes long answers."""
    return [float(len(r)) for r in responses]


def test_feedback_in_rounds(fine_tuned, tmp_path):
    prompts = [{"prompt": f"The {w} {n}"} for n in range(12) for w in WORDS]
    arguments = [
        "iterate.py",
        "--tiny",
        "--model",
        fine_tuned / "models" / "policy",
        "--prompts",
        written(tmp_path / "prompts.jsonl", prompts),
        "--labeller",
        "tests.integration.test_small_recipes:longer",
        "--max-new-tokens",
        12,
        "--temperature",
        1.0,
        "--output",
        tmp_path / "run",
    ]
    answer = start(*arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    rounds = summary(tmp_path / "run")["rounds"]
    assert len(rounds) == 2
    # Round 2 first shows what the model of round 1 makes of its answers.
    assert "accuracy_before" not in rounds[0]
    assert 0.0 <= rounds[1]["accuracy_before"] <= 1.0
    for number, measured in enumerate(rounds, 1):
        file = tmp_path / "run" / "feedback" / f"round-{number}.jsonl"
        pairs = [json.loads(line) for line in file.read_text().splitlines()]
        assert len(pairs) == measured["pairs"] > 8
        assert all(len(p["chosen"]) > len(p["rejected"]) for p in pairs)
    again = start(*arguments)
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.count("done before") == 9
    assert "round 2" in again.stdout


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
