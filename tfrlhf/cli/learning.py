"""What recipes do alike before their own algorithm has its turn."""

from collections.abc import Iterable
from collections.abc import Sequence
from typing import Any

from tfrlhf.cli.run import Run


def cosine(rate: float, steps: int) -> Any:
    """Returns a learning rate that warms up and falls to a twentieth.

    Args:
        rate: the largest one.
        steps: of the optimizer, warm-up included.
    """
    import keras

    return keras.optimizers.schedules.CosineDecay(
        0.0,
        steps,
        alpha=0.05,
        warmup_target=rate,
        warmup_steps=max(1, min(40, steps // 10)),
    )


def repeated(records: Sequence[Any], count: int) -> list[Any]:
    """Returns so many records, all of them before any a second time.

    `fit` of PPO and its kin passes once over its prompts: this makes as many
    of them as the iterations take.

    Args:
        records: at least one.
        count: how many to return.
    """
    return [records[i % len(records)] for i in range(count)]


def start_policy(
    model: str | None, texts: Iterable[str], **options: Any
) -> Any:
    """Loads the policy to start from, or makes a small random one.

    Args:
        model: directory or KerasHub preset; None for a small one.
        texts: what the small one's tokenizer is trained on.
        **options: of `tfrlhf.small_policy`.

    Returns:
        The `tfrlhf.Policy`.
    """
    from tfrlhf.models import Policy
    from tfrlhf.models import small_policy

    if model:
        return Policy.from_preset(model)
    return small_policy(texts, **options)


def fine_tune(
    run: Run,
    policy: Any,
    examples: Any,
    *,
    rate: float,
    epochs: int = 1,
    batch_size: int = 32,
    weight_decay: float = 0.1,
    learn_prompts: bool = True,
    stage: str = "sft",
) -> list[float]:
    """Fine-tunes a policy by AdamW and `cosine`, watched and seeded by a run.

    Args:
        run: the run.
        policy: the `tfrlhf.Policy`, trained in place and not saved.
        examples: what `tfrlhf.SFT.fit` takes.
        rate: the largest learning rate.
        epochs: passes over the examples.
        batch_size: examples a step.
        weight_decay: of AdamW.
        learn_prompts: whether prompts are learnt too, as a model from nothing
            has to.
        stage: names the progress line and the log.

    Returns:
        The loss of each epoch, in nats a token.
    """
    import keras

    from tfrlhf.trainers import SFT

    sft = SFT(policy, learn_prompts=learn_prompts)
    # Of a carrier the length would be that of the tuple.
    count = len(getattr(examples, "token_ids", examples))
    decay = cosine(rate, epochs * -(-count // batch_size))
    sft.compile(keras.optimizers.AdamW(decay, weight_decay=weight_decay))
    history = run.fit(
        sft,
        examples,
        stage,
        {"loss": "nats/token"},
        batch_size=batch_size,
        epochs=epochs,
    )
    return history["loss"]


def embedded_policy(run: Run, model: str | None) -> Any:
    """Loads a policy, or makes a small one that answers the embedded task.

    That takes seven epochs of 3,477 examples, or one of 256 in a tiny run.

    Args:
        run: the run.
        model: directory or KerasHub preset; None for the small one.

    Returns:
        The `tfrlhf.Policy`, not saved.
    """
    from tfrlhf.data import embedded

    tiny = run.settings.tiny
    examples = embedded.load(run.settings.seed).examples
    if tiny:
        examples = examples[:256]
    texts = (e["prompt"] + e["response"] for e in examples)
    policy = start_policy(model, texts, layers=2 if tiny else 4)
    if model is None:
        fine_tune(run, policy, examples, rate=3e-3, epochs=1 if tiny else 7)
    return policy


def learn_reward(
    run: Run,
    policy: Any,
    pairs: Sequence[dict[str, Any]],
    *,
    epochs: int,
    rate: float = 5e-4,
    stage: str = "reward",
) -> Any:
    """Trains a reward model on comparisons, by Adam and `cosine`.

    Args:
        run: the run.
        policy: the `tfrlhf.Policy` whose weights it starts from.
        pairs: records {"prompt", "chosen", "rejected"}.
        epochs: passes over the pairs, 32 a step.
        rate: the largest learning rate.
        stage: names the progress line and the log.

    Returns:
        The `tfrlhf.RewardModel`, not normalised and not saved.
    """
    import keras

    from tfrlhf.models import RewardModel

    reward = RewardModel.from_policy(policy)
    steps = epochs * -(-len(pairs) // 32)
    reward.compile(keras.optimizers.Adam(cosine(rate, steps)))
    run.fit(
        reward,
        pairs,
        stage,
        {"loss": "loss", "accuracy": "accuracy"},
        batch_size=32,
        epochs=epochs,
    )
    return reward
