"""recipes/rlhf.py as a user starts it."""

import gzip
import importlib.util
import json
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing import event_accumulator

from tests.conftest import ROOT
from tfrlhf import cli

RECIPE = ROOT / "recipes" / "rlhf.py"
MEASURED = {
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
    "peak_memory_mb",
}
STAGES = ["sft", "reward", "ppo", "evaluation", "export"]


def start(*arguments):
    """Runs the recipe in a process of its own."""
    return subprocess.run(
        [sys.executable, RECIPE, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def read_summary(directory):
    return json.loads((directory / "summary.json").read_text("utf-8"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The embedded task: the run's directory and what it printed."""
    directory = tmp_path_factory.mktemp("runs") / "tiny"
    answer = start("--tiny", "--output", directory)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return directory, answer.stdout


def test_the_summary_has_every_figure(tiny):
    summary = read_summary(tiny[0])
    assert set(summary) >= MEASURED | {"seconds", "exports"}
    assert all(isinstance(summary[name], float) for name in MEASURED)
    assert 0.0 <= summary["win_rate"] <= 1.0
    assert 0.0 < summary["win_rate_stderr"] < 0.1
    assert 0.5 < summary["reward_model_accuracy"] <= 1.0
    assert 0.0 < summary["distinct2_after"] <= 1.0
    assert summary["prompts"] >= 200
    assert list(summary["seconds"]) == STAGES
    assert all(seconds > 0.0 for seconds in summary["seconds"].values())


def test_the_policy_moved_and_stayed_near(tiny):
    assert 0.0 < read_summary(tiny[0])["kl"] < 50.0


def test_there_are_saved_models(tiny):
    directory = tiny[0]
    exports = read_summary(directory)["exports"]
    assert set(exports) == {"policy", "reward"}
    for name, path in exports.items():
        expected = directory / "savedmodels" / name / "1"
        assert path == str(expected)
        assert (expected / "saved_model.pb").is_file()


def test_nothing_half_written_is_left(tiny):
    assert not list(tiny[0].rglob("*.partial"))


@pytest.mark.parametrize(
    ("stage", "tags"),
    [
        ("sft", {"loss", "config"}),
        ("reward", {"loss", "accuracy", "config"}),
        (
            "ppo",
            {"objective/scores", "objective/kl", "loss/policy", "samples"},
        ),
    ],
)
def test_there_are_tensorboard_logs(tiny, stage, tags):
    events = event_accumulator.EventAccumulator(str(tiny[0] / "logs" / stage))
    events.Reload()
    assert set(events.Tags()["tensors"]) >= tags


def test_progress_and_table_are_printed(tiny):
    lines = tiny[1].splitlines()
    for number in range(1, len(STAGES) + 1):
        assert [line for line in lines if line.startswith(f"{number}. ")]
    assert tiny[1].count("before:") == tiny[1].count("after:") == 2
    assert "win rate" in tiny[1]


def test_a_second_start_repeats_no_stage(tiny):
    directory, first = tiny
    before = read_summary(directory)
    models = directory / "models"
    written = {f: f.stat().st_mtime_ns for f in models.rglob("*")}
    answer = start("--tiny", "--output", directory)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.count("done before") == len(STAGES)
    assert {f: f.stat().st_mtime_ns for f in models.rglob("*")} == written
    after = read_summary(directory)
    for summary in (before, after):
        del summary["peak_memory_mb"]
    assert after == before
    table = [line for line in first.splitlines() if "win rate" in line]
    assert table == [x for x in answer.stdout.splitlines() if "win rate" in x]


def write_prompts(path, shared_data, count):
    """Beginnings of stories."""
    stories = shared_data / "data" / "text" / "tinystories_1000.jsonl.gz"
    with gzip.open(stories, "rt", encoding="utf-8") as lines:
        texts = [json.loads(next(lines))["text"] for _ in range(count)]
    records = [{"prompt": " ".join(text.split()[:3])} for text in texts]
    path.write_text("".join(json.dumps(r) + "\n" for r in records))


def test_a_real_model_with_a_reward_function(
    tmp_path, shared_data, stories_directory
):
    pytest.importorskip("vaderSentiment", reason="it is an extra")
    prompts = tmp_path / "prompts.jsonl"
    write_prompts(prompts, shared_data, 40)
    directory = tmp_path / "run"
    answer = start(
        "--tiny",
        *("--model", stories_directory, "--prompts", prompts),
        *("--reward", "tfrlhf.rewards:vader", "--max-new-tokens", 16),
        *("--output", directory),
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    summary = read_summary(directory)
    assert summary["prompts"] == 20
    assert -1.0 <= summary["reward_before"] <= 1.0
    # Nothing else measures.
    assert summary["gold_after"] == summary["reward_after"]
    assert summary["reward_model_accuracy"] is None
    assert set(summary["exports"]) == {"policy"}
    assert "reward" not in summary["seconds"]


@pytest.fixture(scope="module")
def recipe():
    """The recipe as a module, to fail in without a new process."""
    spec = importlib.util.spec_from_file_location("rlhf_recipe", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture
def fails(recipe, tmp_path, monkeypatch, capsys):
    """Starts the recipe; returns its one line, nothing being written."""
    output = tmp_path / "output"

    def run(*arguments):
        argv = ["rlhf.py", "--output", str(output), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", argv)
        before = sorted(output.rglob("*")) if output.exists() else None
        with pytest.raises(SystemExit) as caught:
            cli.main(recipe.main, recipe.Settings)
        assert caught.value.code == 2
        lines = capsys.readouterr().out.splitlines()
        after = sorted(output.rglob("*")) if output.exists() else None
        assert after == before
        assert len(lines) == 1, lines
        return lines[0]

    return run


GOOD = '{"prompt": "Once upon a time"}\n' * 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + "Once upon a time\n", "prompts.jsonl:4"),
        (GOOD + '{"text": "Once upon a time"}\n', "prompts.jsonl:4"),
        (GOOD + '{"prompt": " "}\n', "prompts.jsonl:4"),
        (GOOD + '{"prompt": "%s"}\n' % ("Lily. " * 400), "prompts.jsonl:4"),
        ("", "prompts.jsonl is empty"),
        ('{"prompt": "Once"}\n', "at least 2"),
        (None, "prompts.jsonl does not exist"),
    ],
    ids=["json", "field", "empty", "long", "no lines", "one line", "no file"],
)
def test_bad_prompts(fails, tmp_path, stories_directory, content, message):
    prompts = tmp_path / "prompts.jsonl"
    if content is not None:
        prompts.write_text(content)
    line = fails(
        *("--model", stories_directory, "--prompts", prompts),
        *("--reward", "tfrlhf.rewards:courtesy"),
    )
    assert message in line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": "Lily", "chosen": " ran."}\n', "pairs.jsonl:30.*rejected"),
        (
            '{"prompt": "Lily", "chosen": " ran.", "rejected": " ran."}\n',
            "pairs.jsonl:30",
        ),
        (None, "pairs.jsonl does not exist"),
    ],
    ids=["field", "equal", "no file"],
)
def test_bad_preferences(fails, tmp_path, stories_directory, content, message):
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    pairs = tmp_path / "pairs.jsonl"
    if content is not None:
        good = json.loads(GOOD.splitlines()[0])
        good |= {"chosen": " there was a cat.", "rejected": " a dog."}
        pairs.write_text((json.dumps(good) + "\n") * 29 + content)
    line = fails(
        *("--model", stories_directory, "--preferences", pairs),
        *("--prompts", tmp_path / "prompts.jsonl"),
    )
    assert re.search(message, line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reward", "no_such_module:f"], "'no_such_module' cannot be"),
        (["--reward", "tfrlhf.rewards:f"], "has no function 'f'"),
        (["--prompts", "p.jsonl"], "--prompts p.jsonl does not exist"),
        (["--gold", "courtesy"], "--gold must be `module:function`"),
        (["--model", "some_model"], "--model and --prompts go together"),
        (["--prompts", __file__], "--model and --prompts go together"),
        (["--preferences", __file__], "need --model and --prompts"),
        (["--strategy", "many"], "--strategy must be none, mirrored"),
    ],
)
def test_options_that_do_not_go(fails, arguments, message):
    assert message in fails("--tiny", *arguments)


def test_a_model_that_is_not_there(fails, tmp_path):
    (tmp_path / "prompts.jsonl").write_text(GOOD)
    model = tmp_path / "no_model"
    line = fails(
        *("--model", model, "--prompts", tmp_path / "prompts.jsonl"),
        *("--reward", "tfrlhf.rewards:courtesy"),
    )
    assert str(model) in line


def test_the_directory_of_another_run(fails, tmp_path, capsys):
    cli.Run("label_pairs", cli.RunSettings(output=tmp_path / "output")).stage(
        "pairs", "Pairs", lambda: {"pairs": 3}
    )
    capsys.readouterr()
    assert "label_pairs" in fails("--tiny")


def test_an_error_has_no_traceback(tmp_path):
    answer = start("--output", tmp_path / "run", "--reward", "no_such:f")
    assert answer.returncode == 2
    assert answer.stdout.count("\n") == 1
    assert answer.stdout.startswith("Error: --reward no_such:f")
    assert answer.stderr == ""
    assert not list(tmp_path.iterdir())
