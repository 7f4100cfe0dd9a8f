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
import operator
import pathlib
import random
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
class Settings(cli.SamplingSettings):
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


def main(settings: Settings) -> None:
    """Trains a shop's assistant to give known answers, courteously."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, dialogues=1, sft_epochs=2, iterations=2, batch_size=16
        )
    run = cli.Run("dialogue", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    shop = Shop(read_knowledge(settings.knowledge), settings)
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

    summary = run.write_summary(measured | talk)
    print_result(summary)
    cli.print_samples(summary["samples"])
    cli.print_where(run, summary)


def fine_tune(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Teaches the replies of the staff, good and bad ones."""
    import tfrlhf
    from tfrlhf import data

    if settings.model:
        policy = tfrlhf.Policy.from_preset(settings.model)
    else:
        texts = (
            f"{transcript(e['prompt'])}\nassistant: {e['response']}"
            for e in shop.examples
        )
        policy = tfrlhf.small_policy(
            map(data.characters_apart, texts),
            layers=2,
            width=64 if settings.tiny else 128,
            context_length=256,
        )
        policy.need_tokenizer().chat_template = TEMPLATE
        policy.need_tokenizer().chat_variables["eos_token"] = END
    if policy.need_tokenizer().chat_template is None:
        raise cli.UserError(f"--model {settings.model} has no chat template.")
    losses = cli.fine_tune(
        run,
        policy,
        shop.examples,
        rate=settings.sft_learning_rate,
        epochs=settings.sft_epochs,
        weight_decay=0.01,
        # A model from nothing has to learn the language of the prompts, too.
        learn_prompts=settings.model is None,
    )
    run.save(policy, "sft")
    return {
        "parameters": policy.count_params(),
        "examples": len(shop.examples),
        "losses": losses,
    }


def optimise(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Optimises the reward by RLOO."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    rloo = tfrlhf.RLOO(policy, make_reward(settings))
    rloo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=settings.sampler(),
        advantage=tfrlhf.LeaveOneOut(settings.group_size),
        kl=tfrlhf.FixedKL(settings.kl_weight),
    )
    wanted = settings.iterations * settings.batch_size // settings.group_size
    shown = {"rewards/overlap": "F1", "rewards/blocked": "blocked"}
    history = run.fit(
        rloo,
        cli.repeated(shop.prompts, wanted),
        "rloo",
        shown | {"objective/kl": "KL"},
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"scores": history["objective/scores"]}


def evaluate(run: cli.Run, settings: Settings, shop: "Shop") -> dict[str, Any]:
    """Measures reward, its parts and the filter on held-out questions."""
    import tfrlhf
    from tfrlhf import evaluation

    records = shop.held_out
    columns = {n: [r[n] for r in records] for n in ("reference", "known")}
    columns["messages"] = [record["prompt"] for record in records]
    # Conversations that end with the same question are averaged first.
    questions = [record["question"] for record in records]
    hits = [float(r["reference"] == r["known"]) for r in records]
    result: dict[str, Any] = {
        "held_out_questions": len(set(questions)),
        "conversations": len(records),
        "examples_bad": shop.bad / len(shop.examples),
        "retrieval_hits": list(evaluation.mean(hits, questions)),
    }
    before = tfrlhf.Policy.from_preset(run.models / "sft")
    after = tfrlhf.Policy.from_preset(run.models / "policy")
    draw = settings.sampler()
    replies: dict[str, list[str]] = {"retrieved": columns["reference"]}
    for name, policy in (("before", before), ("after", after)):
        replies[name], drawn = evaluation.draw_responses(
            policy, columns["messages"], draw, settings.seed
        )
    kl = evaluation.sequence_kl(after, before, drawn, settings.temperature)
    result["kl"] = float(kl.mean())
    reward, known = make_reward(settings), tfrlhf.rewards.F1("known")
    for name, texts in replies.items():
        scores = {
            "reward": reward(questions, texts, **columns),
            "known": known(questions, texts, **columns),
            **reward.parts,
        }
        for key, values in scores.items():
            found = evaluation.mean(values, questions)
            result[f"{key}_{name}"] = list(found)
        replies[name] = list(map(filtered, columns["messages"], texts))
        replaced = sum(map(operator.ne, replies[name], texts))
        result[f"filtered_{name}"] = replaced / len(texts)
    third = len(records) // 3
    result["samples"] = [
        [transcript(records[i]["prompt"])]
        + [replies[name][i] for name in ("before", "after")]
        for i in (0, third, 2 * third)
    ]
    return result


