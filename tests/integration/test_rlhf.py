"""The recipe as a user starts it: every stage for real, then bad input."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
KEYS = {
    "win_rate",
    "win_rate_stderr",
    "kl",
    "reward_before",
    "reward_after",
    "gold_before",
    "gold_after",
    "length_before",
    "length_after",
    "distinct2_before",
    "distinct2_after",
    "reward_model_accuracy",
    "seconds",
    "peak_memory_mb",
    "exports",
}


def start(directory, *options):
    return subprocess.run(
        [sys.executable, str(ROOT / "recipes" / "rlhf.py"), *options],
        cwd=directory,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    first = start(directory, "--tiny", "--output", "out")
    assert first.returncode == 0, first.stderr[-3000:]
    return directory, first


def test_every_stage_leaves_what_it_promises(finished):
    directory, first = finished
    out = directory / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) >= KEYS
    assert set(summary["seconds"]) == {
        "sft",
        "reward",
        "ppo",
        "evaluation",
        "export",
    }
    assert summary["prompts"] >= 200
    assert 0.0 <= summary["win_rate"] <= 1.0
    for name in ("policy", "reward"):
        assert (out / "savedmodels" / name / "1" / "saved_model.pb").exists()
        assert summary["exports"][name] == f"out/savedmodels/{name}/1"
    for stage in ("sft", "reward", "ppo"):
        assert list((out / "logs" / stage).glob("events.out.tfevents.*"))
    assert "win rate" in first.stdout


def test_a_second_start_repeats_nothing_and_shows_the_table(finished):
    directory, _ = finished
    second = start(directory, "--tiny", "--output", "out")
    assert second.returncode == 0, second.stderr[-3000:]
    assert second.stdout.count("done before") == 5
    assert "win rate" in second.stdout


def test_another_run_in_the_directory_is_left_alone(finished):
    directory, _ = finished
    other = start(directory, "--tiny", "--output", "out", "--seed", "7")
    assert other.returncode == 2
    assert "seed=0" in other.stdout and "--overwrite" in other.stdout
    assert "Traceback" not in other.stderr
    assert json.loads((directory / "out" / "config.json").read_text())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--reward", "no_such_module:score"], "no_such_module"),
        (["--model", "missing", "--prompts", "none.jsonl"], "none.jsonl"),
        (["--model", "missing"], "--prompts"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, options, message):
    if "--prompts" in options:
        options = [*options, "--reward", "tfrlhf.rewards:courtesy"]
    failed = start(tmp_path, *options)
    assert failed.returncode == 2
    assert message in failed.stdout
    assert "Traceback" not in failed.stderr
    assert not (tmp_path / "runs" / "rlhf" / "models" / "sft").exists()
