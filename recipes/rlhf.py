"""From text and human preferences to an aligned model in a SavedModel.

    python recipes/rlhf.py                      the embedded task
    python recipes/rlhf.py --model DIR --prompts prompts.jsonl \
        --preferences pairs.jsonl --examples examples.jsonl

Stages: supervised fine-tuning, reward model, PPO, evaluation, export. A run
that was interrupted goes on from its finished stages.
"""

import dataclasses
import pathlib
from typing import Any
from typing import NamedTuple

from tfrlhf import cli
from tfrlhf.cli import console


@dataclasses.dataclass
class Settings(cli.SamplingSettings):
    """What to align, on what data, for how long."""

    model: str | None = None
    """Model directory or KerasHub preset; a small GPT-2 if not given."""
    examples: pathlib.Path | None = None
    """JSONL of {"prompt", "response"} to fine-tune on first."""
    preferences: pathlib.Path | None = None
    """JSONL of {"prompt", "chosen", "rejected"} for the reward model."""
    prompts: pathlib.Path | None = None
    """JSONL of {"prompt"}; a part of at least 200 is held out."""
    reward: str = "model"
    """What PPO optimises: model (learned) or module:function."""
    gold: str | None = None
    """module:function that measures; never shown to PPO unless --reward."""
    sft_epochs: int = 7
    reward_epochs: int = 1
    ppo_iterations: int = 36
    """Rollouts of batch_size episodes."""
    batch_size: int = 64
    learning_rate: float = 1.5e-4
    """Of the policy in PPO."""
    value_learning_rate: float = 1e-3
    """Of the value model, which has to keep up."""
    kl_weight: float = 0.05
    """Weight of the KL penalty, the first one if it adapts."""
    kl_target: float | None = None
    """Nats that the KL weight adapts to; it is fixed if not given."""


class Data(NamedTuple):
    """The records of a run."""

    examples: list[dict[str, Any]]
    preferences: list[dict[str, Any]]
    held_out_preferences: list[dict[str, Any]]
    prompts: list[Any]
    held_out_prompts: list[Any]


def main(settings: Settings) -> None:
    """Aligns a language model with human preferences."""
    if settings.tiny:
        settings = shrunk(settings)
    check(settings)
    run = cli.Run("rlhf", settings)

    import keras

    keras.utils.set_random_seed(settings.seed)
    data = load_data(settings)
    strategy = cli.make_strategy(settings.strategy)
    if settings.model and not run.stages:
        check_data(settings, data)

    # 1. A policy that can answer: from scratch, or the user's own.
    with strategy.scope():
        run.stage(
            "sft",
            "Supervised fine-tuning",
            lambda: fine_tune(run, settings, data),
        )

    # 2. A reward model that has learned what people prefer.
    learned: dict[str, Any] = {}
    if data.preferences:
        with strategy.scope():
            learned = run.stage(
                "reward",
                "Reward model",
                lambda: learn_reward(run, settings, data),
            )

    # 3. The policy learns to be preferred, near the model it started from.
    with strategy.scope():
        run.stage("ppo", "PPO", lambda: optimise(run, settings, data))

    # 4. Both policies answer prompts that neither has seen.
    measured = run.stage(
        "evaluation", "Evaluation", lambda: evaluate(run, settings, data)
    )

    # 5. What TF Serving loads.
    exports = run.stage(
        "export", "SavedModels", lambda: export(run, settings, data)
    )

    samples = measured.pop("samples")
    summary = run.write_summary(
        measured
        | {
            "reward_model_accuracy": learned.get("accuracy"),
            "reward_model_accuracy_stderr": learned.get("accuracy_stderr"),
            "exports": exports,
        }
    )
    cli.print_comparison(summary, samples, run)


