"""Hugging Face directories on disk as KerasHub models.

KerasHub's own loader passes over fields of config.json that change the
logits. Here every field is honoured, known to be harmless, or refused by name.
Knows nothing about tokenizers, and downloads nothing.
"""

import contextlib
import json
import pathlib
from typing import NamedTuple

import keras

from tfrlhf.models.peft_adapters import CONFIG_FILE
from tfrlhf.models.transformers_config import as_causal_lm
from tfrlhf.models.transformers_config import build_backbone
from tfrlhf.models.transformers_fields import read_json
from tfrlhf.models.transformers_variables import set_defaults
from tfrlhf.models.transformers_variables import without_values
from tfrlhf.models.transformers_weights import StoredWeights


class LoadedModel(NamedTuple):
    """A language model and the longest sequence it was built for.

    Attributes:
        model: KerasHub `CausalLM` without a preprocessor.
        context_length: in tokens.
    """

    model: keras.Model
    context_length: int


def is_transformers_directory(directory: str | pathlib.Path) -> bool:
    """Tells a Hugging Face directory from a KerasHub preset.

    Args:
        directory: need not exist.

    Returns:
        True where `read_causal_lm` is the one to load it, or to say what is
        wrong with it.
    """
    path = pathlib.Path(directory) / "config.json"
    if not path.exists():
        return any(path.parent.glob("*.safetensors*"))
    try:
        return "registered_name" not in json.loads(path.read_text("utf-8"))
    except ValueError:
        return True


def read_causal_lm(directory: str | pathlib.Path) -> LoadedModel:
    """Loads a model from config.json and safetensors files.

    GPT-2, Llama, Mistral, Qwen 2 and 3, Gemma 3 for text and SmolLM3. The
    logits are those of transformers; dropout is 0. Weights are read one
    tensor at a time, and become variables of Keras' dtype policy (float32 by
    default) whatever type the file holds.

    Args:
        directory: holds config.json and model.safetensors, or
            model.safetensors.index.json and its shards.

    Returns:
        The model and its context length.

    Raises:
        ValueError: a file or tensor is missing, left over or of the wrong
            shape, or config.json has a field that KerasHub cannot honour.

    Example:
        >>> read_causal_lm("stories260K").context_length
        512
    """
    directory = pathlib.Path(directory)
    path = directory / "config.json"
    if not path.exists() and (directory / CONFIG_FILE).exists():
        raise ValueError(
            f"{directory} holds an adapter without the model below it: load "
            f"that model, then call its `load_adapter({str(directory)!r})`."
        )
    config = read_json(path)
    with contextlib.ExitStack() as stack:
        weights = StoredWeights(directory, stack)
        with without_values():
            backbone, context_length = build_backbone(path, config)
        weights.fill(backbone)
    set_defaults(backbone.weights)
    return LoadedModel(as_causal_lm(backbone), context_length)
