"""Writes a policy or a reward model as a SavedModel that TF Serving loads.

What the signatures compute is in `served_policy.py` and `served_reward.py`;
here they are traced into core ops, bound to raw variables and put in place in
one step.
"""

import contextlib
import pathlib
import secrets
import shutil
import warnings
from collections.abc import Iterator
from collections.abc import Sequence

import tensorflow as tf
from keras.src.backend.tensorflow import core as keras_core

from tfrlhf.export.graph_tokenizer import GraphTokenizer
from tfrlhf.export.graph_tokenizer import UnsupportedTokenizer
from tfrlhf.export.served_policy import IdPolicy
from tfrlhf.export.served_policy import TextPolicy
from tfrlhf.export.served_reward import IdReward
from tfrlhf.export.served_reward import TextReward
from tfrlhf.models import Policy
from tfrlhf.models import RewardModel
from tfrlhf.models import Sampler
from tfrlhf.types import Tensor

DEFAULT_MAX_NEW_TOKENS = 64


def write_saved_model(
    model: Policy | RewardModel,
    directory: str | pathlib.Path,
    *,
    max_new_tokens: int | None = None,
    sampler: Sampler | None = None,
) -> None:
    """Writes a SavedModel with tokenizer, decode loop and scoring inside.

    A policy answers `serving_default` (prompts) and `generate` (prompts and
    sampling settings), a reward model `score` (prompts, responses), which is
    its `serving_default` too. Where the tokenizer cannot be put in the graph
    exactly, it answers `generate_ids` or `score_ids` alone, and a warning says
    so. A request that breaks a limit is an error that names it.

    Args:
        model: `Policy` or `RewardModel`.
        directory: where to; TF Serving wants a version number as its last
            part. It is complete or not there.
        max_new_tokens: the longest response of `serving_default`; None takes
            the sampler's, else 64.
        sampler: how `serving_default` samples, other numbers at each request;
            None is greedy. Its stop tokens are those of every signature.

    Raises:
        ValueError: the directory is not empty, or a setting does not fit.

    Example:
        >>> write_saved_model(policy, "savedmodels/policy/1")
    """
    directory = pathlib.Path(directory)
    if directory.exists() and (
        not directory.is_dir() or any(directory.iterdir())
    ):
        raise ValueError(
            f"{str(directory)!r} exists already: give a new directory, such "
            "as the next version number."
        )
    if not isinstance(model, (Policy, RewardModel)):
        raise ValueError(
            "`model` must be a Policy or a RewardModel. Received: "
            f"{type(model).__name__}"
        )
    tokenizer = _graph_tokenizer(model)
    served = _served(model, tokenizer, max_new_tokens, sampler)
    with core_slice_update():
        signatures = {
            name: function.get_concrete_function()
            for name, function in served.signatures().items()
        }
    module = tf.Module()
    module.tokenizer = tokenizer
    # The loaders of a session do not restore variables that are found through
    # Keras layers.
    module.weights = [weight.value for weight in model.weights]
    _save(module, directory, signatures)


@contextlib.contextmanager
def core_slice_update() -> Iterator[None]:
    """Has `keras.ops.slice_update` traced into a core op.

    Keras' own is `XlaDynamicUpdateSlice`, for which TF Serving need not have a
    kernel (https://github.com/tensorflow/serving/issues/2217).
    """
    original = keras_core.slice_update
    keras_core.slice_update = _slice_update
    try:
        yield
    finally:
        keras_core.slice_update = original


def _slice_update(
    inputs: Tensor, start_indices: Sequence[Tensor], updates: Tensor
) -> Tensor:
    start = tf.stack([tf.cast(index, tf.int32) for index in start_indices])
    return tf.raw_ops.TensorStridedSliceUpdate(
        input=inputs,
        begin=start,
        end=start + tf.shape(updates),
        strides=tf.ones_like(start),
        value=updates,
    )


def _served(
    model: Policy | RewardModel,
    tokenizer: GraphTokenizer | None,
    max_new_tokens: int | None,
    sampler: Sampler | None,
) -> IdPolicy | IdReward:
    if isinstance(model, Policy):
        sampler = sampler or Sampler(temperature=0.0)
        if tokenizer is None:
            return IdPolicy(model, sampler)
        if max_new_tokens is None:
            max_new_tokens = sampler.max_new_tokens or DEFAULT_MAX_NEW_TOKENS
        return TextPolicy(model, tokenizer, sampler, max_new_tokens)
    if max_new_tokens is not None or sampler is not None:
        raise ValueError(
            "`max_new_tokens` and `sampler` are settings of a policy: leave "
            "them out for a reward model."
        )
    if tokenizer is None:
        return IdReward(model)
    return TextReward(model, model.need_tokenizer(), tokenizer)


def _graph_tokenizer(model: Policy | RewardModel) -> GraphTokenizer | None:
    reason = "the model has no tokenizer."
    if model.tokenizer is not None:
        try:
            return GraphTokenizer(model.tokenizer)
        except UnsupportedTokenizer as error:
            reason = str(error)
    warnings.warn(
        f"The SavedModel will take token ids, not text: {reason}", stacklevel=3
    )
    return None


def _save(
    module: tf.Module, directory: pathlib.Path, signatures: dict[str, Tensor]
) -> None:
    """Writes beside the directory first: a server may be watching it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    # Not a number, so that no server takes it for a version.
    name = f".{directory.name}.{secrets.token_hex(4)}"
    temporary = directory.with_name(name)
    try:
        tf.saved_model.save(module, str(temporary), signatures)
        temporary.rename(directory)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
