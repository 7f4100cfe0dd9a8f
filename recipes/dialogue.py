"""A shop's assistant: known answers as reference, courteous, nothing rude.

    python recipes/dialogue.py                  the authored shop
    python recipes/dialogue.py --model DIR --knowledge known.jsonl

Stages: supervised fine-tuning on replies of which half are bad, RLOO, then
evaluation and a conversation. For each question the best known answer is
retrieved (cosine of TF-IDF vectors); a reply's reward is its F1 against that
answer, courtesy, and a penalty for blocked words. When the model answers in
the end, a reply with a blocked word is replaced by a refusal, and counted.
Prompts are conversations of one to three turns, written by the tokenizer's
chat template.

The shop (recipes/data/shop.jsonl) and the replies are authored, in English and
Chinese. A line of --knowledge is {"language", "answer", "questions"}; the last
two questions of each line are held out.
"""

import dataclasses
import json
import pathlib
import random
import re
from typing import Any

from tfrlhf import cli
from tfrlhf.cli import console

Record = dict[str, Any]
Messages = list[dict[str, str]]
DATA = pathlib.Path(__file__).parent / "data"
# Greetings, refusals, blocked words and bad replies, by language.
PHRASES = json.loads((DATA / "shop_phrases.json").read_text("utf-8"))
# Of the small model, whose tokenizer is trained here.
END = "<|endoftext|>"
TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """Who answers, what is known, and how long to learn."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    knowledge: pathlib.Path = DATA / "shop.jsonl"
    """Known answers, each with the questions that it answers."""
    dialogues: int = 10
    """Conversations to make of each training question."""
    sft_epochs: int = 8
    sft_learning_rate: float = 3e-3
    iterations: int = 30
    """Rollouts of batch_size replies."""
    batch_size: int = 64
    group_size: int = 4
    """Replies to a conversation."""
    learning_rate: float = 2e-4
    """Of the policy in RLOO."""
    kl_weight: float = 0.02
    courtesy_weight: float = 0.1
    blocked_weight: float = 1.0
    """Of a reply with a blocked word; that of F1 is 1."""
    max_new_tokens: int = 40
    temperature: float = 0.7
    """Of every sample."""


def main(settings: Settings) -> None:
    """Trains a shop's assistant to give known answers, courteously."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, dialogues=1, sft_epochs=2, iterations=2, batch_size=16
        )
    shop = Shop(read_knowledge(settings.knowledge), settings)
    run = cli.Run("dialogue", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    task = (run, settings, shop)
    strategy = cli.make_strategy(settings.strategy)

    # 1. How the staff has answered so far, well or badly.
    with strategy.scope():
        run.stage("sft", "Supervised fine-tuning", lambda: fine_tune(*task))

    # 2. Towards the retrieved answers, courtesy and no blocked words.
    with strategy.scope():
        run.stage("rloo", "RLOO", lambda: optimise(*task))

    # 3. Questions that neither policy has seen, with the filter in place.
    measured = run.stage("evaluation", "Evaluation", lambda: evaluate(*task))

    # 4. A conversation in which the model reads its own replies.
    talk = run.stage(
        "conversation", "A conversation", lambda: converse(run, settings)
    )

    summary = {
        **measured,
        **talk,
        "seconds": run.seconds,
        "peak_memory_mb": cli.peak_memory_mb(),
    }
    run.write_summary(summary)
    show(summary, run)


def fine_tune(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Teaches the replies of the staff, good and bad ones."""
    import keras

    import tfrlhf

    policy = (
        tfrlhf.Policy.from_preset(settings.model)
        if settings.model
        else tfrlhf.small_policy(
            [
                apart(transcript(e["prompt"]) + "\nassistant: " + e["response"])
                for e in shop.examples
            ],
            layers=2,
            width=64 if settings.tiny else 128,
            context_length=256,
        )
    )
    tokenizer = policy.need_tokenizer()
    if settings.model is None:
        tokenizer.chat_template = TEMPLATE
        tokenizer.chat_variables["eos_token"] = END
    if tokenizer.chat_template is None:
        raise cli.UserError(f"--model {settings.model} has no chat template.")
    # A model from nothing has to learn the language of the prompts, too.
    sft = tfrlhf.SFT(policy, learn_prompts=settings.model is None)
    steps = settings.sft_epochs * -(-len(shop.examples) // 32)
    sft.compile(
        keras.optimizers.AdamW(
            cli.cosine(settings.sft_learning_rate, steps), weight_decay=0.01
        )
    )
    history = sft.fit(
        shop.examples,
        batch_size=32,
        epochs=settings.sft_epochs,
        seed=settings.seed,
        callbacks=run.watchers("sft", {"loss": "nats/token"}),
        verbose=0,
    )
    with cli.writing(run.models / "sft") as directory:
        policy.save_to_preset(directory)
    return {
        "parameters": policy.count_params(),
        "examples": len(shop.examples),
        "losses": history.history["loss"],
    }


def optimise(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Optimises the reward by RLOO."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    rloo = tfrlhf.RLOO(policy, make_reward(settings))
    rloo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=sampler(settings),
        advantage=tfrlhf.LeaveOneOut(settings.group_size),
        kl=tfrlhf.FixedKL(settings.kl_weight),
    )
    wanted = settings.iterations * settings.batch_size // settings.group_size
    rounds = -(-wanted // len(shop.prompts))
    history = rloo.fit(
        (shop.prompts * rounds)[:wanted],
        batch_size=settings.batch_size,
        seed=settings.seed,
        callbacks=run.watchers(
            "rloo",
            {
                "rewards/overlap": "F1",
                "rewards/blocked": "blocked",
                "objective/kl": "KL",
            },
        ),
        verbose=0,
    )
    with cli.writing(run.models / "policy") as directory:
        policy.save_to_preset(directory)
    return {"scores": history.history["objective/scores"]}


def evaluate(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Measures reward, its parts and the filter on held-out questions."""
    import tfrlhf

    records = shop.held_out
    messages = [record["prompt"] for record in records]
    columns: Record = {
        name: [record[name] for record in records]
        for name in ("reference", "known")
    } | {"messages": messages}
    questions = [record["question"] for record in records]
    result: dict[str, Any] = {
        "held_out_questions": len(set(questions)),
        "conversations": len(records),
        "examples_bad": shop.bad / len(shop.examples),
    }

    hits = [float(r["reference"] == r["known"]) for r in records]
    result["retrieval_hits"] = question_mean(questions, hits)
    reward = make_reward(settings)
    known = tfrlhf.rewards.F1("known")
    policies = {
        name: tfrlhf.Policy.from_preset(run.models / directory)
        for name, directory in (("before", "sft"), ("after", "policy"))
    }
    replies: dict[str, list[str]] = {"retrieved": columns["reference"]}
    for name, policy in policies.items():
        ids = policy.encode_prompts(messages, settings.max_new_tokens)
        drawn: Any = policy.generate(
            ids, sampler=sampler(settings), seed=settings.seed
        )
        replies[name] = policy.decode_responses(drawn)
    kl = tfrlhf.evaluation.sequence_kl(
        policies["after"], policies["before"], drawn, settings.temperature
    )
    result["kl"] = float(kl.mean())
    safe = Filter()
    for name, texts in replies.items():
        scores = {
            "reward": reward(questions, texts, **columns),
            "known": known(questions, texts, **columns),
            **reward.parts,
        }
        for key, values in scores.items():
            result[f"{key}_{name}"] = question_mean(questions, values)
        safe.count = 0
        shown = [safe(m, t) for m, t in zip(messages, texts, strict=True)]
        result[f"filtered_{name}"] = safe.count / len(shown)
        replies[name] = shown
    third = len(records) // 3
    result["samples"] = [
        [transcript(messages[i]), replies["before"][i], replies["after"][i]]
        for i in (0, third, 2 * third)
    ]
    return result


def question_mean(questions: list[str], values: list[float]) -> list[float]:
    """Mean and standard error over questions.

    Conversations that end with the same question are averaged first.
    """
    from tfrlhf import evaluation

    found: dict[str, list[float]] = {}
    for question, value in zip(questions, values, strict=True):
        found.setdefault(question, []).append(value)
    return list(evaluation.mean([sum(v) / len(v) for v in found.values()]))


def converse(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Answers one question after the other, through the filter."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "policy")
    safe = Filter()
    messages: Messages = []
    for turn, question in enumerate(PHRASES["conversation"]):
        # The context is short: what was said two questions ago is forgotten.
        messages = [*messages[-2:], {"role": "user", "content": question}]
        reply = policy.generate(
            messages, sampler=sampler(settings), seed=settings.seed + turn
        )
        reply = safe(messages, str(reply)).strip() or "..."
        messages.append({"role": "assistant", "content": reply})
        console.print(f"   user: {question}", markup=False)
        console.print(f"   assistant: {reply}", markup=False)
    return {"conversation_filtered": safe.count}


def make_reward(settings: Settings) -> Any:
    """F1 against the retrieved answer, courtesy, and no blocked words."""
    from tfrlhf import rewards

    def courtesy(
        prompts: list[str],
        responses: list[str],
        messages: list[Messages],
        **columns: Any,
    ) -> list[float]:
        # Without the words of the template.
        asked = [m[-1]["content"] for m in messages]
        return rewards.courtesy(asked, responses)

    return rewards.combine(
        {
            "overlap": (rewards.F1("reference"), 1.0),
            "courtesy": (courtesy, settings.courtesy_weight),
            "blocked": (
                rewards.BlockedWords(PHRASES["blocked"]),
                settings.blocked_weight,
            ),
        }
    )


class Filter:
    """Replaces replies with blocked words; `count` says how many."""

    def __init__(self) -> None:
        from tfrlhf import rewards

        self.blocked = rewards.BlockedWords(PHRASES["blocked"])
        self.count = 0

    def __call__(self, messages: Messages, reply: str) -> str:
        """Returns the reply, or a refusal in the user's language."""
        if not self.blocked([""], [reply])[0]:
            return reply
        self.count += 1
        return PHRASES["refusal"][
            "zh" if is_chinese(messages[-1]["content"]) else "en"
        ]


class Retriever:
    """Finds the known question that is most like a question.

    By the cosine of TF-IDF vectors of words and of pairs of neighbours, with
    log((1 + N) / (1 + df)) + 1 as weight of a term.
    """

    def __init__(self, questions: list[str]) -> None:
        import numpy as np

        found = [terms(question) for question in questions]
        names = sorted({term for each in found for term in each})
        self.index = {term: i for i, term in enumerate(names)}
        counts = np.zeros((len(found), len(names)))
        for row, each in zip(counts, found, strict=True):
            for term in each:
                row[self.index[term]] += 1
        seen = (counts > 0).sum(axis=0)
        self.weight = np.log((1 + len(found)) / (1 + seen)) + 1
        self.rows = counts * self.weight
        self.rows /= np.linalg.norm(self.rows, axis=1, keepdims=True)

    def __call__(self, question: str) -> int:
        """Returns the index of the nearest known question."""
        import numpy as np

        query = np.zeros(len(self.index))
        for term in terms(question):
            if term in self.index:
                query[self.index[term]] += self.weight[self.index[term]]
        return int((self.rows @ query).argmax())


def terms(text: str) -> list[str]:
    """Words and pairs of neighbours of a text."""
    from itertools import pairwise

    from tfrlhf.rewards import words

    found = words(text)
    return found + [f"{a} {b}" for a, b in pairwise(found)]


class Shop:
    """The conversations of a run, made of what is known.

    Attributes:
        examples: {"prompt", "response"} of the staff.
        bad: how many of them have a bad reply.
        prompts: {"prompt", "reference", ...} to train on.
        held_out: the same for held-out questions.
    """

    def __init__(self, entries: list[Record], settings: Settings) -> None:
        self.entries = entries
        self.order = random.Random(settings.seed)
        pairs = [(e, q) for e in entries for q in e["questions"][:-2]]
        unseen = [(e, q) for e in entries for q in e["questions"][-2:]]
        if settings.tiny:
            unseen = unseen[::5]
        self.answers = [entry["answer"] for entry, _ in pairs]
        self.retrieve = Retriever([question for _, question in pairs])
        self.prompts = [
            self.record(*pair) for pair in pairs * settings.dialogues
        ]
        self.held_out = [
            self.record(*pair) for pair in unseen for _ in range(4)
        ]
        self.bad = 0
        self.examples = [
            {"prompt": r["prompt"], "response": self.reply(r)}
            for r in self.prompts
        ]

    def record(self, entry: Record, question: str) -> Record:
        """A conversation that ends with the question, and its reference."""
        language = entry["language"]
        messages: Messages = []
        opening = self.order.randrange(3)
        if opening == 1:
            messages = exchange(*PHRASES["greeting"][language])
        elif opening == 2:
            other = self.order.choice(
                [e for e in self.entries if e["language"] == language]
            )
            earlier = self.order.choice(other["questions"][:-2])
            messages = exchange(earlier, other["answer"])
        return {
            "prompt": [*messages, {"role": "user", "content": question}],
            "question": question,
            "reference": self.answers[self.retrieve(question)],
            "known": entry["answer"],
            "language": language,
        }

    def reply(self, record: Record) -> str:
        """What the staff answered: the known answer, or something bad."""
        if self.order.random() < 0.5:
            return record["known"]
        self.bad += 1
        return self.order.choice(PHRASES["bad"][record["language"]])


def exchange(question: str, answer: str) -> Messages:
    """A question and its answer as messages."""
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": answer},
    ]


def transcript(messages: Messages) -> str:
    """A conversation as lines."""
    return "\n".join(f"{m['role']}: {m['content']}" for m in messages)


def sampler(settings: Settings) -> Any:
    """How replies are drawn."""
    import tfrlhf

    return tfrlhf.Sampler(
        settings.temperature, max_new_tokens=settings.max_new_tokens
    )


def read_knowledge(path: pathlib.Path) -> list[Record]:
    """Reads the known answers with their questions."""
    entries = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            entry = json.loads(line)
            enough = len(entry["questions"]) > 2 and bool(entry["answer"])
        except (json.JSONDecodeError, KeyError, TypeError):
            enough = False
        if not enough or entry.get("language") not in PHRASES["greeting"]:
            raise cli.UserError(
                f"--knowledge {path}:{number} must be an object with language "
                "(en or zh), answer and at least three questions."
            )
        entries.append(entry)
    if not entries:
        raise cli.UserError(f"--knowledge {path} is empty.")
    return entries


def is_chinese(text: str) -> bool:
    """Tells whether a text has Chinese characters."""
    return re.search("[㐀-鿿]", text) is not None


def apart(text: str) -> str:
    """Puts each Chinese character on a line, so that it becomes a token."""
    return re.sub("([㐀-鿿])", r"\n\1\n", text)


def show(summary: dict[str, Any], run: cli.Run) -> None:
    """Prints the table and three samples."""
    names = ("retrieved", "before", "after")
    hits, error = summary["retrieval_hits"]

    def row(title: str, key: str) -> list[Any]:
        return [title, *(summary[f"{key}_{name}"] for name in names)]

    cli.print_table(
        f"{summary['held_out_questions']} held-out questions, "
        f"{summary['conversations']} conversations",
        ("", "retrieved answer", "before", "after"),
        [
            row("reward", "reward"),
            row("F1 against the retrieved answer", "overlap"),
            row("F1 against the right answer", "known"),
            row("courtesy", "courtesy"),
            row("blocked words", "blocked"),
            row("replies replaced by the filter", "filtered"),
        ],
    )
    console.print(
        f"Retrieval finds the right answer to {hits:.3f} ± {error:.3f} of the "
        "questions. KL of "
        f"after to before: {summary['kl']:.2f} nats. Of the replies to learn "
        f"from, {summary['examples_bad']:.2f} were bad.",
        soft_wrap=True,
    )
    cli.print_samples(summary["samples"])
    cli.print_where(run, summary)


if __name__ == "__main__":
    cli.main(main, Settings)
