"""The same task with every algorithm: what a nat of KL buys.

    python recipes/compare_algorithms.py
    python recipes/compare_algorithms.py --algorithms PPO,GRPO --seeds 5

Fine-tunes a small model on the embedded task once, then lets every algorithm
raise the same reward with several seeds. Along a run reward and KL both grow:
the table reads the reward where the KL first reaches each of a few values.
DPO and its kin learn from pairs of the start's own samples, as many as the
others draw, that the same reward has ranked; best of n is searched, not
trained.
"""

import dataclasses
from typing import Any

from tfrlhf import cli
from tfrlhf.cli import console

ALGORITHMS = (
    "PPO,REINFORCE,REINFORCE++,RLOO,GRPO,Dr. GRPO,DAPO,GSPO,RWR,AWR,Online DPO"
)
PAIRWISE = "DPO,cDPO,robust DPO,IPO,SimPO,ORPO,KTO"
# Of the learning; 2e-4 for the others.
RATES = {"PPO": 1.5e-4, "Online DPO": 1e-4}


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """What to compare, and for how long."""

    model: str | None = None
    """Policy to start from; a small GPT-2 fine-tuned here if not given."""
    algorithms: str = f"{ALGORITHMS},{PAIRWISE}"
    """Some of them, with commas."""
    seeds: int = 3
    iterations: int = 40
    """Rollouts of batch_size responses, at most."""
    batch_size: int = 64
    kl_weight: float = 0.02
    """Of the penalty in the reward, or in the loss for GRPO."""
    kl_grid: str = "1,2,4,8"
    """Nats at which rewards are compared; a run ends beyond the last."""


def main(settings: Settings) -> None:
    """Compares algorithms by the reward that they reach at equal KL."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, seeds=2, iterations=3, batch_size=16, kl_grid="0.01,0.1"
        )
    names = chosen(settings)
    run = cli.Run("compare_algorithms", settings)

    import keras

    from tfrlhf import evaluation

    keras.utils.set_random_seed(settings.seed)
    strategy = cli.make_strategy(settings.strategy)

    # 1. One start for all.
    with strategy.scope():
        run.stage("sft", "The start", lambda: fine_tune(run, settings))

    # 2. Search, for comparison.
    task = (run, settings)
    searched = run.stage("best_of_n", "Best of n", lambda: search(*task))

    # 3. Every algorithm with every seed.
    curves: dict[str, list[Any]] = {}
    for seed in range(settings.seeds):
        for name in names:
            work = learn_pairs if name in PAIRWISE.split(",") else optimise
            with strategy.scope():
                result = run.stage(
                    f"{name}-{seed}",
                    f"{name}, seed {seed}",
                    lambda w=work, n=name, s=seed: w(*task, n, s),
                )
            curves.setdefault(name, []).append(evaluation.Curve(**result))

    # 4. The reward at equal KL.
    grid = kl_grid(settings)
    rows = {
        name: [evaluation.score_at_kl(results, kl) for kl in grid]
        for name, results in curves.items()
    }
    summary = run.write_summary(
        {
            "kl": grid,
            "rewards": rows,
            "curves": {n: [c._asdict() for c in x] for n, x in curves.items()},
            "best_of_n": searched,
        }
    )
    print_tables(grid, rows, curves, searched)
    draw(run, curves, searched)
    cli.print_where(run, summary)


def chosen(settings: Settings) -> list[str]:
    """Reads the names of the algorithms to compare."""
    known = f"{ALGORITHMS},{PAIRWISE}".split(",")
    names = [name.strip() for name in settings.algorithms.split(",")]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise cli.UserError(
            f"--algorithms has no {unknown[0]!r}: choose from "
            f"{', '.join(known)}."
        )
    return names


def variants(settings: Settings) -> dict[str, tuple[Any, dict[str, Any]]]:
    """Returns each algorithm's class, and what else it is compiled with."""
    import tfrlhf

    loss = tfrlhf.losses.PPOLoss
    grpo, several = tfrlhf.GRPO, {"update_epochs": 4}
    # Its KL is in the loss and not in the reward.
    kl = loss(mean_over="responses", kl_weight=settings.kl_weight)
    level = loss(0.03, level="sequence", mean_over="responses")
    unscaled = {
        "loss": loss(mean_over="limit"),
        "advantage": tfrlhf.GroupRelative(8, scale=False),
    }
    weighted = {"advantage": tfrlhf.AdvantageWeighted(0.5)}
    return {
        "PPO": (tfrlhf.PPO, {"minibatches": 2}),
        "REINFORCE": (tfrlhf.REINFORCE, {}),
        "REINFORCE++": (tfrlhf.REINFORCEPlusPlus, several),
        "RLOO": (tfrlhf.RLOO, {}),
        "GRPO": (grpo, several | {"loss": kl, "kl": tfrlhf.FixedKL(0.0)}),
        "Dr. GRPO": (grpo, several | unscaled),
        "DAPO": (grpo, several | {"loss": loss((0.2, 0.28))}),
        "GSPO": (grpo, several | {"loss": level}),
        "RWR": (tfrlhf.RewardWeightedRegression, {}),
        "AWR": (tfrlhf.AdvantageWeightedRegression, weighted),
        "Online DPO": (tfrlhf.OnlineDPO, {}),
    }


