"""couplets_zh.py, translation.py and arithmetic.py, as a user starts them."""

import dataclasses
import gzip
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


@pytest.fixture(scope="module")
def translation():
    return module("translation")


def test_translation_learns_and_is_measured(tmp_path):
    found, printed = tiny("translation.py", tmp_path / "run")
    assert found["prompts"] == 40
    assert found["steps"] == {"sft": 25, "longer": 8}
    for name in ("sft", "longer", "rloo"):
        for how in ("sampled", "greedy"):
            part = found["measured"][name][how]
            assert 0.0 <= part["bleu"] <= 100.0
            # Corpus chrF and the mean over sentences are of one size.
            assert part["chrf"] < 100.0
            assert 0.0 <= part["metric"][1] < 0.1
    assert found["measured"]["sft"]["sampled"]["gain"] == [0.0, 0.0]
    another = found["measured"]["another"]["greedy"]
    assert another["exact"][0] < 0.05
    assert 2.0 < another["bleu"] < 50.0
    assert "40 held-out sentences" in printed


def test_translation_of_ones_own_sentences(translation, tmp_path):
    records = [
        {
            "prompt": f"German: {count} Hunde\nEnglish: ",
            "reference": several,
        }
        for count in range(20)
        for several in (f"{count} dogs", [f"{count} hounds", "dogs"])
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "own.jsonl").write_text(lines, "utf-8")
    settings = translation.Settings(data=tmp_path / "own.jsonl")
    training, held_out = translation.load_data(settings)
    # A prompt is on one side, with all its records.
    assert (len(training), len(held_out)) == (32, 8)
    assert not {r["prompt"] for r in training} & {r["prompt"] for r in held_out}
    assert all(isinstance(r["reference"], list) for r in training + held_out)
    other, _ = translation.load_data(dataclasses.replace(settings, seed=1))
    assert other != training


def test_translations_are_grammatical(translation):
    grammar = translation.Grammar(0)
    pairs = dict(grammar.sentence() for _ in range(2000))
    assert len(pairs) > 1500
    for english, chinese in pairs.items():
        assert re.fullmatch(r"[A-Z][A-Za-z ]+\.", english)
        assert re.fullmatch("[一-龥]+。", chinese)
        assert "在在" not in chinese
        # 了 is for what happened, and not after 没有.
        happened = "did not" not in english and re.search(
            "yesterday|last|this morning", english
        )
        assert ("了" in chinese) == bool(happened)
        assert ("没有" in chinese) == ("did not" in english)
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", english)


def test_translation_measures(translation):
    records = [
        {"prompt": "a", "reference": ["我今天喝了一杯热茶。"]},
        {"prompt": "b", "reference": ["他明天要读一本书。", "他要读书。"]},
    ]
    right = ["我今天喝了一杯热茶。", "他要读书。"]
    found = translation.measure(records, [right])
    assert found["bleu"] == pytest.approx(100.0)
    assert found["chrf"] == pytest.approx(100.0)
    assert found["metric"] == [1.0, 0.0]
    assert found["exact"] == [1.0, 0.0]
    half = translation.measure(records, [right, [right[0], "我"]])
    assert half["exact"][0] == 0.75
    assert half["chrf"] < 95.0
    assert half["each"][0] == 1.0 > half["each"][1]
    # Sentence means are those of the two metrics.
    reward = translation.make_reward()
    scores = reward([], ["我"], reference=["我们"])
    parts = reward.parts
    assert scores == [0.5 * parts["chrf"][0] + 0.5 * parts["bleu"][0]]


@pytest.fixture(scope="module")
def arithmetic():
    return module("arithmetic")


def test_arithmetic_learns_and_is_measured(tmp_path):
    found, printed = tiny("arithmetic.py", tmp_path / "run")
    losses = found["sft_losses"]
    assert losses[-1] < losses[0] - 0.5
    assert found["prompts"] == 40
    assert found["measured"]["guess"]["greedy"][0] < 0.2
    for name in ("sft", "grpo"):
        part = found["measured"][name]
        assert part["pass"][0] >= part["sampled"][0]
    before, after = (
        found["measured"][x]["sampled"][0] for x in ("sft", "grpo")
    )
    gain = found["measured"]["gain"]["sampled"][0]
    assert gain == pytest.approx(after - before, abs=1e-6)
    assert "40 held-out problems" in printed


def test_arithmetic_on_records(tmp_path):
    path = tmp_path / "problems.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for n in range(20):
            record = {"q": f"How many are {n} and 2?", "a": f"#### {n + 2}"}
            file.write(json.dumps(record) + "\n")
        # Too long for the model: left out, not an error.
        file.write(json.dumps({"q": "Why " * 99, "a": "#### 1"}))
    answer = (path, "--question", "q", "--answer", "a")
    found, printed = tiny("arithmetic.py", tmp_path / "run", "--data", *answer)
    assert found["training_problems"] + found["prompts"] in (20, 21)
    assert found["prompts"] in (3, 4)
    assert "How many are" in printed


def test_arithmetic_problems(arithmetic):
    from tfrlhf.rewards import NumericAnswer

    training, held_out = arithmetic.load_data(arithmetic.Settings())
    asked, right = [], []
    for record in training + held_out:
        prompt = record["prompt"]
        found = re.findall(r"(\w+|[+-]) (\d)", prompt)
        if "seats" in prompt:
            found = [x[::-1] for x in re.findall(r"(\d) (\w+)", prompt)]
        minus = ("-", "eats", "go")
        terms = [int(f"{'-' * (word in minus)}{n}") for word, n in found]
        asked.append(tuple(terms))
        verify = NumericAnswer()
        answers = [record["answer"], record["response"]]
        found = verify(["", ""], answers, answer=[sum(terms)] * 2)
        right.append(found[1])
        assert found[0] == 1.0
        for left, value in re.findall(r"([\d+-]+)=(\d+)", answers[1]):
            x, sign, y = re.split(r"([+-])", left)
            assert int(value) == int(x) + int(sign + y)
        # The working ends in the answer, whatever it leaves out.
        assert answers[1].endswith(f"={value}\n#### {value}")
        assert answers[1].count("=") == 1 + found[1]
    count = len(training)
    assert not set(asked[:count]) & set(asked[count:])
    assert set(right[count:]) == {1.0}
    assert sum(right[:count]) / count == pytest.approx(0.6, abs=0.03)


def test_arithmetic_does_not_shadow_the_standard_library():
    assert not (ROOT / "recipes" / "math.py").exists()


@pytest.mark.parametrize(
    ("recipe", "record", "message"),
    [
        (
            "translation",
            {"prompt": "a", "reference": "b"},
            "has 1 different prompts: at least 4 are needed",
        ),
        ("translation", {"prompt": "a"}, "the field .reference. is missing"),
        (
            "arithmetic",
            {"question": "a", "answer": "1"},
            "has 1 problems: at least 4 are needed",
        ),
        (
            "arithmetic",
            {"prompt": "a", "answer": "1"},
            "the field .question. is missing",
        ),
    ],
)
def test_data_that_cannot_be(recipe, record, message, tmp_path):
    path = tmp_path / "own.jsonl"
    path.write_text(json.dumps(record), "utf-8")
    loaded = module(recipe)
    with pytest.raises(ValueError, match=message):
        loaded.load_data(loaded.Settings(data=path))