def converse(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Answers one question after the other, through the filter."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "policy")
    messages: Messages = []
    replaced = 0
    for turn, question in enumerate(PHRASES["conversation"]):
        # The context is short: what was said two questions ago is forgotten.
        messages = [*messages[-2:], {"role": "user", "content": question}]
        drawn: Any = policy.generate(
            messages, sampler=settings.sampler(), seed=settings.seed + turn
        )
        reply = filtered(messages, drawn)
        replaced += reply != drawn
        reply = reply.strip() or "..."
        messages.append({"role": "assistant", "content": reply})
        console.print(f"   user: {question}", markup=False)
        console.print(f"   assistant: {reply}", markup=False)
    return {"conversation_filtered": replaced}


def make_reward(settings: Settings) -> Any:
    """F1 against the retrieved answer, courtesy, and no blocked words."""
    from tfrlhf import rewards

    def courtesy(prompts: Any, responses: Any, messages: Any, **_: Any) -> Any:
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


def filtered(messages: Messages, reply: str) -> str:
    """Returns the reply, or a refusal in the user's language."""
    from tfrlhf import data
    from tfrlhf import rewards

    if not rewards.BlockedWords(PHRASES["blocked"])([""], [reply])[0]:
        return reply
    chinese = data.is_chinese(messages[-1]["content"])
    return PHRASES["refusal"]["zh" if chinese else "en"]


class Shop:
    """The conversations of a run, made of what is known.

    Attributes:
        examples: {"prompt", "response"} of the staff.
        bad: how many of them have a bad reply.
        prompts: {"prompt", "reference", ...} to train on.
        held_out: the same for held-out questions.
    """

    def __init__(self, entries: list[Record], settings: Settings) -> None:
        from tfrlhf import rewards

        self.entries = entries
        self.order = random.Random(settings.seed)
        pairs = [(e, q) for e in entries for q in e["questions"][:-2]]
        unseen = [(e, q) for e in entries for q in e["questions"][-2:]]
        if settings.tiny:
            unseen = unseen[::5]
        self.answers = [entry["answer"] for entry, _ in pairs]
        self.retrieve = rewards.Retriever([question for _, question in pairs])
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


def read_knowledge(path: pathlib.Path) -> list[Record]:
    """Reads the known answers with their questions."""
    from tfrlhf import data

    entries = data.read_jsonl(path, ("language", "answer", "questions"))
    for entry in entries:
        known = entry["language"] in PHRASES["greeting"] and entry["answer"]
        if not known or len(entry["questions"]) < 3:
            raise cli.UserError(
                f"{entry['_where']} must have an answer, its language (en or "
                "zh) and at least three questions."
            )
    return entries


def print_result(summary: dict[str, Any]) -> None:
    """Prints the table."""
    names = ("retrieved", "before", "after")
    hits, error = summary["retrieval_hits"]
    cli.print_table(
        f"{summary['held_out_questions']} held-out questions, "
        f"{summary['conversations']} conversations",
        ("", "retrieved answer", "before", "after"),
        [
            (title, *(summary[f"{key}_{name}"] for name in names))
            for title, key in (
                ("reward", "reward"),
                ("F1 against the retrieved answer", "overlap"),
                ("F1 against the right answer", "known"),
                ("courtesy", "courtesy"),
                ("blocked words", "blocked"),
                ("replies replaced by the filter", "filtered"),
            )
        ],
    )
    console.print(
        f"Retrieval finds the right answer to {hits:.3f} ± {error:.3f} of the "
        f"questions. KL of after to before: {summary['kl']:.2f} nats. Of the "
        f"replies to learn from, {summary['examples_bad']:.2f} were bad.",
        soft_wrap=True,
    )


if __name__ == "__main__":
    cli.main(main, Settings)
