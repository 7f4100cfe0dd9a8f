"""Translation by minimum risk: what a metric rates, not what a token costs.

    python recipes/translation.py
    python recipes/translation.py --data FILE --model DIR

Minimum risk training (Shen et al., 2016, https://arxiv.org/abs/1512.02433)
samples n translations of a source and lowers their expected risk, 1 − metric.
That is RLOO: the gradient of the expected reward from n samples a source, each
against the mean of the others. Shen et al. make the n samples sum to
probability 1 instead, which needs a sharpness of its own and is biased for
small n; `RewardWeightedRegression` has no baseline, so that a metric that is
never negative teaches every sample, good or bad. Several optimizer steps are
made on the samples of an iteration, with PPO's clip.

FILE is JSONL of {"prompt": the source with its instruction, "reference": a
translation or a list of them}. Without it sentences are written by the grammar
below, English with one simplified Chinese translation each: word order, measure
words and aspect differ. Grammar and lexicon were written for this recipe; the
small model that starts from nothing shows that the machinery works.
"""

import dataclasses
import functools
import itertools
import json
import pathlib
import random
from typing import Any

from tfrlhf import cli

LEXICON = pathlib.Path(__file__).parent / "data" / "lexicon_en_zh.json"
FRAME = "English: {}\n中文："
HELD_OUT = 200
SAMPLES = 4
Record = dict[str, Any]
COLUMNS = {
    "another": "another's",
    "sft": "before",
    "longer": "SFT longer",
    "rloo": "after",
}
TITLES = {
    "bleu": "corpus BLEU",
    "chrf": "corpus chrF",
    "metric": "metric of a sentence",
    "gain": "its gain, pairwise",
    "exact": "word for word",
}


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """What to translate, and how long to learn it."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    data: pathlib.Path | None = None
    """JSONL of {"prompt", "reference"}; a fifth, at most 200, is held out."""
    sentences: int = 3000
    """That the grammar writes to train on, if there is no --data."""
    sft_epochs: int = 4
    sft_learning_rate: float = 3e-3
    sources: int = 32
    """Of an iteration."""
    responses: int = 8
    """Sampled for each source."""
    iterations: int = 30
    update_epochs: int = 2
    """Passes over the samples of an iteration, in two minibatches each."""
    max_new_tokens: int = 32
    temperature: float = 1.0
    learning_rate: float = 2.5e-4
    kl_weight: float = 0.02


def main(settings: Settings) -> None:
    """Learns translation from references, then from what a metric says."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings,
            sentences=400,
            sft_epochs=2,
            sources=4,
            responses=4,
            iterations=4,
            update_epochs=1,
        )
    run = cli.Run("translation", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    training, held_out = load_data(settings)
    held_out = held_out[: 40 if settings.tiny else None]
    strategy = cli.make_strategy(settings.strategy)

    learn = functools.partial(fine_tune, run, settings, training)
    with strategy.scope():
        # 1. The likelihood of the references.
        tuned = run.stage("sft", "Fine-tuning", lambda: learn("sft"))

        # 2. The expected metric of its own translations.
        run.stage("rloo", "RLOO", lambda: optimise(run, settings, training))

        # 3. The likelihood for as many steps more, to compare with.
        longer = run.stage("longer", "SFT longer", lambda: learn("longer"))

    # 4. Sentences that were held out.
    measured = run.stage(
        "evaluation", "Evaluation", lambda: evaluate(run, settings, held_out)
    )
    samples = measured.pop("samples")
    steps = {"sft": tuned["steps"], "longer": longer["steps"]}
    summary = run.write_summary(
        measured | {"training_prompts": len(training), "steps": steps}
    )
    print_measured(summary)
    cli.print_samples(samples)
    cli.print_where(run, summary)


class Grammar:
    """Writes English sentences with their Chinese, from the lexicon."""

    def __init__(self, seed: int) -> None:
        self.words = json.loads(LEXICON.read_text(encoding="utf-8"))
        self.order = random.Random(seed)

    def sentence(self) -> tuple[str, str]:
        """Returns a sentence and its translation."""
        person, who = self.one_of(self.words["people"])
        verb = self.order.choice(self.words["verbs"])
        kind = self.order.choice(("past", "past", "future", "now", "habit"))
        time_of = kind
        if kind == "past" and self.order.random() < 0.3:
            kind = "not"
        english, chinese = self.noun_phrase(
            self.order.choice(verb["nouns"]), known=kind == "not"
        )
        place = self.order.choice([*verb["places"], None])
        where = f"在{self.words['places'][place]}" if place else ""
        time, when = self.one_of(self.words[time_of])
        said, done = conjugated(verb, person, where)[kind]
        words = [person, said, english, place, time]
        text = " ".join(word for word in words if word) + "."
        return text[0].upper() + text[1:], f"{who}{when}{done}{chinese}。"

    def noun_phrase(self, name: str, known: bool) -> tuple[str, str]:
        """Returns this thing, if it is known, or one or some of them."""
        noun = self.words["nouns"][name]
        chinese = noun["chinese"]
        if known:
            pointer, count = self.order.choice([("this", "这"), ("that", "那")])
        elif self.order.random() < 0.4:
            pointer, count = self.one_of(self.words["counts"])
            name = noun["plural"]
        else:
            pointer, count = "a", "一"
        if self.order.random() < 0.5:
            adjective, same = self.one_of(noun["adjectives"])
            # A cup of hot tea, not a hot cup of tea.
            vessel, of, contents = name.rpartition(" of ")
            name = f"{vessel}{of}{adjective} {contents}"
            chinese = same + chinese
        if pointer == "a" and name[0] in "aeiou":
            pointer = "an"
        return f"{pointer} {name}", f"{count}{noun['measure']}{chinese}"

    def one_of(self, pairs: dict[str, str]) -> tuple[str, str]:
        """Draws a word and its translation."""
        return self.order.choice(list(pairs.items()))


def conjugated(
    verb: dict[str, Any], person: str, where: str
) -> dict[str, tuple[str, str]]:
    """Returns every tense of a verb, with place and aspect around it."""
    base, third, past, going = verb["forms"]
    plural = person in ("I", "we", "they")
    be = {"I": "am"}.get(person, "are" if plural else "is")
    chinese = verb["chinese"]
    return {
        "past": (past, f"{where}{chinese}了"),
        "not": (f"did not {base}", f"没有{where}{chinese}"),
        "future": (f"will {base}", f"要{where}{chinese}"),
        "habit": (base if plural else third, f"{where}{chinese}"),
        # 正在 and 在 share a 在.
        "now": (f"{be} {going}", f"正{where or '在'}{chinese}"),
    }


def load_data(settings: Settings) -> tuple[list[Record], list[Record]]:
    """Reads or writes records, split by prompt; references become lists."""
    if settings.data is None:
        grammar = Grammar(settings.seed)
        written: dict[str, str] = {}
        while len(written) < settings.sentences + HELD_OUT:
            english, chinese = grammar.sentence()
            written[FRAME.format(english)] = chinese
        records = [{"prompt": p, "reference": [r]} for p, r in written.items()]
        return records[HELD_OUT:], records[:HELD_OUT]
    from tfrlhf import data

    records = data.read_jsonl(settings.data, ("prompt", "reference"))
    for record in records:
        if isinstance(record["reference"], str):
            record["reference"] = [record["reference"]]
    return data.split_by_prompt(records, settings.seed, most=HELD_OUT)


def fine_tune(
    run: cli.Run, settings: Settings, training: list[Record], stage: str
) -> dict[str, Any]:
    """Teaches the first references: from nothing, or longer after that."""
    import tfrlhf

    rate, batch_size = settings.sft_learning_rate, 32
    steps = settings.sft_epochs * len(training) // batch_size
    if stage == "longer":
        # As many steps of as many rows as RLOO took.
        rate, batch_size = rate / 2, settings.sources * settings.responses // 2
        steps = settings.iterations * settings.update_epochs * 2
        policy = tfrlhf.Policy.from_preset(run.models / "sft")
    else:
        policy = cli.start_policy(
            settings.model,
            (r["prompt"] + r["reference"][0] for r in training),
            vocabulary_size=1024,
            layers=2 if settings.tiny else 4,
        )
    pairs = [
        {"prompt": record["prompt"], "response": record["reference"][0]}
        for record in shuffled(training, settings.seed, steps * batch_size)
    ]
    losses = cli.fine_tune(
        run,
        policy,
        pairs,
        rate=rate,
        batch_size=batch_size,
        learn_prompts=settings.model is None,
        stage=stage,
    )
    run.save(policy, stage)
    return {"loss": losses[-1], "steps": steps}


def shuffled(records: list[Record], seed: int, count: int) -> list[Record]:
    """Returns so many records, each round in an order of its own."""
    order = random.Random(seed)
    found: list[Record] = []
    while len(found) < count:
        found += order.sample(records, len(records))
    return found[:count]


def make_reward() -> Any:
    """Returns the metric to raise: the mean of sentence chrF and BLEU."""
    from tfrlhf import rewards

    return rewards.combine({rewards.CHRF(): 0.5, rewards.BLEU(): 0.5})


def optimise(
    run: cli.Run, settings: Settings, training: list[Record]
) -> dict[str, Any]:
    """Raises the expected metric of sampled translations."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    rloo = tfrlhf.RLOO(policy, make_reward())
    # Adam's first steps have full size, however small the gradient.
    steps = settings.iterations * settings.update_epochs * 2
    rate = cli.cosine(settings.learning_rate, steps)
    rloo.compile(
        keras.optimizers.Adam(rate, epsilon=1e-5),
        sampler=settings.sampler(),
        advantage=tfrlhf.LeaveOneOut(settings.responses),
        kl=tfrlhf.FixedKL(settings.kl_weight),
        update_epochs=settings.update_epochs,
        minibatches=2,
    )
    wanted = settings.iterations * settings.sources
    run.fit(
        rloo,
        shuffled(training, settings.seed + 1, wanted),
        "rloo",
        {"objective/scores": "metric", "objective/kl": "KL"},
        batch_size=settings.sources * settings.responses,
    )
    run.save(policy, "rloo")
    return {"iterations": int(rloo.state.iteration.numpy())}


def evaluate(
    run: cli.Run, settings: Settings, held_out: list[Record]
) -> dict[str, Any]:
    """Measures the three policies on held-out sentences."""
    import tfrlhf

    texts = [record["prompt"] for record in held_out]
    # What a rule gets that knows the language and not the sentence.
    others = [record["reference"][0] for record in held_out]
    another = measure(held_out, [[*others[1:], others[0]]])
    del another["each"]
    measured: dict[str, dict[str, Any]] = {"another": {"greedy": another}}
    answers: dict[str, list[str]] = {}
    for name in ("sft", "longer", "rloo"):
        policy = tfrlhf.Policy.from_preset(run.models / name)
        measured[name] = {}
        for how, temperature, count in (
            ("sampled", settings.temperature, SAMPLES),
            ("greedy", 0.0, 1),
        ):
            draw = settings.sampler(temperature)
            several: Any = [
                policy.generate(texts, sampler=draw, seed=(settings.seed, i))
                for i in range(count)
            ]
            measured[name][how] = measure(held_out, several)
        answers[name] = several[0]
    for how in ("sampled", "greedy"):
        each = {x: measured[x][how].pop("each") for x in answers}
        for name, scores in each.items():
            gain = [a - b for a, b in zip(scores, each["sft"], strict=True)]
            measured[name][how]["gain"] = estimate(gain)
    return {
        "prompts": len(texts),
        "measured": measured,
        "samples": [
            [texts[i], answers["sft"][i], answers["rloo"][i]]
            for i in (0, len(texts) // 2, len(texts) - 1)
        ],
    }


def measure(records: list[Record], several: list[list[str]]) -> dict[str, Any]:
    """Measures one or several translations of every source.

    Returns:
        Corpus BLEU and chrF, the mean metric of a sentence and the share that
        is right word for word, and the metric of `each` source.
    """
    import numpy as np
    import sacrebleu

    responses = [response for column in several for response in column]
    references = [record["reference"] for record in records] * len(several)
    # sacrebleu wants the n-th references of all sentences together.
    columns = [list(x) for x in itertools.zip_longest(*references)]
    chinese = any("一" <= c <= "龥" for c in "".join(references[0]))
    scores = make_reward()([], responses, reference=references)
    each = np.reshape(scores, (len(several), -1)).mean(axis=0).tolist()
    exact = [r in x for r, x in zip(responses, references, strict=True)]
    return {
        "bleu": sacrebleu.corpus_bleu(
            responses, columns, tokenize="zh" if chinese else "13a"
        ).score,
        "chrf": sacrebleu.corpus_chrf(responses, columns).score,
        "metric": estimate(each),
        "exact": estimate(np.reshape(exact, (len(several), -1)).mean(axis=0)),
        "each": each,
    }


def estimate(values: Any) -> list[float]:
    """Returns a mean over sources and its standard error."""
    from tfrlhf import evaluation

    return list(evaluation.accuracy(values))


def print_measured(summary: dict[str, Any]) -> None:
    """Prints the table; beside it SFT for as many steps more."""
    measured = summary["measured"]
    cli.print_table(
        f"{summary['prompts']} held-out sentences",
        ("", *COLUMNS.values()),
        [
            (
                f"{title}, {how}",
                *(measured[name].get(how, {}).get(key) for name in COLUMNS),
            )
            for how in ("sampled", "greedy")
            for key, title in TITLES.items()
        ],
    )


if __name__ == "__main__":
    cli.main(main, Settings)