def make_trainer(
    name: str, policy: Any, reward: Any, settings: Settings
) -> Any:
    """Returns a compiled trainer; all of them go about as fast."""
    import keras

    import tfrlhf

    kind, given = variants(settings)[name]
    if name != "Online DPO":
        given = {"kl": tfrlhf.FixedKL(settings.kl_weight)} | given
    trainer: Any
    if name == "PPO":
        value = tfrlhf.ValueModel.from_policy(policy)
        trainer = tfrlhf.PPO(policy, reward, value)
        fast = keras.optimizers.Adam(1e-3, epsilon=1e-5)
        given = given | {"value_optimizer": fast}
    else:
        trainer = kind(policy, reward)
    trainer.compile(
        keras.optimizers.Adam(RATES.get(name, 2e-4), epsilon=1e-5),
        sampler=settings.sampler(),
        **given,
    )
    return trainer


def make_pair_trainer(name: str, policy: Any) -> Any:
    """Returns a compiled trainer for pairs, or for ratings if it is KTO."""
    import keras

    import tfrlhf

    losses = tfrlhf.losses
    trainer = tfrlhf.DPO(policy)
    trainer.compile(
        keras.optimizers.Adam(1e-4, epsilon=1e-5),
        {
            "DPO": losses.DPOLoss(),
            "cDPO": losses.DPOLoss(label_smoothing=0.1),
            "robust DPO": losses.RobustDPOLoss(),
            "IPO": losses.IPOLoss(),
            "SimPO": losses.SimPOLoss(),
            "ORPO": losses.ORPOLoss(),
            "KTO": losses.KTOLoss(),
        }[name],
    )
    return trainer


def fine_tune(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Makes the policy that every run starts from."""
    policy = cli.embedded_policy(run, settings.model)
    run.save(policy, "start")
    return {"parameters": policy.count_params()}


def search(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Returns the bound of the KL and the reward of the best of n samples."""
    import tfrlhf
    from tfrlhf import rewards

    policy = tfrlhf.Policy.from_preset(run.models / "start")
    most = 4 if settings.tiny else 32
    found = tfrlhf.best_of_n(
        policy,
        rewards.courtesy,
        some_prompts(settings, settings.seed, settings.batch_size),
        most,
        settings.sampler(),
        settings.seed,
    )
    result = {}
    for n in (1, 2, 4, 8, 16, 32):
        if n <= most:
            # The best of every n samples in a row, over all such rows.
            scores = found.all_scores.reshape(-1, n).max(axis=1)
            result[str(n)] = [tfrlhf.best_of_n_kl(n), float(scores.mean())]
    return result


def optimise(
    run: cli.Run, settings: Settings, name: str, seed: int
) -> dict[str, Any]:
    """Runs an algorithm; returns reward and KL of every iteration."""
    import keras

    import tfrlhf
    from tfrlhf import rewards

    policy = tfrlhf.Policy.from_preset(run.models / "start")
    trainer = make_trainer(name, policy, rewards.courtesy, settings)
    each = settings.batch_size // trainer.group_size
    curve: dict[str, list[float]] = {"kl": [], "scores": []}

    def note(batch: int, logs: dict[str, float]) -> None:
        curve["kl"].append(logs["objective/kl"])
        curve["scores"].append(logs["objective/scores"])
        trainer.stop_training = far_enough(curve, settings)

    run.fit(
        trainer,
        some_prompts(settings, seed, settings.iterations * each),
        f"{name}-{seed}",
        batch_size=settings.batch_size,
        seed=seed,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=note)],
    )
    return curve


