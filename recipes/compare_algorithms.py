"""The same task with every algorithm: what a nat of KL buys.

    python recipes/compare_algorithms.py
    python recipes/compare_algorithms.py --algorithms PPO,GRPO --seeds 5

Fine-tunes a small model on the embedded task once, then lets every algorithm
raise the same reward with several seeds. Along a run reward and KL both grow:
the table reads the reward where the KL first reaches each of a few values.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import rich.table

from tfrlhf import cli
from tfrlhf.cli import console


@dataclasses.dataclass
class Settings(cli.RunSettings):
    """What to compare, and for how long."""

    model: str | None = None
    """Policy to start from; a small GPT-2 fine-tuned here if not given."""
    algorithms: str = (
        "PPO,REINFORCE,REINFORCE++,RLOO,GRPO,Dr. GRPO,DAPO,GSPO,AWR"
    )
    """Names out of the table in this file, with commas."""
    seeds: int = 3
    iterations: int = 40
    """Rollouts of batch_size responses."""
    batch_size: int = 64
    max_new_tokens: int = 40
    temperature: float = 0.7
    kl_weight: float = 0.02
    """Of the penalty in the reward, or in the loss for GRPO."""
    kl_grid: str = "1,2,4,8"
    """Nats at which rewards are compared."""


def main(settings: Settings) -> None:
    """Compares algorithms by the reward that they reach at equal KL."""
    if settings.tiny:
        settings = dataclasses.replace(
            settings, seeds=2, iterations=3, batch_size=16, kl_grid="0.01,0.1"
        )
    names = [name.strip() for name in settings.algorithms.split(",")]
    unknown = [name for name in names if name not in ALGORITHMS]
    if unknown:
        raise cli.UserError(
            f"--algorithms has no {unknown[0]!r}: choose from "
            f"{', '.join(ALGORITHMS)}."
        )
    run = cli.Run("compare_algorithms", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    strategy = cli.make_strategy(settings.strategy)

    # 1. One start for all.
    with strategy.scope():
        run.stage("sft", "The start", lambda: fine_tune(run, settings))

    # 2. Every algorithm with every seed.
    curves: dict[str, list[Any]] = {}
    for name in names:
        for seed in range(settings.seeds):
            with strategy.scope():
                result = run.stage(
                    f"{name}-{seed}",
                    f"{name}, seed {seed}",
                    lambda n=name, s=seed: optimise(run, settings, n, s),
                )
            curves.setdefault(name, []).append(result)

    # 3. The reward at equal KL.
    grid = [float(x) for x in settings.kl_grid.split(",")]
    rows = {
        name: [at_kl(results, kl) for kl in grid]
        for name, results in curves.items()
    }
    run.write_summary(
        {
            "kl": grid,
            "rewards": rows,
            "curves": curves,
            "seconds": run.seconds,
            "peak_memory_mb": cli.peak_memory_mb(),
        }
    )
    print_table(grid, rows, curves, settings)
    plot(run.directory / "frontier.png", curves)


def ppo(policy: Any, reward: Any, settings: Settings) -> Any:
    """Returns a compiled PPO."""
    import keras

    import tfrlhf

    value = tfrlhf.ValueModel.from_policy(policy)
    trainer = tfrlhf.PPO(policy, reward, value)
    trainer.compile(
        keras.optimizers.Adam(1.5e-4, epsilon=1e-5),
        value_optimizer=keras.optimizers.Adam(1e-3, epsilon=1e-5),
        minibatches=2,
        **common(settings),
    )
    return trainer


def critic_free(
    name: str, rate: float, **choices: Any
) -> Callable[[Any, Any, Settings], Any]:
    """Returns a function that makes a compiled trainer of the class `name`.

    Args:
        name: of a class of tfrlhf.
        rate: learning rate of Adam.
        **choices: of `compile`; `loss` and `advantage` as functions, so that
            nothing heavy is imported before.
    """

    def make(policy: Any, reward: Any, settings: Settings) -> Any:
        import keras

        import tfrlhf

        trainer = getattr(tfrlhf, name)(policy, reward)
        given = {
            key: value(tfrlhf, settings) if callable(value) else value
            for key, value in choices.items()
        }
        trainer.compile(
            keras.optimizers.Adam(rate, epsilon=1e-5),
            **common(settings) | given,
        )
        return trainer

    return make


def of_loss(**arguments: Any) -> Callable[[Any, Settings], Any]:
    """Returns a function that makes a `PPOLoss`."""
    return lambda tfrlhf, settings: tfrlhf.losses.PPOLoss(**arguments)


# One step a rollout takes a larger one than several with a clip do.
SEVERAL = {"update_epochs": 4}
ALGORITHMS: dict[str, Callable[[Any, Any, Settings], Any]] = {
    "PPO": ppo,
    "REINFORCE": critic_free("REINFORCE", 6e-4),
    "REINFORCE++": critic_free("REINFORCEPlusPlus", 3e-4, **SEVERAL),
    "RLOO": critic_free("RLOO", 6e-4),
    "GRPO": critic_free(
        "GRPO",
        3e-4,
        loss=lambda tfrlhf, settings: tfrlhf.losses.PPOLoss(
            mean_over="responses", kl_weight=settings.kl_weight
        ),
        kl=lambda tfrlhf, settings: tfrlhf.FixedKL(0.0),
        **SEVERAL,
    ),
    "Dr. GRPO": critic_free(
        "GRPO",
        3e-4,
        loss=of_loss(mean_over="limit"),
        advantage=lambda tfrlhf, s: tfrlhf.GroupRelative(8, scale=False),
        **SEVERAL,
    ),
    "DAPO": critic_free(
        "GRPO", 3e-4, loss=of_loss(clip=(0.2, 0.28)), **SEVERAL
    ),
    "GSPO": critic_free(
        "GRPO",
        3e-4,
        loss=of_loss(clip=0.03, level="sequence", mean_over="responses"),
        **SEVERAL,
    ),
    "AWR": critic_free(
        "AdvantageWeightedRegression",
        6e-4,
        advantage=lambda tfrlhf, s: tfrlhf.AdvantageWeighted(0.5),
    ),
}


def common(settings: Settings) -> dict[str, Any]:
    """Returns what all of them are compiled with."""
    import tfrlhf

    return {
        "sampler": tfrlhf.Sampler(
            settings.temperature, max_new_tokens=settings.max_new_tokens
        ),
        "kl": tfrlhf.FixedKL(settings.kl_weight),
    }


def fine_tune(run: cli.Run, settings: Settings) -> dict[str, Any]:
    """Makes the policy that every run starts from."""
    import keras

    import tfrlhf
    from tfrlhf.data import embedded

    if settings.model:
        policy = tfrlhf.Policy.from_preset(settings.model)
    else:
        examples = embedded.load(settings.seed).examples
        if settings.tiny:
            examples = examples[:256]
        policy = tfrlhf.small_policy(
            (e["prompt"] + e["response"] for e in examples),
            layers=2 if settings.tiny else 4,
        )
        sft = tfrlhf.SFT(policy, learn_prompts=True)
        epochs = 1 if settings.tiny else 7
        steps = epochs * -(-len(examples) // 32)
        sft.compile(
            keras.optimizers.AdamW(cli.cosine(3e-3, steps), weight_decay=0.1)
        )
        sft.fit(
            examples,
            batch_size=32,
            epochs=epochs,
            seed=settings.seed,
            verbose=0,
        )
    with cli.writing(run.models / "start") as directory:
        policy.save_to_preset(directory)
    return {"parameters": policy.count_params()}


def optimise(
    run: cli.Run, settings: Settings, name: str, seed: int
) -> dict[str, Any]:
    """Runs an algorithm; returns reward and KL of every iteration."""
    import numpy as np

    import tfrlhf
    from tfrlhf import callbacks
    from tfrlhf import rewards
    from tfrlhf.data import embedded

    policy = tfrlhf.Policy.from_preset(run.models / "start")
    trainer = ALGORITHMS[name](policy, rewards.courtesy, settings)
    prompts = embedded.load(settings.seed).prompts
    order = np.random.default_rng(seed).permutation(len(prompts))
    each = settings.batch_size // trainer.group_size
    wanted = [prompts[i] for i in order][: settings.iterations * each]
    curve = Curve()
    trainer.fit(
        wanted,
        batch_size=settings.batch_size,
        seed=seed,
        callbacks=[
            curve_callback(curve),
            callbacks.Progress(
                name,
                {"objective/scores": "score", "objective/kl": "KL"},
                console,
            ),
            callbacks.TensorBoard(run.logs / f"{name}-{seed}"),
        ],
        verbose=0,
    )
    return {"kl": curve.kl, "scores": curve.scores}


@dataclasses.dataclass
class Curve:
    """Reward and KL of every iteration."""

    kl: list[float] = dataclasses.field(default_factory=list)
    scores: list[float] = dataclasses.field(default_factory=list)


def curve_callback(curve: Curve) -> Any:
    """Returns a callback that writes a curve down."""
    import keras

    def note(batch: int, logs: dict[str, float]) -> None:
        curve.kl.append(logs["objective/kl"])
        curve.scores.append(logs["objective/scores"])

    return keras.callbacks.LambdaCallback(on_train_batch_end=note)


def smooth(values: list[float], width: int = 5) -> list[float]:
    """Returns means over windows of iterations, which sampling noise moves."""
    width = min(width, len(values))
    return [
        sum(values[i : i + width]) / width
        for i in range(len(values) - width + 1)
    ]


def at_kl(results: list[dict[str, Any]], kl: float) -> list[float] | None:
    """Returns mean and standard error over seeds of the reward at a KL.

    None where not every seed came that far.
    """
    import math

    found = []
    for result in results:
        kls, scores = smooth(result["kl"]), smooth(result["scores"])
        later = next((i for i, x in enumerate(kls) if x >= kl), None)
        if later is None:
            return None
        if later == 0:
            found.append(scores[0])
            continue
        share = (kl - kls[later - 1]) / (kls[later] - kls[later - 1])
        before, after = scores[later - 1], scores[later]
        found.append(before + share * (after - before))
    mean = sum(found) / len(found)
    spread = sum((x - mean) ** 2 for x in found) / max(len(found) - 1, 1)
    return [mean, math.sqrt(spread / len(found))]


def print_table(
    grid: list[float],
    rows: dict[str, list[list[float] | None]],
    curves: dict[str, list[Any]],
    settings: Settings,
) -> None:
    """Prints the reward at every KL and at the end."""
    table = rich.table.Table(
        title=f"Reward at equal KL, {settings.seeds} seeds "
        f"(mean ± standard error; – where a run did not come that far)"
    )
    table.add_column("")
    for kl in grid:
        table.add_column(f"{kl:g} nats", justify="right")
    table.add_column("at the end", justify="right")
    for name, cells in rows.items():
        last = [smooth(r["scores"])[-1] for r in curves[name]]
        nats = [smooth(r["kl"])[-1] for r in curves[name]]
        table.add_row(
            name,
            *(f"{c[0]:.2f} ± {c[1]:.2f}" if c else "–" for c in cells),
            f"{sum(last) / len(last):.2f} at {sum(nats) / len(nats):.1f}",
        )
    console.print(table)


def plot(path: Any, curves: dict[str, list[Any]]) -> None:
    """Draws reward over KL, a line a seed, if matplotlib is installed."""
    try:
        import matplotlib
    except ImportError:
        console.print("No plot: `pip install matplotlib` for frontier.png.")
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for index, (name, results) in enumerate(curves.items()):
        for number, result in enumerate(results):
            axes.plot(
                smooth(result["kl"]),
                smooth(result["scores"]),
                color=f"C{index}",
                label=name if number == 0 else None,
                linewidth=1.2,
            )
    axes.set_xlabel("KL to the start (nats)")
    axes.set_ylabel("reward")
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    console.print(f"[bold]plot[/] {path}")


if __name__ == "__main__":
    cli.main(main, Settings)
