"""Feedback on the current policy, round after round.

    python recipes/iterate.py
    python recipes/iterate.py --model DIR --prompts prompts.jsonl \
        --labeller module:function

A reward model learned once describes the policy it was learned from; PPO soon
leaves that. So each round collects comparisons of the policy as it is now,
retrains the reward model on all of them, normalises it again and goes on with
PPO (Bai et al., 2022, https://arxiv.org/abs/2204.05862, section 4.5). A
function stands in for people; feedback/round-N.jsonl is what they would write.
"""

import dataclasses
import json
import pathlib
from typing import Any

from tfrlhf import cli


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """What to improve, by whose judgement, for how long."""

    model: str | None = None
    """Policy to start from; a small GPT-2 fine-tuned here if not given."""
    prompts: pathlib.Path | None = None
    """JSONL of {"prompt"}; the embedded ones if not given."""
    labeller: str = "tfrlhf.rewards:courtesy"
    """module:function that scores responses; the higher score is preferred."""
    rounds: int = 3
    pairs: int = 512
    """Comparisons a round; a quarter measures the reward model."""
    reward_epochs: int = 2
    ppo_iterations: int = 12
    """Rollouts of batch_size episodes a round."""
    batch_size: int = 64
    learning_rate: float = 1.5e-4
    """Of the policy in PPO."""
    kl_weight: float = 0.05
    """Of the penalty for leaving the policy of the start."""


def main(settings: Settings) -> None:
    """Improves a policy in rounds of feedback, reward model and PPO."""
    if (settings.model is None) != (settings.prompts is None):
        raise cli.UserError(
            "--model and --prompts go together: both for a model of your own, "
            "none for the embedded task."
        )
    if settings.tiny:
        settings = dataclasses.replace(
            settings, rounds=2, pairs=32, ppo_iterations=2, batch_size=16
        )
    cli.load_function("--labeller", settings.labeller)
    run = cli.Run("iterate", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    strategy = cli.make_strategy(settings.strategy)

    # 0. A policy that can answer.
    with strategy.scope():
        run.stage("start", "The start", lambda: start(run, settings))

    rounds = []
    for number in range(1, settings.rounds + 1):
        with strategy.scope():
            measured = go_round(run, settings, number)
        # 4. The start and the policy answer prompts that neither has seen.
        measured |= run.stage(
            f"evaluation-{number}",
            f"Round {number}: evaluation",
            lambda n=number: evaluate(run, settings, n),
        )
        rounds.append(measured)

    samples = rounds[-1]["samples"]
    for measured in rounds:
        del measured["samples"]
    summary = run.write_summary({"rounds": rounds})
    print_rounds(rounds)
    cli.print_samples(samples)
    cli.print_where(run, summary)


def go_round(run: cli.Run, settings: Settings, number: int) -> dict[str, Any]:
    """Asks, learns what was answered, and improves the policy."""
    # 1. What people think of the policy as it is now.
    measured = run.stage(
        f"feedback-{number}",
        f"Round {number}: feedback",
        lambda: collect(run, settings, number),
    )
    # 2. A reward model of all that they have said.
    measured |= run.stage(
        f"reward-{number}",
        f"Round {number}: reward model",
        lambda: learn_reward(run, settings, number),
    )
    # 3. The policy learns to be preferred.
    run.stage(
        f"ppo-{number}",
        f"Round {number}: PPO",
        lambda: optimise(run, settings, number),
    )
    return measured


def start(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Loads the policy, or fine-tunes a small one on the embedded task."""
    policy = cli.embedded_policy(run, settings.model)
    run.save(policy, "policy-0")
    return {"parameters": policy.count_params()}


def collect(run: cli.Run, settings: Settings, number: int) -> dict[str, Any]:
    """Samples two responses a prompt, and asks which is better."""
    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / f"policy-{number - 1}")
    found = tfrlhf.best_of_n(
        policy,
        cli.load_function("--labeller", settings.labeller),
        some_prompts(settings, number, settings.pairs),
        2,
        settings.sampler(),
        settings.seed + number,
    )
    pairs = found.pairs()
    if len(pairs) < 8:
        raise cli.UserError(
            f"--labeller {settings.labeller} tells {len(pairs)} of "
            f"{settings.pairs} pairs apart: a reward model needs 8 at least; "
            "use a finer one, or a higher --temperature."
        )
    path = feedback_file(run, number)
    path.parent.mkdir(exist_ok=True)
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    path.write_text("".join(lines), "utf-8")
    return {"pairs": len(pairs)}


def learn_reward(
    run: cli.Run, settings: Settings, number: int
) -> dict[str, Any]:
    """Learns from all rounds; measures on what is held out of the newest."""
    import tfrlhf
    from tfrlhf import data

    train: list[Any] = []
    for each in range(1, number + 1):
        pairs = data.read_jsonl(feedback_file(run, each))
        quarter = len(pairs) // 4
        train += pairs[quarter:]
        newest = pairs[:quarter]
    result = {}
    if number > 1:
        before = tfrlhf.RewardModel.from_preset(
            run.models / f"reward-{number - 1}"
        )
        found = tfrlhf.evaluation.reward_accuracy(before, newest)
        result["accuracy_before"] = found.value
    # From the start's weights: it is older than any of the feedback.
    policy = tfrlhf.Policy.from_preset(run.models / "policy-0")
    reward = cli.learn_reward(
        run,
        policy,
        train,
        epochs=settings.reward_epochs,
        stage=f"reward-{number}",
    )
    # Samples of the newest policy score mean 0 and deviation 1.
    reward.normalize(
        [r["prompt"] for r in newest for _ in range(2)],
        [r[key] for r in newest for key in ("chosen", "rejected")],
    )
    run.save(reward, f"reward-{number}")
    found = tfrlhf.evaluation.reward_accuracy(reward, newest)
    result["accuracy"], result["accuracy_stderr"] = found
    return result


def optimise(run: cli.Run, settings: Settings, number: int) -> dict[str, Any]:
    """Goes on with PPO; the reference is always the start."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / f"policy-{number - 1}")
    reference = tfrlhf.Policy.from_preset(run.models / "policy-0")
    reward = tfrlhf.RewardModel.from_preset(run.models / f"reward-{number}")
    ppo = tfrlhf.PPO(
        policy, reward, tfrlhf.ValueModel.from_reward(reward), reference
    )
    ppo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=settings.sampler(),
        kl=tfrlhf.FixedKL(settings.kl_weight),
        value_optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-5),
        minibatches=2,
    )
    count = settings.ppo_iterations * settings.batch_size
    run.fit(
        ppo,
        some_prompts(settings, settings.rounds + number, count),
        f"ppo-{number}",
        batch_size=settings.batch_size,
        seed=settings.seed + number,
    )
    run.save(policy, f"policy-{number}")
    return {"iterations": int(ppo.state.iteration.numpy())}


