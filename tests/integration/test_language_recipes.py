"""couplets_zh.py as a user starts it."""

import importlib.util
import json
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing import event_accumulator

from tests.conftest import ROOT

CHINESE = re.compile("[一-龥]+")


def start(recipe, *arguments):
    """Runs a recipe in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / recipe, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def tiny(recipe, directory, *arguments):
    """Runs a recipe on its own data; returns summary and output."""
    answer = start(recipe, "--tiny", "--output", directory, *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads((directory / "summary.json").read_text("utf-8"))
    return found, answer.stdout


def module(name):
    """A recipe as a module, without running it."""
    path = ROOT / "recipes" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    loaded = importlib.util.module_from_spec(spec)
    # Dataclasses look their module up.
    sys.modules[name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def couplets():
    return module("couplets_zh")


@pytest.fixture(scope="module")
def couplets_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("couplets") / "run"
    return directory, *tiny("couplets_zh.py", directory)


def test_couplets_learn_and_are_measured(couplets_run):
    directory, found, printed = couplets_run
    assert found["prompts"] == 144
    assert found["kl"] > 0.0
    assert found["losses"][-1] < 4.0
    copy, random = (found["measured"][x] for x in ("copy", "random"))
    # What a rule gets is known.
    assert copy["form"] == random["season"] == random["phrase"] == [1.0, 0.0]
    assert copy["fresh"] == [0.0, 0.0]
    assert copy["copies"] == [1.0, 0.0]
    assert copy["distinct"] == 48
    for name in ("before", "after"):
        part = found["measured"][name]
        assert part["reward"][0] == pytest.approx(
            sum(
                part[x][0]
                for x in ("form", "season", "phrase", "fresh", "level")
            )
        )
    assert "of the answers after PPO match" in printed
    assert (directory / "models" / "policy" / "tokenizer.json").exists()


def test_a_second_start_prints_the_table_again(couplets_run):
    directory, found, printed = couplets_run
    again, later = tiny("couplets_zh.py", directory)
    assert "done before" in later
    assert again["measured"] == found["measured"]
    table = printed[printed.index("144 held-out") : printed.index("minutes")]
    assert table.rpartition("\n")[0] in later


def test_each_part_of_the_reward_is_logged(couplets_run):
    log = event_accumulator.EventAccumulator(
        str(couplets_run[0] / "logs" / "ppo"), size_guidance={"tensors": 0}
    )
    log.Reload()
    tags = set(log.Tags()["tensors"])
    parts = ("form", "season", "phrase", "fresh", "level")
    assert {f"rewards/{part}" for part in parts} <= tags
    assert "samples" in tags


def test_couplets_reward(couplets):
    reward = couplets.make_reward()
    answers = {
        "春天，万物复苏": (1, 1, 1, 1, 1),
        "春日，百花齐放": (1, 1, 1, 1, 0),
        "春天，阳光明媚": (1, 1, 1, 0, 0),
        "秋天，硕果累累": (1, 0, 0, 1, 0),
        "春天，春春春春": (1, 1, 0, 1, 0),
        "春天万物复苏": (0, 0, 0, 1, 0),
        "春天，万物复苏。": (0, 1, 0, 1, 0),
        "春天，万物复�": (0, 1, 0, 1, 0),
        "春天，万物，复苏": (0, 1, 0, 1, 0),
    }
    scores = reward(
        [""] * len(answers),
        list(answers),
        theme=["春"] * len(answers),
        phrase=["阳光明媚"] * len(answers),
    )
    assert scores == [sum(parts) for parts in answers.values()]
    rows = list(zip(*reward.parts.values(), strict=True))
    assert rows == list(answers.values())


def test_couplet_phrases(couplets):
    phrases = couplets.load_phrases()
    assert len({p.text for p in phrases}) == len(phrases) == 288
    assert all(CHINESE.fullmatch(p.text) and len(p.text) == 4 for p in phrases)
    assert {p.tone for p in phrases} == {1, 2, 3, 4}
    assert {p.theme for p in phrases} == set(couplets.OPENINGS)


def test_held_out_phrases_are_in_no_prompt_that_is_trained_on(couplets):
    training, held_out = couplets.prompts(couplets.load_phrases())
    assert not {r["phrase"] for r in training} & {r["phrase"] for r in held_out}
    assert {r["theme"] for r in held_out} == set(couplets.OPENINGS)
    pairs = couplets.examples(training, seed=0)
    assert len(pairs) == 4 * len(training)
    for pair in pairs:
        first = pair["prompt"].splitlines()[0].removeprefix("上联：")
        assert couplets.FORM.fullmatch(pair["response"])
        assert pair["response"] != first
        assert pair["response"].split("，")[0] == first.split("，")[0]
