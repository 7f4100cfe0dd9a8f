import dataclasses
import json
import os
import pathlib
import subprocess
import sys

import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

from tests import small
from tests.conftest import ROOT
from tfrlhf import cli
from tfrlhf import data
from tfrlhf import evaluation
from tfrlhf import rewards


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """Settings of a recipe that does nothing."""

    rate: float = 0.1
    data: pathlib.Path | None = None


@pytest.fixture
def directory(tmp_path):
    return tmp_path / "run"


def start(directory, **settings):
    return cli.Run("recipe", Settings(output=directory, **settings))


def begin(directory, **settings):
    """A run whose first stage is done."""
    run = start(directory, **settings)
    run.stage("first", "First", lambda: {"x": 1})
    return run


def refused(directory, **settings):
    """The message with which a start is refused; nothing changes."""
    files = sorted(directory.rglob("*")) if directory.is_dir() else None
    with pytest.raises(cli.UserError) as caught:
        start(directory, **settings)
    message = str(caught.value)
    assert "\n" not in message and str(directory) in message
    if files is not None:
        assert sorted(directory.rglob("*")) == files
    return message


def test_a_new_directory(directory):
    run = begin(directory, data=pathlib.Path("a.jsonl"))
    assert run.models == directory / "models"
    config = json.loads((directory / "config.json").read_text())
    assert config["recipe"] == "recipe"
    assert (config["rate"], config["data"]) == (0.1, "a.jsonl")


def test_an_empty_directory_will_do(directory):
    directory.mkdir()
    start(directory)


def test_without_output_the_run_lies_in_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.Run("recipe", Settings()).directory == pathlib.Path(
        "runs/recipe"
    )


def test_a_path_to_read_from_is_there(directory, tmp_path):
    cli.check_files(Settings(output=directory, data=tmp_path))
    with pytest.raises(cli.UserError, match="--data .*lost.tsv does not exist"):
        cli.check_files(Settings(data=tmp_path / "lost.tsv"))


def test_foreign_files_are_left_alone(directory):
    directory.mkdir()
    (directory / "thesis.txt").write_text("years of work")
    assert "holds files that are no run" in refused(directory)
    assert "deletes only runs" in refused(directory, overwrite=True)


def test_the_config_of_a_model_does_not_make_a_run(directory):
    directory.mkdir()
    (directory / "config.json").write_text('{"model_type": "llama"}')
    (directory / "model.safetensors").write_text("weights")
    assert "no run" in refused(directory)
    assert "deletes only runs" in refused(directory, overwrite=True)


def test_a_file_is_no_directory(directory):
    directory.write_text("")
    assert "is a file" in refused(directory)
    assert "is a file" in refused(directory, overwrite=True)


def test_other_settings_are_refused_by_name(directory):
    begin(directory)
    message = refused(directory, rate=0.2)
    assert "rate=0.1" in message and "rate=0.2" in message
    assert "--overwrite" in message


def test_another_recipe_is_refused(directory):
    begin(directory)
    with pytest.raises(cli.UserError, match="recipe='recipe'.*'other'"):
        cli.Run("other", Settings(output=directory))


def test_a_moved_run_is_the_same_run(directory):
    begin(directory)
    moved = directory.with_name("moved")
    directory.rename(moved)
    assert "first" in start(moved).stages


def test_overwrite_starts_anew(directory):
    old = begin(directory)
    (old.models / "old").mkdir()
    run = start(directory, rate=0.2, overwrite=True)
    assert run.stages == {}
    run.stage("second", "Second", lambda: None)
    run.stage("third", "Third", lambda: None)
    assert not list(run.models.iterdir())
    # And the run is found again without the option.
    assert set(start(directory, rate=0.2).stages) == {"second", "third"}


def test_nothing_is_written_or_deleted_before_the_first_stage(directory):
    start(directory)
    assert not directory.exists()
    begin(directory)
    start(directory, rate=0.2, overwrite=True)
    assert "first" in start(directory).stages


def test_overwrite_of_nothing(directory):
    start(directory, overwrite=True)


def test_finished_stages_are_not_repeated(directory, capsys):
    done = []

    def work(name):
        def stage():
            done.append(name)
            return {"name": name, "numbers": [1, 2.5], "more": None}

        return stage

    first = start(directory)
    result = first.stage("one", "Stage one", work("one"))
    second = start(directory)
    assert second.stage("one", "Stage one", work("one")) == result
    second.stage("two", "Stage two", work("two"))
    assert done == ["one", "two"]
    assert "✓ Stage one (done before" in capsys.readouterr().out
    third = start(directory)
    assert set(third.seconds) == {"one", "two"}
    assert third.seconds["one"] == first.seconds["one"]


def test_a_stage_without_a_result(directory):
    assert start(directory).stage("one", "One", lambda: None) == {}
    assert start(directory).stage("one", "One", lambda: {"x": 1}) == {}


