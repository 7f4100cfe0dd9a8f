"""KerasHub backbones as parts: cloned, written and read without loss.

KerasHub leaves `tie_word_embeddings` out of the config of its Llama backbones,
so that a saved or cloned model with tied embeddings would not load. These
functions put it back.
"""

import json
import pathlib
from typing import Any

import keras
import keras_hub

# A model that is none of KerasHub's, in Keras' own format.
MODEL_FILE = "model.keras"


def clone_backbone(backbone: keras.Model) -> keras.Model:
    """Builds a second backbone with the same weights.

    Args:
        backbone: a KerasHub `Backbone`.

    Returns:
        A new backbone of the same class; no variable is shared.
    """
    config = backbone.get_config() | _missing_config(backbone)
    copy = type(backbone).from_config(config)
    copy_weights(backbone, copy)
    return copy


def clone_causal_lm(model: keras.Model) -> keras.Model:
    """Builds a second language model with the same weights.

    Args:
        model: a KerasHub `CausalLM`, or any Keras model that
            `keras.models.clone_model` copies.

    Returns:
        A new model; no variable is shared.
    """
    if isinstance(model, keras_hub.models.CausalLM):
        return type(model)(
            backbone=clone_backbone(model.backbone), preprocessor=None
        )
    copy = keras.models.clone_model(model)
    copy_weights(model, copy)
    return copy


def copy_weights(source: keras.Model, target: keras.Model) -> None:
    """Assigns every weight of `source` to the same weight of `target`."""
    for new, old in zip(target.weights, source.weights, strict=True):
        new.assign(old)


def write_preset(model: keras.Model, directory: pathlib.Path) -> None:
    """Writes a KerasHub task or backbone that KerasHub reads back.

    Any other Keras model is written as `model.keras`.

    Args:
        model: a `CausalLM` (its preprocessor is not written) or `Backbone`, or
            a Keras model that `model.save` writes.
        directory: where to; made if it does not exist.
    """
    kerashub = (keras_hub.models.Task, keras_hub.models.Backbone)
    if not isinstance(model, kerashub):
        model.save(directory / MODEL_FILE)
        return
    model.save_to_preset(str(directory))
    is_task = isinstance(model, keras_hub.models.Task)
    missing = _missing_config(model.backbone if is_task else model)
    if not missing:
        return
    config_path = directory / "config.json"
    config = json.loads(config_path.read_text())
    config["config"].update(missing)
    config_path.write_text(json.dumps(config, indent=4))
    if is_task:
        task_path = directory / "task.json"
        task = json.loads(task_path.read_text())
        task["config"]["backbone"]["config"].update(missing)
        task_path.write_text(json.dumps(task, indent=4))


def read_causal_lm(directory: pathlib.Path) -> keras.Model:
    """Reads what `write_preset` wrote of a language model."""
    if (directory / MODEL_FILE).exists():
        return keras.saving.load_model(directory / MODEL_FILE, compile=False)
    return keras_hub.models.CausalLM.from_preset(
        str(directory), preprocessor=None
    )


def _missing_config(backbone: keras.Model) -> dict[str, Any]:
    tied = backbone.token_embedding.tie_weights
    if "tie_word_embeddings" in backbone.get_config() or not isinstance(
        backbone, keras_hub.models.LlamaBackbone
    ):
        return {}
    return {"tie_word_embeddings": tied}
