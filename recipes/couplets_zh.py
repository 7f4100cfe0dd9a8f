"""Chinese season couplets: 春天，阳光明媚 is answered by 春天，万物复苏.

    python recipes/couplets_zh.py
    python recipes/couplets_zh.py --model DIR       a base model of your own

Fine-tunes on couplets, whose second lines are any fitting ones, then lets PPO
raise a reward of five parts: form, season, a phrase of that season, no
character of the first line again, and a level tone at the end, as the second
line of a couplet has it. Whole phrases are held out: no prompt with them is
trained on. Prints both policies beside two rules that need no model.

The 288 phrases in data/couplet_phrases.tsv were written for this recipe, each
with the tone of its last character (1 and 2 are level). The small model knows
nothing else; it shows that the machinery works, not that it is a poet.
"""

import csv
import dataclasses
import functools
import pathlib
import random
import re
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from tfrlhf import cli

PHRASES = pathlib.Path(__file__).parent / "data" / "couplet_phrases.tsv"
OPENINGS = {
    "春": ("春天", "春日", "阳春"),
    "夏": ("夏天", "夏日", "盛夏"),
    "秋": ("秋天", "秋日", "金秋"),
    "冬": ("冬天", "冬日", "寒冬"),
    "清晨": ("清晨", "早晨", "拂晓"),
    "黄昏": ("黄昏", "傍晚", "日暮"),
    "夜晚": ("夜晚", "深夜", "入夜"),
}
Record = dict[str, Any]
FORM = re.compile("[一-龥]+，[一-龥]+")
FRAME = "上联：{}\n下联："
# A phrase in so many is never part of a prompt to train on.
HELD_OUT = 6
COLUMNS = {
    "copy": "copy",
    "random": "any of season",
    "before": "before",
    "after": "after",
}
TITLES = {
    "reward": "reward, 0 to 5",
    "form": "Chinese X，Y",
    "season": "the prompt's season",
    "phrase": "a phrase of it",
    "fresh": "no character again",
    "level": "level tone at the end",
    "copies": "copies of the phrase",
    "distinct": "distinct second halves",
}


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """How long to learn, and how."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    sft_epochs: int = 8
    sft_learning_rate: float = 3e-3
    ppo_iterations: int = 50
    """Rollouts of batch_size couplets."""
    batch_size: int = 128
    max_new_tokens: int = 16
    temperature: float = 1.0
    learning_rate: float = 2e-4
    """Of the policy in PPO."""
    value_learning_rate: float = 1e-3
    kl_weight: float = 0.2
    samples: int = 4
    """Answers to each held-out prompt."""


class Phrase(NamedTuple):
    """Four characters that say something of a season or a time of day."""

    theme: str
    text: str
    tone: int = 0
    """Of its last character; 1 and 2 are level."""


def main(settings: Settings) -> None:
    """Teaches a language model to answer Chinese season couplets."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, sft_epochs=1, ppo_iterations=3, batch_size=32, samples=1
        )
    run = cli.Run("couplets_zh", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    training, held_out = prompts(load_phrases())
    strategy = cli.make_strategy(settings.strategy)

    # 1. A policy that answers with any line that fits, mostly.
    with strategy.scope():
        tuned = run.stage(
            "sft",
            "Supervised fine-tuning",
            lambda: fine_tune(run, settings, training),
        )

    # 2. It learns the rules that the examples do not keep.
    with strategy.scope():
        run.stage("ppo", "PPO", lambda: optimise(run, settings, training))

    # 3. Answers to phrases that no prompt had.
    measured = run.stage(
        "evaluation", "Evaluation", lambda: evaluate(run, settings, held_out)
    )
    samples = measured.pop("samples")
    measured["training_prompts"] = len(training)
    summary = run.write_summary(measured | {"losses": tuned["losses"]})
    print_measured(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


@functools.cache
def load_phrases() -> list[Phrase]:
    """Reads the authored phrases."""
    with PHRASES.open(encoding="utf-8", newline="") as file:
        return [
            Phrase(row["theme"], row["phrase"], int(row["tone"]))
            for row in csv.DictReader(file, delimiter="\t")
        ]


def prompts(phrases: list[Phrase]) -> tuple[list[Record], list[Record]]:
    """Makes records of first lines, to train on and held out by phrase.

    Which phrases are held out does not depend on a seed.
    """
    training: list[Record] = []
    held_out: list[Record] = []
    for index, phrase in enumerate(phrases):
        split = training if index % HELD_OUT else held_out
        split += [
            {
                "prompt": FRAME.format(f"{opening}，{phrase.text}"),
                "opening": opening,
                "phrase": phrase.text,
                "theme": phrase.theme,
            }
            for opening in OPENINGS[phrase.theme]
        ]
    return training, held_out


def fitting(record: Record) -> list[str]:
    """Returns the other phrases of a prompt's theme."""
    return [
        p.text
        for p in load_phrases()
        if p.theme == record["theme"] and p.text != record["phrase"]
    ]


def examples(
    training: list[Record], seed: int, each: int = 4
) -> list[dict[str, str]]:
    """Answers every prompt with other phrases of its theme, drawn at random."""
    order = random.Random(seed)
    found = [
        {
            "prompt": record["prompt"],
            "response": f"{record['opening']}，{phrase}",
        }
        for record in training
        for phrase in order.sample(fitting(record), each)
    ]
    order.shuffle(found)
    return found


def make_reward() -> Any:
    """Returns the reward of five parts, each of which is logged."""
    from tfrlhf import rewards

    themes = {x: theme for theme, several in OPENINGS.items() for x in several}
    tones = {(p.theme, p.text): p.tone for p in load_phrases()}
    return rewards.combine(
        {
            "form": (rewards.Format(FORM), 1.0),
            "season": (Rule(lambda x, y, p: themes.get(x) == p.theme), 1.0),
            "phrase": (Rule(lambda x, y, p: (p.theme, y) in tones), 1.0),
            "fresh": (Rule(lambda x, y, p: not set(y) & set(p.text)), 1.0),
            # What is no authored phrase has no tone.
            "level": (Rule(lambda x, y, p: tones.get((p.theme, y), 4) < 3), 1),
        }
    )


class Rule:
    """Scores 1 where both halves and the prompt's phrase keep a rule."""

    def __init__(self, holds: Callable[[str, str, Phrase], bool]) -> None:
        self.holds = holds

    def __call__(
        self, prompts: list[str], responses: list[str], **columns: Any
    ) -> list[float]:
        """Returns one score a response, 0 or 1."""
        scores = []
        for row, response in enumerate(responses):
            opening, _, rest = response.partition("，")
            given = Phrase(columns["theme"][row], columns["phrase"][row])
            scores.append(float(self.holds(opening, rest, given)))
        return scores


def fine_tune(
    run: cli.Run, settings: Settings, training: list[Record]
) -> dict[str, Any]:
    """Teaches the model couplets and saves it."""
    pairs = examples(training, settings.seed)
    policy = cli.start_policy(
        settings.model,
        (pair["prompt"] + pair["response"] for pair in pairs),
        # Most characters are one token, few phrases are.
        vocabulary_size=1024,
        layers=2 if settings.tiny else 4,
        context_length=64,
    )
    losses = cli.fine_tune(
        run,
        policy,
        pairs,
        rate=settings.sft_learning_rate,
        epochs=settings.sft_epochs,
        learn_prompts=settings.model is None,
    )
    run.save(policy, "sft")
    return {"parameters": policy.count_params(), "losses": losses}


def optimise(
    run: cli.Run, settings: Settings, training: list[Record]
) -> dict[str, Any]:
    """Optimises the policy against the reward with PPO."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    ppo = tfrlhf.PPO(
        policy, make_reward(), tfrlhf.ValueModel.from_policy(policy)
    )
    ppo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=settings.sampler(),
        kl=tfrlhf.FixedKL(settings.kl_weight),
        value_optimizer=keras.optimizers.Adam(
            settings.value_learning_rate, epsilon=1e-5
        ),
        minibatches=2,
    )
    order = random.Random(settings.seed)
    wanted = settings.ppo_iterations * settings.batch_size
    shuffled = order.sample(training, len(training))
    run.fit(
        ppo,
        cli.repeated(shuffled, wanted),
        "ppo",
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"iterations": int(ppo.state.iteration.numpy())}


def evaluate(
    run: cli.Run, settings: Settings, held_out: list[Record]
) -> dict[str, Any]:
    """Measures both policies and two rules on prompts with unseen phrases."""
    import numpy as np

    import tfrlhf

    before = tfrlhf.Policy.from_preset(run.models / "sft")
    after = tfrlhf.Policy.from_preset(run.models / "policy")
    records = [r for r in held_out for _ in range(settings.samples)]
    order = random.Random(settings.seed + 1)
    answers = {
        "copy": [f"{r['opening']}，{r['phrase']}" for r in records],
        # The rule that the examples were made by.
        "random": [
            f"{r['opening']}，{order.choice(fitting(r))}" for r in records
        ],
    }
    texts = [record["prompt"] for record in records]
    for name, policy in (("before", before), ("after", after)):
        answers[name], drawn = tfrlhf.evaluation.draw_responses(
            policy, texts, settings.sampler(), settings.seed
        )
    nats = tfrlhf.evaluation.sequence_kl(
        after, before, drawn, settings.temperature
    )
    middle = len(records) // 2
    return {
        "prompts": len(held_out),
        "answers": len(records),
        "measured": {
            name: measure(records, responses, settings.samples)
            for name, responses in answers.items()
        },
        "kl": float(np.mean(nats)),
        "samples": [
            [texts[i], answers["before"][i], answers["after"][i]]
            for i in (0, middle, len(records) - 1)
        ],
    }


def measure(
    records: list[Record], responses: list[str], samples: int
) -> dict[str, Any]:
    """Returns shares, as decoded, with standard errors over prompts."""
    import numpy as np

    from tfrlhf import evaluation

    reward = make_reward()
    columns = {name: [r[name] for r in records] for name in ("theme", "phrase")}
    scores = reward([r["prompt"] for r in records], responses, **columns)
    copies = [
        float(record["phrase"] in response)
        for record, response in zip(records, responses, strict=True)
    ]
    shares = {"reward": scores, **reward.parts, "copies": copies}
    found: dict[str, Any] = {}
    for name, values in shares.items():
        means = np.reshape(values, (-1, samples)).mean(axis=1)
        found[name] = list(map(float, evaluation.accuracy(means)))
    lines = {response.split("，", 1)[-1] for response in responses}
    return found | {"distinct": len(lines)}


def print_measured(summary: dict[str, Any]) -> None:
    """Prints the table."""
    columns = [summary["measured"][name] for name in COLUMNS]
    cli.print_table(
        f"{summary['prompts']} held-out prompts, {summary['answers']} answers",
        ("", *COLUMNS.values()),
        [
            *((TITLES[key], *(c[key] for c in columns)) for key in TITLES),
            ("KL to before, nats", None, None, None, summary["kl"]),
        ],
    )
    form = f"{columns[-1]['form'][0]:.1%} of the answers after PPO match"
    cli.console.print(f"{form} ^[一-龥]+，[一-龥]+$.", markup=False)


if __name__ == "__main__":
    cli.main(main, Settings)