def learn_pairs(
    run: cli.Run, settings: Settings, name: str, seed: int
) -> dict[str, Any]:
    """Runs DPO or its kin on ranked samples; measures as it goes."""
    import keras
    import numpy as np

    import tfrlhf
    from tfrlhf import evaluation
    from tfrlhf import rewards

    start = tfrlhf.Policy.from_preset(run.models / "start")
    policy = tfrlhf.Policy.from_preset(run.models / "start")
    records = compare_samples(start, settings, name, seed)
    batch_size = 64 if name == "KTO" else 32
    trainer = make_pair_trainer(name, policy)
    curve: dict[str, list[float]] = {"kl": [], "scores": []}
    batches = -(-len(records) // batch_size)
    probes = some_prompts(settings, seed, 128)

    def measure(batch: int, logs: dict[str, float]) -> None:
        if batch % max(1, batches // 5):
            return
        texts, drawn = evaluation.draw_responses(
            policy, probes, settings.sampler(), seed
        )
        nats = evaluation.sequence_kl(
            policy, start, drawn, settings.temperature
        )
        curve["kl"].append(float(nats.mean()))
        curve["scores"].append(float(np.mean(rewards.courtesy(probes, texts))))
        trainer.stop_training = far_enough(curve, settings)

    run.fit(
        trainer,
        records,
        f"{name}-{seed}",
        {"loss": "loss"},
        batch_size=batch_size,
        epochs=3,
        seed=seed,
        callbacks=[keras.callbacks.LambdaCallback(on_train_batch_end=measure)],
    )
    return curve


def compare_samples(
    start: Any, settings: Settings, name: str, seed: int
) -> list[dict[str, Any]]:
    """Ranks as many samples of the start as other algorithms draw.

    Returns pairs, or for KTO each of their responses with a rating.
    """
    import tfrlhf
    from tfrlhf import rewards

    samples = settings.iterations * settings.batch_size
    pairs = tfrlhf.best_of_n(
        start,
        rewards.courtesy,
        some_prompts(settings, seed, samples // 2),
        2,
        settings.sampler(),
        seed,
    ).pairs()
    if name != "KTO":
        return list(pairs)
    return [
        {"prompt": pair["prompt"], "response": pair[side], "rating": rating}
        for pair in pairs
        for side, rating in (("chosen", 1), ("rejected", 0))
    ]


def some_prompts(settings: Settings, seed: int, count: int) -> list[Any]:
    """Draws prompts of the embedded task."""
    import numpy as np

    from tfrlhf.data import embedded

    prompts = embedded.load(settings.seed).prompts
    order = np.random.default_rng(seed).permutation(len(prompts))
    return cli.repeated([prompts[i] for i in order], count)


def far_enough(curve: dict[str, list[float]], settings: Settings) -> bool:
    """Tells whether a run has passed the last KL at which rewards are read."""
    from tfrlhf import evaluation

    return evaluation.Curve(**curve).smooth().kl[-1] > kl_grid(settings)[-1]


def kl_grid(settings: Settings) -> list[float]:
    """Returns the nats at which rewards are compared."""
    return sorted(float(x) for x in settings.kl_grid.split(","))


def print_tables(
    grid: list[float],
    rows: dict[str, list[Any]],
    curves: dict[str, list[Any]],
    searched: dict[str, Any],
) -> None:
    """Prints the reward at every KL and at the end, and best of n."""
    lines = []
    for name, cells in rows.items():
        ends = [curve.smooth() for curve in curves[name]]
        score = sum(end.scores[-1] for end in ends) / len(ends)
        kl = sum(end.kl[-1] for end in ends) / len(ends)
        told = (
            f"{cell.value:.2f} ± {cell.stderr:.2f}" if cell else "–"
            for cell in cells
        )
        lines.append((name, *told, f"{score:.2f} at {kl:.1f}"))
    seeds = max(map(len, curves.values()))
    cli.print_table(
        f"Reward at equal KL, {seeds} seeds (mean ± standard error; – where "
        "a run did not come that far)",
        ("", *(f"{kl:g} nats" for kl in grid), "at the end"),
        lines,
    )
    cli.print_table(
        "Best of n, without training",
        ("n", "KL at most, nats", "reward"),
        [(n, *found) for n, found in searched.items()],
    )


def draw(
    run: cli.Run, curves: dict[str, list[Any]], searched: dict[str, Any]
) -> None:
    """Draws reward over KL, where matplotlib is installed."""
    from tfrlhf import evaluation

    picture = run.directory / "frontier.png"
    bound, scores = zip(*searched.values(), strict=True)
    beside = {"best of n": evaluation.Curve(bound, scores)}
    try:
        evaluation.plot_frontier(picture, curves, beside)
        console.print(f"[bold]plot[/] {picture}")
    except ImportError as error:
        console.print(str(error), markup=False)


if __name__ == "__main__":
    cli.main(main, Settings)