def test_what_a_caller_does_to_a_result_is_not_kept(directory):
    run = start(directory)
    run.stage("one", "One", lambda: {"samples": [1]}).pop("samples")
    run.stage("two", "Two", lambda: None)
    assert start(directory).stages["one"]["result"] == {"samples": [1]}


def test_an_interrupted_stage_is_repeated(directory):
    def interrupted():
        raise KeyboardInterrupt

    run = start(directory)
    run.stage("one", "One", lambda: {"x": 1})
    with pytest.raises(KeyboardInterrupt):
        run.stage("two", "Two", interrupted)
    again = start(directory)
    assert set(again.stages) == {"one"}
    assert again.stage("two", "Two", lambda: {"y": 2}) == {"y": 2}


def test_the_summary(directory):
    summary = begin(directory).write_summary({"win_rate": 0.5, "text": "好"})
    text = (directory / "summary.json").read_text("utf-8")
    assert json.loads(text) == summary
    assert summary["win_rate"] == 0.5 and summary["text"] == "好"
    assert set(summary["seconds"]) == {"first"}
    assert 100 < summary["peak_memory_mb"] < 100_000
    assert not list(directory.glob("*.partial"))


def test_writing_gives_the_name_when_all_is_written(tmp_path):
    final = tmp_path / "models" / "policy"
    with cli.writing(final) as partial:
        (partial / "weights").write_text("new")
        assert not final.exists()
    assert [p.name for p in final.iterdir()] == ["weights"]
    assert not partial.exists()


def test_writing_that_fails_leaves_nothing(tmp_path):
    final = tmp_path / "policy"
    with pytest.raises(RuntimeError), cli.writing(final) as partial:
        (partial / "weights").write_text("half")
        raise RuntimeError("disk full")
    assert not list(tmp_path.iterdir())


def test_writing_replaces_what_an_unfinished_start_left(tmp_path):
    final = tmp_path / "policy"
    for name in ("policy", "policy.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "old").write_text("")
    with cli.writing(final) as partial:
        (partial / "new").write_text("")
    assert [p.name for p in final.iterdir()] == ["new"]
    assert [p.name for p in tmp_path.iterdir()] == ["policy"]


class Model:
    """Something that can be saved."""

    def save_to_preset(self, directory):
        (directory / "weights").write_text("new")


class Trainer:
    """Notes how it is called."""

    def fit(self, x, **options):
        self.x, self.options = x, options
        return self

    history = {"loss": [2.0, 1.0]}


def test_fitting_is_watched_and_seeded(directory):
    run, trainer = begin(directory, seed=5), Trainer()
    first = object()
    found = run.fit(
        trainer, [1], "sft", {"loss": "L"}, epochs=2, callbacks=[first]
    )
    assert found == {"loss": [2.0, 1.0]}
    assert trainer.x == [1] and trainer.options["seed"] == 5
    assert trainer.options["epochs"] == 2
    callbacks = trainer.options["callbacks"]
    assert callbacks[0] is first and callbacks[1].shown == {"loss": "L"}
    run.fit(trainer, [1], "ppo", seed=6)
    assert trainer.options["seed"] == 6
    assert set(trainer.options["callbacks"][0].shown.values()) == {
        "score",
        "KL",
    }


def test_numbers_over_time_are_logged(directory):
    run = begin(directory)
    run.log_series("stream", {"share": [0.5, 0.25, 0.75]}, first=1)
    events = event_accumulator.EventAccumulator(str(run.logs / "stream"))
    events.Reload()
    steps = [event.step for event in events.Tensors("stream/share")]
    assert steps == [1, 2]


def test_a_model_is_saved_by_its_name(directory):
    run = begin(directory)
    run.save(Model(), "policy")
    assert [p.name for p in run.models.iterdir()] == ["policy"]
    assert (run.models / "policy" / "weights").read_text() == "new"


def test_the_policy_to_start_from(tmp_path):
    made = cli.start_policy(None, ["What is 1 + 1?"] * 9, layers=1, width=8)
    made.save_to_preset(tmp_path / "model")
    found = cli.start_policy(str(tmp_path / "model"), iter(()))
    assert found.count_params() == made.count_params()


def test_records_are_repeated_in_their_order():
    assert cli.repeated("abc", 7) == list("abcabca")
    assert cli.repeated("abc", 2) == list("ab")


def test_responses_are_drawn_as_the_settings_say():
    settings = cli.SamplingSettings(max_new_tokens=7, temperature=0.5)
    drawn = settings.sampler()
    assert (drawn.temperature, drawn.max_new_tokens) == (0.5, 7)
    assert settings.sampler(0.0).temperature == 0.0


def test_fine_tuning(directory):
    run = begin(directory, seed=1)
    policy = small.gpt2_policy()
    records = [{"prompt": f"{n} ", "response": "yes"} for n in range(12)]
    # Encoded, where a length would be that of the tuple.
    examples = data.examples(records, policy.tokenizer, 32, True)
    losses = cli.fine_tune(
        run, policy, examples, rate=1e-2, epochs=3, batch_size=4
    )
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert (run.logs / "sft").is_dir()


def test_a_reward_model_learns_from_comparisons(directory):
    run = begin(directory)
    pairs = [
        {"prompt": f"{n} ", "chosen": "yes", "rejected": "no"}
        for n in range(64)
    ]
    reward = cli.learn_reward(
        run, small.gpt2_policy(), pairs, epochs=4, rate=1e-2
    )
    found = evaluation.reward_accuracy(reward, pairs[:8])
    assert found.value == 1.0
    assert (run.logs / "reward").is_dir()


def test_functions_are_found(tmp_path, monkeypatch):
    assert cli.load_function("--reward", "tfrlhf.rewards:courtesy") is (
        rewards.courtesy
    )
    (tmp_path / "my_own_reward.py").write_text("def score(p, r): return [7]")
    monkeypatch.chdir(tmp_path)
    path = list(sys.path)
    assert cli.load_function("--reward", "my_own_reward:score")([], []) == [7]
    assert sys.path == path


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("model", "must be `module:function`"),
        ("tfrlhf.rewards:", "must be `module:function`"),
        (":courtesy", "must be `module:function`"),
        ("no_such_module:f", "'no_such_module' cannot be imported"),
        ("tfrlhf.no_such:f", "'tfrlhf.no_such' cannot be imported"),
        ("tfrlhf.rewards:no_such", "has no function 'no_such'"),
        ("tfrlhf:__version__", "has no function '__version__'"),
    ],
)
def test_functions_that_are_not_there(spec, message):
    with pytest.raises(cli.UserError, match=message) as caught:
        cli.load_function("--reward", spec)
    assert "--reward" in str(caught.value)


