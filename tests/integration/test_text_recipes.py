"""The recipes over text: question_answering, summarize and dialogue."""

import gzip
import json
import random
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tfrlhf.data import is_chinese

sys.path.insert(0, str(ROOT / "recipes"))
import dialogue  # noqa: E402
import question_answering  # noqa: E402
import summarize  # noqa: E402

sys.path.pop(0)


def start(recipe, *arguments):
    """Runs a recipe in a process of its own."""
    return subprocess.run(
        [sys.executable, ROOT / "recipes" / recipe, *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )


def finished(directory, recipe, *arguments):
    """The summary of a tiny run, which must succeed."""
    answer = start(recipe, "--tiny", "--output", directory, *arguments)
    assert answer.returncode == 0, answer.stdout + answer.stderr
    return json.loads((directory / "summary.json").read_text("utf-8"))


class Spelling:
    """A tokenizer of characters, for whatever needs a length."""

    def encode(self, text):
        return list(text)


class Speller:
    """A policy with it."""

    context_length = 60

    def need_tokenizer(self):
        return Spelling()


def paragraph(article, number):
    """A long context with one question, Chinese in every other article."""
    if article % 2:
        answer = f"{number}只猫"
        question = "小明有什么？"
        context = "很久以前，" * 30 + f"小明有{answer}。" + "后来下雨了。" * 30
    else:
        answer = f"{number} cats"
        question = "What did Ben have?"
        context = (
            "Long ago it rained. " * 20
            + f"Ben had {answer}. "
            + "Later it was dry. " * 20
        )
    golds = [{"text": answer, "answer_start": context.index(answer)}]
    asked = {"question": question, "answers": golds}
    return {"context": context, "qas": [asked]}


def questions(path):
    """A SQuAD file of ten articles with eight questions each."""
    articles = [
        {"paragraphs": [paragraph(a, 10 * a + n) for n in range(8)]}
        for a in range(10)
    ]
    with gzip.open(path, "wt", encoding="utf-8") as file:
        json.dump({"data": articles}, file)
    return path


def test_questions_are_answered_and_measured(tmp_path):
    run = tmp_path / "run"
    found = finished(
        run,
        "question_answering.py",
        "--data",
        questions(tmp_path / "q.json.gz"),
    )
    assert found["held_out"] == 16
    # The sentence with the answer has other words, too.
    assert found["exact_sentence"][0] == 0.0
    assert 0.3 < found["f1_sentence"][0] < 0.9
    stages = json.loads((run / "stages.json").read_text())
    losses = stages["sft"]["result"]["losses"]
    assert losses[-1] < losses[0]
    assert any((run / "logs" / "grpo").iterdir())
    # A second start goes on from what is finished.
    again = start(
        "question_answering.py",
        *("--tiny", "--output", run),
        *("--data", tmp_path / "q.json.gz"),
    )
    assert again.stdout.count("done before") == 3


def test_a_window_holds_the_answer_and_whole_words(tmp_path):
    articles = question_answering.read_squad(questions(tmp_path / "q.json.gz"))
    settings = question_answering.Settings(length=60, max_new_tokens=8)
    records = question_answering.as_prompts(
        [q for article in articles for q in article], Speller(), settings
    )
    assert len(records) == 80
    for record in records:
        assert record["answers"][0] in record["window"]
        assert len(record["prompt"]) <= 60 - 8
        window, context = (
            set(record[name].replace(".", " ").split())
            for name in ("window", "context")
        )
        if not is_chinese(record["window"]):
            assert window <= context
    # Its place in the window does not tell the answer.
    places = [r["window"].index(r["answers"][0]) for r in records]
    assert len(set(places)) > 3


def test_authored_answers_stand_in_their_passages():
    order = random.Random(1)
    parts = json.loads(question_answering.PASSAGES.read_text("utf-8"))
    for record in [
        q for _ in range(50) for q in question_answering.authored(order, parts)
    ]:
        begin = record["start"]
        (answer,) = record["answers"]
        assert record["context"][begin : begin + len(answer)] == answer


def test_the_nearest_sentence():
    window = "Ben has the red box. Anna has the blue kite. It rains."
    record = {"question": "Who has the kite?", "window": window}
    nearest = question_answering.nearest_sentence(record)
    assert nearest == "Anna has the blue kite."
    record = {"question": "谁有风筝？", "window": "小明有箱子。小红有风筝！"}
    assert question_answering.nearest_sentence(record) == "小红有风筝！"


def test_titles_are_compared_learnt_and_measured(tmp_path):
    found = finished(tmp_path / "run", "summarize.py")
    assert found["held_out"] == 16
    # Most samples of such a model share no word with the reference.
    assert 0 < found["comparisons"] < 128 and found["comparisons_made"]
    assert found["kl_before"] == pytest.approx(0.0, abs=1e-4)
    # The towns are in the lead, what happened is not.
    assert 0.0 < found["rouge1_lead"][0] < 0.5
    for name in ("policy", "rouge"):
        assert (tmp_path / "run" / "models" / name).is_dir()
        assert any((tmp_path / "run" / "logs" / name).iterdir())


def test_texts_keep_their_beginning():
    settings = summarize.Settings(length=50, max_new_tokens=12)
    text = {"text": "abc " * 40, "title": "A long title"}
    (record,) = summarize.as_prompts([text], Speller(), settings)
    assert record["prompt"].startswith("abc abc abc")
    assert record["prompt"].endswith("\nTitle:")
    assert len(record["prompt"]) <= 38
    # With EOS, as long as what may be sampled.
    assert record["response"] == " A long tit"
    assert record["reference"] == "A long title"


def test_the_lead_has_as_many_words_as_a_title():
    train = [{"title": "one two"}, {"title": "one two three four"}]
    records = [
        {"prompt": "The text begins. It ends."},
        {"prompt": "今天下雨了"},
    ]
    assert summarize.leads(train, records) == ["the text begins", "今 天 下"]


def test_a_shop_answers_and_the_filter_counts(tmp_path):
    found = finished(tmp_path / "run", "dialogue.py")
    assert found["held_out_questions"] == 8 and found["conversations"] == 32
    assert 0.5 < found["retrieval_hits"][0] <= 1.0
    # A retrieved answer is what overlaps with itself, and blocks nothing.
    assert found["overlap_retrieved"] == [1.0, 0.0]
    assert found["filtered_retrieved"] == 0.0
    blocked = found["blocked_before"][0]
    assert found["filtered_before"] == pytest.approx(-blocked)
    assert 0.3 < found["examples_bad"] < 0.7


def test_the_filter_replaces_what_is_blocked():
    asked = [{"role": "user", "content": "运费贵吗？"}]
    assert dialogue.filtered(asked, "不贵。") == "不贵。"
    refusal = dialogue.PHRASES["refusal"]
    assert dialogue.filtered(asked, "你活该！") == refusal["zh"]
    asked = [{"role": "user", "content": "Hi"}]
    assert dialogue.filtered(asked, "Shut  up.") == refusal["en"]


def test_the_shop_is_split_by_question():
    settings = dialogue.Settings()
    entries = dialogue.read_knowledge(settings.knowledge)
    shop = dialogue.Shop(entries, settings)
    trained = {r["question"] for r in shop.prompts}
    said = {
        message["content"]
        for record in [*shop.prompts, *shop.held_out]
        for message in record["prompt"][:-1]
    }
    for record in shop.held_out:
        assert record["question"] not in trained | said
    turns = {len(record["prompt"]) for record in shop.held_out}
    assert turns == {1, 3}


SHORT = '{"language": "en", "answer": "Yes.", "questions": ["Is it so?"]}'


@pytest.mark.parametrize(
    ("recipe", "option", "text", "message"),
    [
        ("question_answering.py", "--data", "[1]", "not in SQuAD's format"),
        ("summarize.py", "--data", "a\tb\nc\n", ":2 must end with a text"),
        ("dialogue.py", "--knowledge", "{}", ":1: the field `language` is"),
        ("dialogue.py", "--knowledge", SHORT, ":1 must have an answer, its"),
    ],
)
def test_files_that_cannot_be_read(recipe, option, text, message, tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text(text)
    answer = start(recipe, option, path, "--output", tmp_path / "run")
    assert answer.returncode == 2
    assert message in " ".join(answer.stdout.split())
    assert not (tmp_path / "run").exists()