def evaluate(run: cli.Run, settings: Settings, number: int) -> dict[str, Any]:
    """Compares the policy with the start on held-out prompts."""
    import tfrlhf

    reward = tfrlhf.RewardModel.from_preset(run.models / f"reward-{number}")
    return tfrlhf.evaluation.compare(
        tfrlhf.Policy.from_preset(run.models / "policy-0"),
        tfrlhf.Policy.from_preset(run.models / f"policy-{number}"),
        load_prompts(settings)[1],
        settings.sampler(),
        reward.as_function(),
        cli.load_function("--labeller", settings.labeller),
        settings.seed,
    )


def load_prompts(settings: Settings) -> tuple[list[Any], list[Any]]:
    """Returns prompts to train on and prompts held out."""
    import numpy as np

    from tfrlhf import data
    from tfrlhf.data import embedded

    if settings.prompts is None:
        corpus = embedded.load(settings.seed)
        return corpus.prompts, corpus.held_out_prompts
    prompts = [r["prompt"] for r in data.read_jsonl(settings.prompts)]
    if len(prompts) < 4:
        raise cli.UserError(
            f"--prompts {settings.prompts} has {len(prompts)} records: at "
            "least 4 are needed, of which half may be held out."
        )
    np.random.default_rng(settings.seed).shuffle(prompts)
    held_out = min(max(200, len(prompts) // 10), len(prompts) // 2)
    return prompts[held_out:], prompts[:held_out]


def some_prompts(settings: Settings, draw: int, count: int) -> list[Any]:
    """Draws prompts to train on, all of them before any a second time."""
    import numpy as np

    prompts, _ = load_prompts(settings)
    order = np.random.default_rng([settings.seed, draw])
    shuffled = [prompts[i] for i in order.permutation(len(prompts))]
    return cli.repeated(shuffled, count)


def feedback_file(run: cli.Run, number: int) -> pathlib.Path:
    """Returns where the comparisons of a round are."""
    return run.directory / "feedback" / f"round-{number}.jsonl"


def print_rounds(rounds: list[dict[str, Any]]) -> None:
    """Prints a column a round, and one for the start."""

    def told(measured: dict[str, Any], name: str) -> str:
        value, error = measured[name], measured[f"{name}_stderr"]
        return f"{value:.3f} ± {error:.3f}"

    lines: list[tuple[Any, ...]] = [
        ("comparisons", None, *(str(r["pairs"]) for r in rounds)),
        (
            "accuracy of the old reward model",
            None,
            *(r.get("accuracy_before") for r in rounds),
        ),
        ("of the new one", None, *(told(r, "accuracy") for r in rounds)),
        ("its score", None, *(r["reward_after"] for r in rounds)),
        (
            "labeller's score",
            rounds[0]["gold_before"],
            *(r["gold_after"] for r in rounds),
        ),
        ("KL to the start, nats", None, *(r["kl"] for r in rounds)),
        ("wins against it", None, *(told(r, "win_rate") for r in rounds)),
    ]
    cli.print_table(
        f"{rounds[0]['prompts']} held-out prompts; accuracies on held-out "
        "comparisons of the round",
        ("", "start", *(f"round {n}" for n in range(1, len(rounds) + 1))),
        lines,
    )


if __name__ == "__main__":
    cli.main(main, Settings)