def test_no_strategy():
    assert cli.make_strategy("none") is tf.distribute.get_strategy()


@pytest.mark.parametrize(
    "name", ["", "gpu", "none:2", "mirrored:", "mirrored:two", "mirrored:0"]
)
def test_strategies_that_are_not_there(name):
    with pytest.raises(cli.UserError, match="none, mirrored or mirrored:N"):
        cli.make_strategy(name)


def test_memory_is_in_megabytes():
    assert 100 < cli.peak_memory_mb() < 100_000


def run_main(monkeypatch, error):
    """Runs `cli.main` on a recipe that raises."""

    def recipe(settings):
        """Does nothing."""
        raise error

    monkeypatch.setattr(sys, "argv", ["recipe"])
    cli.main(recipe, Settings)


def test_errors_of_use_are_one_line(monkeypatch, capsys):
    message = "--model needs --prompts, not [/INST] or [red]."
    with pytest.raises(SystemExit) as caught:
        run_main(monkeypatch, cli.UserError(message))
    assert caught.value.code == 2
    assert capsys.readouterr().out == f"Error: {message}\n"


@pytest.mark.parametrize("error", [ValueError("deep"), KeyError("x")])
def test_errors_of_the_program_keep_their_trace(monkeypatch, error):
    with pytest.raises(type(error)):
        run_main(monkeypatch, error)


@pytest.mark.parametrize("recipe", ["rlhf", "reward_model", "label_pairs"])
def test_help_is_quick(recipe):
    answer = subprocess.run(
        [sys.executable, "-X", "importtime", f"recipes/{recipe}.py", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "--output" in answer.stdout
    assert "--overwrite" in answer.stdout
    imported = {
        line.rsplit("|", 1)[-1].strip().split(".")[0]
        for line in answer.stderr.splitlines()
    }
    assert "tfrlhf" in imported
    assert not imported & {"tensorflow", "keras", "keras_hub", "numpy"}


def test_a_table_shows_numbers_and_estimates(capsys):
    rows = [("a", 0.5, [0.25, 0.125], None, 12, "[b]x")]
    cli.print_table("Measured", list("abcdef"), rows)
    printed = capsys.readouterr().out
    cells = [cell.strip() for cell in printed.splitlines()[-2].split("│")]
    assert cells[1:-1] == ["a", "0.500", "0.250 ± 0.125", "", "12", "[b]x"]


def test_compiled_programs_are_kept(monkeypatch, tmp_path):
    # Set first, so that what the function sets is taken back.
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.delenv("TF_XLA_FLAGS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cli.keep_compiled()
    (directory,) = (tmp_path / "tfrlhf").iterdir()
    assert f"cache_directory={directory} " in os.environ["TF_XLA_FLAGS"]


@pytest.mark.parametrize("what", ["flags", "a cache that is a file"])
def test_nothing_is_kept_where_it_cannot_be(monkeypatch, tmp_path, what):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    # Set first, so that what the function sets is taken back.
    monkeypatch.setenv("TF_XLA_FLAGS", "")
    monkeypatch.delenv("TF_XLA_FLAGS")
    if what == "flags":
        monkeypatch.setenv("TF_XLA_FLAGS", "--tf_xla_min_cluster_size=4")
    before = os.environ.get("TF_XLA_FLAGS")
    cli.keep_compiled()
    assert os.environ.get("TF_XLA_FLAGS") == before
