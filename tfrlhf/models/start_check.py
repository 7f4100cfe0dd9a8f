"""What a trainer makes sure of before its first step.

Faults that would not stop a run, only spoil it: each is an error here, with
what is wrong and where. Nothing is changed by looking.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any

import keras
import keras_hub
import numpy as np
import tensorflow as tf

from tfrlhf.models.compilation import give_back
from tfrlhf.types import Tensor

# Rows of the first batch that are looked at.
ROWS = 4
# Runs that differ only in what must not matter agree better than this.
TOLERANCE = 1e-4


class SetupError(ValueError):
    """A trainer was set up in a way that training would go wrong."""


def check_learner(model: Any, dataset: tf.data.Dataset) -> None:
    """Looks at a few rows of the first batch; changes nothing.

    Two passes through the compiled function that training goes on to use.

    Args:
        model: a `TrainableModel`.
        dataset: batches of carriers.

    Raises:
        SetupError: nothing to train or to learn from, losses or gradients
            that are not finite, or a model that sees what it must not.
    """
    check_trainable(model.name, model.learner_variables())
    model.trace_gradients(dataset)
    for batch in dataset.take(1):
        chosen = heaviest_rows(model.batch_weights(batch))
        rows = type(batch)(*(tf.gather(x, chosen) for x in batch))
        part, irrelevant = model.counted_part(rows)
        _check_part(model, part, irrelevant)


def _check_part(model: Any, part: Any, irrelevant: dict[str, Tensor]) -> None:
    count = tf.reduce_sum(model.batch_weights(part))

    def losses(token_ids: Tensor) -> dict[str, Tensor]:
        changed = part._replace(token_ids=token_ids)
        means, norms = probe(model, changed, count)
        check_reached(norms)
        return {"The losses": tf.stack(list(means.values()))}

    check_independence(losses, part.token_ids, irrelevant)


def check_trainable(name: str, variables: Sequence[Any]) -> None:
    """Refuses a trainer that has nothing to learn with.

    Args:
        name: of the trainer, for the message.
        variables: its trainable variables.

    Raises:
        SetupError: there are none.
    """
    if not variables:
        raise SetupError(
            f"The model that `{name}` trains has no trainable variable: set "
            "`trainable = True` on it."
        )


def heaviest_rows(weights: Tensor) -> np.ndarray:
    """Chooses rows in which much counts.

    Args:
        weights: float32 [B] or [B, S].

    Returns:
        Row numbers, int64, `ROWS` at the most, in order.

    Raises:
        SetupError: no row has any weight.
    """
    weights = np.asarray(weights)
    totals = weights.reshape(len(weights), -1).sum(axis=1)
    if not totals.sum() > 0:
        raise SetupError(
            "Nothing counts in the first batch: its weights or its loss mask "
            "are all 0."
        )
    return np.sort(np.argsort(-totals, kind="stable")[:ROWS])


def check_vocabulary(backbone: keras.Model, tokenizer: Any) -> None:
    """Refuses a tokenizer with more tokens than the model has embeddings.

    Args:
        backbone: a Keras model; looked at if its config has a
            `vocabulary_size`, as KerasHub's have.
        tokenizer: `Tokenizer` or None.

    Raises:
        SetupError: some of the tokenizer's ids have no embedding.
    """
    if tokenizer is None or not isinstance(backbone, keras_hub.models.Backbone):
        return
    size = backbone.get_config().get("vocabulary_size", float("inf"))
    if tokenizer.vocabulary_size > size:
        raise SetupError(
            f"The tokenizer has {tokenizer.vocabulary_size} tokens, but the "
            f"model embeds only {size}: they do not belong together."
        )


def check_finite(
    name: str, values: Tensor, mask: Tensor, model: Any = None
) -> None:
    """Refuses numbers that are not finite.

    Args:
        name: what the numbers are, for the message.
        values: float32 [B] or [B, S].
        mask: int32 of the same shape, 1 where a number counts.
        model: the Keras model that they come from, searched for the weight
            that is to blame.

    Raises:
        SetupError: one of them is NaN or infinite.
    """
    values, mask = np.asarray(values), np.asarray(mask)
    bad = np.argwhere((mask > 0) & ~np.isfinite(values))
    if len(bad):
        place = ("row", "position")[: values.ndim]
        where = ", ".join(
            f"{axis} {i}" for axis, i in zip(place, bad[0], strict=True)
        )
        raise SetupError(
            f"{name} must be finite: {values[tuple(bad[0])]} in {where} of the "
            f"first batch.{_blamed_weight(model)}"
        )


def probe(
    model: Any, batch: Any, count: Tensor
) -> tuple[dict[str, Tensor], list[float]]:
    """Computes losses and gradients, and refuses those that are not finite.

    Args:
        model: a `TrainableModel`.
        batch: a carrier, or its per-replica values.
        count: float32 scalar, the sum of the weights of the whole batch.

    Returns:
        The means of loss and metrics, and the norm of the gradient of every
        variable.

    Raises:
        SetupError: the loss or a gradient is not finite.
    """
    gradients, sums = without_draws(
        model, lambda: model.gradients_and_sums(batch, count)
    )
    give_back()
    means = {
        name: tf.math.divide_no_nan(total, weight)
        for name, (total, weight) in sums.items()
    }
    loss = float(means[model.loss_name])
    if not np.isfinite(loss):
        raise SetupError(
            f"The loss of the first batch is {loss}: look for extreme numbers "
            f"in the weights and the data.{_blamed_weight(model)}"
        )
    norms = [float(tf.norm(gradient)) for gradient in gradients]
    variables = model.learner_variables()
    for norm, variable in zip(norms, variables, strict=True):
        if not np.isfinite(norm):
            raise SetupError(
                f"The gradient of `{variable.path}` is not finite on the first "
                "batch, though its loss is: the step would ruin the weights."
            )
    return means, norms


def check_reached(norms: Sequence[float]) -> None:
    """Refuses a loss that no variable has a part in.

    Args:
        norms: of the gradients of all variables.

    Raises:
        SetupError: all are 0.
    """
    if not any(norms):
        raise SetupError(
            f"The loss of the first batch does not depend on any of the "
            f"{len(norms)} trainable variables: no gradient reaches them."
        )


def check_independence(
    measure: Callable[[Tensor], dict[str, Tensor]],
    token_ids: Tensor,
    irrelevant: dict[str, Tensor],
) -> None:
    """Refuses numbers that depend on tokens which are not theirs to see.

    Args:
        measure: from token_ids to float tensors that must not change, by what
            they are ("the scores").
        token_ids: int32 [..., S].
        irrelevant: bool tensors like token_ids, True where a token must not
            matter, by what these tokens are ("the padding"); the first that
            is to blame is named.

    Raises:
        SetupError: other tokens there give other numbers.
    """
    # The batch's own ids in another order: all of them are in the vocabulary.
    others = tf.reverse(token_ids, axis=[0, -1])
    # Padding is often turned into padding: the first token instead.
    others = tf.where(others == token_ids, others[..., -1:], others)
    expected = {n: np.asarray(x) for n, x in measure(token_ids).items()}

    def moved(places: Tensor) -> set[str]:
        received = measure(tf.where(places, others, token_ids))
        return {n for n, x in expected.items() if not _agree(x, received[n])}

    everywhere = np.any([np.asarray(p) for p in irrelevant.values()], axis=0)
    names = " and ".join(sorted(moved(everywhere)))
    if not names:
        return
    if moved(tf.zeros_like(everywhere)):
        raise SetupError(
            f"{names} differ between two passes over the same tokens: is there "
            "dropout, or anything else random, that stays on?"
        )
    guilty = [what for what, places in irrelevant.items() if moved(places)]
    raise SetupError(
        f"{names} depend on {[*guilty, *irrelevant][0]}: the model must be "
        "causal, respect its padding mask and treat rows apart."
    )


def first_half(mask: Tensor) -> Tensor:
    """Keeps the first half of what a mask counts, in the first half of rows.

    Args:
        mask: int32 [B, S].

    Returns:
        bool [B, S]; of an odd number the larger half.
    """
    count = tf.reduce_sum(mask, axis=-1, keepdims=True)
    so_far = tf.cumsum(mask, axis=-1)
    return (mask > 0) & (2 * so_far <= count + 1) & first_rows(mask)


def first_rows(x: Tensor) -> Tensor:
    """Tells the first half of the rows: bool like `x`, the larger half."""
    rows = tf.shape(x)[0]
    index = tf.reshape(tf.range(rows), [-1] + [1] * (x.shape.rank - 1))
    return tf.broadcast_to(2 * index <= rows - 1, tf.shape(x))


def up_to_last(mask: Tensor) -> Tensor:
    """Tells the positions up to the last one that counts, bool [B, S]."""
    counted = tf.cast(mask, tf.int32)
    return tf.cumsum(counted, axis=-1, reverse=True) > 0


def without_draws(model: keras.Model, function: Callable[[], Any]) -> Any:
    """Calls a function and puts the model's random state back after it."""
    seeds = [v for v in model.variables if "seed" in v.path]
    states = [np.asarray(v) for v in seeds]
    try:
        return function()
    finally:
        for variable, state in zip(seeds, states, strict=True):
            variable.assign(state)


def _agree(expected: np.ndarray, received: Tensor) -> bool:
    gap = np.abs(np.asarray(received) - expected)
    return bool((gap <= TOLERANCE * (1.0 + np.abs(expected))).all())


def _blamed_weight(model: Any) -> str:
    for weight in [] if model is None else model.weights:
        values = np.asarray(weight)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            return f" The weight `{weight.path}` holds such a number."
    return ""
