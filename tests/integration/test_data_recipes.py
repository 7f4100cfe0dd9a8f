"""recipes/reinforce_lstm.py, finance_sentiment.py, recommend.py, as started."""

import dataclasses
import importlib.util
import json
import random
import subprocess
import sys

import numpy as np
import pytest
from tensorboard.backend.event_processing import event_accumulator

from tests.conftest import ROOT
from tfrlhf import cli


def start(recipe, *arguments):
    """Runs a recipe in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / recipe, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def finished(recipe, directory, *arguments):
    """Runs a recipe to its end; returns summary.json and what it printed."""
    answer = start(recipe, "--tiny", "--output", directory, *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    found = json.loads((directory / "summary.json").read_text("utf-8"))
    return found, answer.stdout


def tags(directory):
    events = event_accumulator.EventAccumulator(str(directory))
    events.Reload()
    return set(events.Tags()["tensors"])


@pytest.fixture(scope="module")
def load():
    """Loads a recipe as a module, to call its functions."""
    names = []

    def module(recipe):
        name = f"loaded_{recipe}"
        path = ROOT / "recipes" / f"{recipe}.py"
        spec = importlib.util.spec_from_file_location(name, path)
        found = importlib.util.module_from_spec(spec)
        sys.modules[name] = found
        names.append(name)
        spec.loader.exec_module(found)
        return found

    yield module
    for name in set(names):
        del sys.modules[name]


# An LSTM by REINFORCE.


def test_the_lstm_does_not_see_padding_or_later_tokens(load):
    model = load("reinforce_lstm").lstm(20, 8)
    ids = np.array([[3, 4, 5, 0, 0], [6, 7, 8, 9, 10]], np.int32)
    mask = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]], np.int32)
    other = np.array([[3, 4, 5, 11, 12], [6, 7, 8, 9, 13]], np.int32)
    logits, again = (
        np.asarray(model({"token_ids": x, "padding_mask": mask}))
        for x in (ids, other)
    )
    np.testing.assert_array_equal(again[0, :3], logits[0, :3])
    np.testing.assert_array_equal(again[1, :4], logits[1, :4])
    assert np.abs(again[1, 4] - logits[1, 4]).max() > 1e-4
    alone = model({"token_ids": ids[:1, :3], "padding_mask": mask[:1, :3]})
    np.testing.assert_allclose(alone[0], logits[0, :3], atol=1e-6)


def test_beginnings_are_held_out_with_all_that_follows(load):
    recipe = load("reinforce_lstm")
    train, held_out = recipe.load_data(recipe.Settings())
    assert len(train) > 900
    assert len(held_out) > 300
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in held_out}
    assert max(len(r["reference"]) for r in train) > 20


def test_an_lstm_by_reinforce(tmp_path):
    found, printed = finished("reinforce_lstm.py", tmp_path / "run")
    for name in ("before", "after", "greedy", "one_for_all"):
        part = found[name]
        expected = part["bleu"][0] - 0.01 * part["perplexity"][0]
        assert part["reward"][0] == pytest.approx(expected, abs=1e-6)
    # It learned the sentences, and to be likelier than a constant.
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    assert stages["sft"]["result"]["loss"] < 5.8
    assert found["greedy"]["perplexity"][0] < found["before"]["perplexity"][0]
    # The policy moved.
    assert found["after"]["reward"] != found["before"]["reward"]
    assert tags(tmp_path / "run" / "logs" / "reinforce") >= {
        "rewards/bleu",
        "rewards/negative_perplexity",
        "objective/kl",
        "samples",
    }
    again, second = finished("reinforce_lstm.py", tmp_path / "run")
    assert second.count("done before") == 3
    assert again["after"] == found["after"]
    table = [line for line in printed.splitlines() if "perplexity" in line]
    assert table == [x for x in second.splitlines() if "perplexity" in x]


# Finance news.


def test_finance_news(tmp_path):
    found, printed = finished("finance_sentiment.py", tmp_path / "run")
    assert set(found["rules"]) == {"held_out", "frames"}
    rules = found["rules"]["held_out"]
    assert set(rules) >= {"majority", "naive_bayes", "before", "after"}
    assert rules["majority"]["sentiment"]["accuracy"][0] < 0.5
    assert rules["naive_bayes"]["topic"]["accuracy"][0] > 0.6
    # What the policy writes has the form of labels.
    assert rules["after"]["sentiment"]["accuracy"][0] > 0.2
    assert rules["after"]["topic"]["accuracy"][0] > 0.15
    stages = json.loads((tmp_path / "run" / "stages.json").read_text())
    fine_tuned = stages["sft"]["result"]
    assert fine_tuned["loss_last"] < fine_tuned["loss_first"]
    assert set(rules["after"]["topic"]["f1"]) == {
        "earnings",
        "markets",
        "mergers",
        "rates",
    }
    true = found["alerts"]["truth"]
    assert true["detected"][0] > 0.7
    assert true["false_alarms"][0] < 0.15
    assert 10 < true["delay"] < 120
    assert "alert without one" in printed
    assert tags(tmp_path / "run" / "logs" / "stream") >= {
        "stream/negative_share",
        "stream/true_share",
        "stream/z",
    }


def test_sentences_without_topics(load, tmp_path):
    path = tmp_path / "reviews.csv"
    rows = [f"{i % 2},a film of number {i}" for i in range(20)]
    path.write_text("\n".join(["label,sentence", *rows]) + "\n")
    recipe = load("finance_sentiment")
    settings = recipe.Settings(
        data=path, text="sentence", sentiment="label", negative="0"
    )
    data = recipe.load_data(settings)
    assert [len(part) for part in data] == [10, 6, 4, 0]
    seen = {s["text"]: s for part in data for s in part}
    assert len(seen) == 20
    assert seen["a film of number 7"] == {
        "text": "a film of number 7",
        "prompt": "a film of number 7\nLabels:",
        "response": " sentiment: 1",
        "sentiment": "1",
    }
    found = recipe.rules(data, ["any"])
    assert set(found) == {"majority", "naive_bayes"}
    assert found["majority"][0]["sentiment"] in ("0", "1")
    with pytest.raises(cli.UserError, match="leaves none to show"):
        recipe.load_data(dataclasses.replace(settings, labelled=1.0))


def test_the_sentiment_must_have_a_column(tmp_path):
    path = tmp_path / "news.jsonl"
    path.write_text('{"text": "Profit rose.", "label": "1"}\n')
    answer = start(
        "finance_sentiment.py", "--data", path, "--output", tmp_path / "run"
    )
    assert answer.returncode == 2
    assert "news.jsonl:1 has no 'sentiment'" in answer.stdout
    assert not (tmp_path / "run").exists()


# Books by clicks.

SESSION = {
    "prompt": "Enjoys maps.",
    "responses": [" a", " b", " c", " d", " e"],
    "clicks": [0, 1, 0, 1, 0],
}


def test_lower_places_are_clicked_less_than_they_deserve(load):
    recipe = load("recommend")
    settings = recipe.Settings(sessions=2000)
    sessions, unseen = recipe.simulated(random.Random(0), settings)
    rates = [
        np.mean([s["clicks"][i] for s in sessions if s["grades"][i] == 3])
        for i in range(recipe.SHOWN)
    ]
    assert rates[0] > 0.8
    assert rates[7] < 0.4
    # Random order to learn from, the shop's order to be measured against.
    grades = [
        np.mean([s["grades"] for s in x], axis=0) for x in (sessions, unseen)
    ]
    assert np.ptp(grades[0]) < 0.2
    assert grades[1][0] > grades[1][7] + 0.5
    assert not {s["prompt"] for s in sessions} & {s["prompt"] for s in unseen}
    in_order, _ = recipe.simulated(
        random.Random(0), dataclasses.replace(settings, shuffled=0.0)
    )
    placed = np.mean([s["grades"] for s in in_order], axis=0)
    assert placed[0] > placed[7] + 0.5


def test_books_by_clicks(tmp_path):
    found, _ = finished("recommend.py", tmp_path / "run", "--loss", "pairwise")
    orders = found["orders"]
    assert orders["truth"]["ndcg"][0] == pytest.approx(1.0)
    assert orders["truth"]["mrr"][0] == pytest.approx(1.0)
    random_ndcg, error = orders["random"]["ndcg"]
    assert 0.3 < random_ndcg < 0.7
    assert orders["ranker"]["ndcg"][0] > random_ndcg + 2 * error
    assert found["lists"] > 200
    assert tags(tmp_path / "run" / "logs" / "ranking") >= {"loss", "accuracy"}


def test_ones_own_sessions(load, tmp_path):
    path = tmp_path / "sessions.jsonl"
    path.write_text((json.dumps(SESSION) + "\n") * 2)
    recipe = load("recommend")
    assert recipe.read_sessions(path)[1]["grades"] == SESSION["clicks"]
    path.write_text(json.dumps(SESSION | {"clicks": [1]}) + "\n")
    with pytest.raises(cli.UserError, match="sessions.jsonl:1: `clicks` must"):
        recipe.read_sessions(path)
    with pytest.raises(cli.UserError, match="--loss must be listwise"):
        recipe.main(recipe.Settings(loss="hinge"))