def fine_tune(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Teaches the model the examples and saves it."""
    policy = cli.start_policy(
        settings.model,
        (e["prompt"] + e["response"] for e in data.examples),
        layers=2 if settings.tiny else 4,
        width=64 if settings.tiny else 128,
    )
    result = {"parameters": policy.count_params()}
    if data.examples:
        losses = cli.fine_tune(
            run,
            policy,
            data.examples,
            rate=3e-3,
            epochs=settings.sft_epochs,
            # A model from scratch has to learn the language of the prompts.
            learn_prompts=settings.model is None,
        )
        result["loss"] = losses[-1]
    run.save(policy, "sft")
    return result


def learn_reward(
    run: cli.Run, settings: Settings, data: Data
) -> dict[str, Any]:
    """Learns scores from preferences, measures and normalises them."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    reward = tfrlhf.RewardModel.from_policy(policy)
    steps = settings.reward_epochs * -(-len(data.preferences) // 32)
    decay = keras.optimizers.schedules.CosineDecay(3e-4, steps, alpha=0.1)
    reward.compile(keras.optimizers.Adam(decay))
    run.fit(
        reward,
        data.preferences,
        "reward",
        {"loss": "loss", "accuracy": "accuracy"},
        batch_size=32,
        epochs=settings.reward_epochs,
    )
    accuracy = tfrlhf.evaluation.reward_accuracy(
        reward, data.held_out_preferences
    )
    console.print(f"   accuracy on held-out preferences: {accuracy}")
    # Samples of the policy score mean 0 and deviation 1.
    prompts = texts(data.prompts)[:256]
    responses = policy.generate(
        prompts, sampler=settings.sampler(), seed=settings.seed
    )
    reward.normalize(prompts, responses)
    run.save(reward, "reward")
    return {"accuracy": accuracy.value, "accuracy_stderr": accuracy.stderr}


def optimise(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Optimises the policy against the reward with PPO."""
    import keras

    import tfrlhf

    policy = tfrlhf.Policy.from_preset(run.models / "sft")
    reward, value = reward_and_value(run, settings, policy)
    ppo = tfrlhf.PPO(policy, reward, value)
    ppo.compile(
        keras.optimizers.Adam(settings.learning_rate, epsilon=1e-5),
        sampler=settings.sampler(),
        kl=(
            tfrlhf.AdaptiveKL(settings.kl_target, settings.kl_weight)
            if settings.kl_target
            else tfrlhf.FixedKL(settings.kl_weight)
        ),
        value_optimizer=keras.optimizers.Adam(
            settings.value_learning_rate, epsilon=1e-5
        ),
        minibatches=2,
    )
    # One pass over as many prompts as the iterations take.
    wanted = settings.ppo_iterations * settings.batch_size
    run.fit(
        ppo,
        cli.repeated(data.prompts, wanted),
        "ppo",
        batch_size=settings.batch_size,
    )
    run.save(policy, "policy")
    return {"iterations": int(ppo.state.iteration.numpy())}


def evaluate(run: cli.Run, settings: Settings, data: Data) -> dict[str, Any]:
    """Compares samples of the policy before and after PPO."""
    import tfrlhf

    before = tfrlhf.Policy.from_preset(run.models / "sft")
    after = tfrlhf.Policy.from_preset(run.models / "policy")
    score, _ = reward_and_value(run, settings, after)
    if isinstance(score, tfrlhf.RewardModel):
        score = score.as_function()
    return tfrlhf.evaluation.compare(
        before,
        after,
        texts(data.held_out_prompts),
        settings.sampler(),
        score,
        gold_function(settings) or score,
        settings.seed,
    )


def export(run: cli.Run, settings: Settings, data: Data) -> dict[str, str]:
    """Writes the SavedModels of policy and reward model."""
    import tfrlhf

    paths = {"policy": run.exports / "policy" / "1"}
    policy = tfrlhf.Policy.from_preset(run.models / "policy")
    with cli.writing(paths["policy"]) as directory:
        tfrlhf.export.write_saved_model(
            policy, directory, max_new_tokens=settings.max_new_tokens
        )
    if data.preferences:
        paths["reward"] = run.exports / "reward" / "1"
        reward = tfrlhf.RewardModel.from_preset(run.models / "reward")
        with cli.writing(paths["reward"]) as directory:
            tfrlhf.export.write_saved_model(reward, directory)
    return {name: str(path) for name, path in paths.items()}


def load_data(settings: Settings) -> Data:
    """Reads the embedded corpus, or the user's files."""
    import numpy as np

    from tfrlhf import data
    from tfrlhf.data import embedded

    if settings.prompts is None:
        corpus = embedded.load(settings.seed)
        size = 96 if settings.tiny else None
        return Data(
            corpus.examples[: size and 4 * size],
            corpus.preferences[: size and 4 * size],
            corpus.held_out_preferences,
            corpus.prompts[:size],
            corpus.held_out_prompts,
        )
    order = np.random.default_rng(settings.seed)
    prompts = data.read_jsonl(settings.prompts)
    if len(prompts) < 2:
        raise cli.UserError(
            f"--prompts {settings.prompts} has {len(prompts)} record: at least "
            "2 are needed, one to train on and one to hold out."
        )
    order.shuffle(prompts)
    held_out = min(max(200, len(prompts) // 10), len(prompts) // 2)
    pairs = []
    if settings.preferences:
        pairs = data.read_jsonl(settings.preferences)
        order.shuffle(pairs)
    held_out_pairs = len(pairs) // 10
    return Data(
        data.read_jsonl(settings.examples) if settings.examples else [],
        pairs[held_out_pairs:],
        pairs[:held_out_pairs],
        prompts[held_out:],
        prompts[:held_out],
    )


def check_data(settings: Settings, data: Data) -> None:
    """Finds a record that would stop a later stage, before the first one."""
    import tfrlhf
    from tfrlhf import data as records

    policy = tfrlhf.Policy.from_preset(settings.model)
    tokenizer, context = policy.need_tokenizer(), policy.context_length
    prompts = data.prompts + data.held_out_prompts
    room = context - settings.max_new_tokens
    records.check_prompts(prompts, tokenizer, room)
    pairs = data.preferences + data.held_out_preferences
    if pairs:
        records.preferences(pairs, tokenizer, context)
    if data.examples:
        records.examples(data.examples, tokenizer, context)


def reward_and_value(run: cli.Run, settings: Settings, policy: Any) -> Any:
    """Returns what PPO optimises and the value model to start from."""
    import tfrlhf

    if settings.reward != "model":
        function = cli.load_function("--reward", settings.reward)
        return function, tfrlhf.ValueModel.from_policy(policy)
    reward = tfrlhf.RewardModel.from_preset(run.models / "reward")
    return reward, tfrlhf.ValueModel.from_reward(reward)


def gold_function(settings: Settings) -> Any:
    """Returns the function that measures, if there is one."""
    if settings.gold:
        return cli.load_function("--gold", settings.gold)
    if settings.prompts is None:
        from tfrlhf import rewards

        return rewards.courtesy
    return None


def texts(prompts: list[Any]) -> list[str]:
    """Returns the text of prompts, be they strings or records."""
    return [p if isinstance(p, str) else p["prompt"] for p in prompts]


def check(settings: Settings) -> None:
    """Refuses settings that do not go together, before anything is made."""
    own = (settings.model, settings.prompts)
    if any(own) != all(own):
        raise cli.UserError(
            "--model and --prompts go together: both for a model of your own, "
            "none for the embedded task."
        )
    if not any(own) and (settings.examples or settings.preferences):
        raise cli.UserError(
            "--examples and --preferences need --model and --prompts."
        )
    learned = settings.reward == "model"
    if any(own) and learned and not settings.preferences:
        raise cli.UserError(
            "--reward model needs --preferences to learn it from; or give "
            "--reward module:function."
        )
    if not learned:
        cli.load_function("--reward", settings.reward)
    if settings.gold:
        cli.load_function("--gold", settings.gold)


def shrunk(settings: Settings) -> Settings:
    """Returns settings for a run of about a minute."""
    return dataclasses.replace(
        settings, sft_epochs=2, reward_epochs=1, ppo_iterations=3, batch_size=16
    )


if __name__ == "__main__":
    cli.main(main, Settings)
