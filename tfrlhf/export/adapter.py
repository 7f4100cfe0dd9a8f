"""Adapters alone, in the directory that PEFT on PyTorch loads."""

import functools
import json
import pathlib
import warnings
from typing import Any

import numpy as np

from tfrlhf.export.transformers import check_family
from tfrlhf.export.transformers import has_own_padding
from tfrlhf.export.transformers import score_parts
from tfrlhf.models import Policy
from tfrlhf.models import RewardModel
from tfrlhf.models import adapters
from tfrlhf.models.peft_adapters import CONFIG_FILE
from tfrlhf.models.peft_adapters import PREFIX
from tfrlhf.models.peft_adapters import WEIGHTS_FILE
from tfrlhf.models.peft_adapters import to_peft
from tfrlhf.models.transformers_names import names_of
from tfrlhf.models.transformers_writer import Source
from tfrlhf.models.transformers_writer import write_safetensors


def write_adapter(
    model: Policy | RewardModel,
    directory: str | pathlib.Path,
    base: str | None = None,
) -> None:
    """Writes the adapter of a model as PEFT does, without the weights below.

    Over the model that the adapter was trained on, PEFT computes the logits
    of the policy. Of a reward model the directory has `score.weight` too, for
    an `AutoModelForSequenceClassification` with `num_labels=1`; that layer
    has no bias, so scores there are lower by a constant, which a warning says.

    Query, key and value of GPT-2 are one module, `c_attn`: n of them with
    rank r become one adapter of rank n·r that computes the same.

    Args:
        model: with an adapter, over a model that `write_transformers` takes.
        directory: where to; made if it does not exist. Its
            adapter_config.json and adapter_model.safetensors are replaced.
        base: name or path of the model below, for PEFT's classes that load
            both; None leaves it to the reader.

    Raises:
        ValueError: there is no adapter, or PEFT cannot hold it.

    Example:
        >>> policy.enable_lora(8)
        >>> write_adapter(policy, "adapter", base="Qwen/Qwen2.5-0.5B")
        >>> # with PyTorch: PeftModel.from_pretrained(base_model, "adapter")
    """
    backbone = check_family(model)
    found = to_peft(adapters.need(model), backbone)
    tensors = dict(found.tensors)
    saved = None
    if isinstance(model, RewardModel):
        tensors[f"{PREFIX}score.weight"] = _score(model)
        saved = ["score"]
    config = {
        "peft_type": "LORA",
        "task_type": "SEQ_CLS" if saved else "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": found.rank,
        "lora_alpha": found.alpha,
        "target_modules": found.targets,
        "modules_to_save": saved,
        "fan_in_fan_out": not names_of(backbone).transposed,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
    directory = pathlib.Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    sources = {
        name: Source(
            "float32", tensor.shape, functools.partial(np.asarray, tensor)
        )
        for name, tensor in tensors.items()
    }
    write_safetensors(directory / WEIGHTS_FILE, sources)
    text = json.dumps(config, indent=2)
    (directory / CONFIG_FILE).write_text(text, encoding="utf-8")


def _score(model: RewardModel) -> Any:
    """The head's weights, where transformers reads the same position."""
    if not has_own_padding(model):
        raise ValueError(
            "The adapter of this reward model cannot be written alone: its "
            "tokenizer pads with a token that is also something else, and "
            "transformers reads the score before the padding. Write the whole "
            "model, by `write_transformers`."
        )
    weight, bias = score_parts(model)
    if bias:
        warnings.warn(
            "transformers has no bias beside `score.weight`, so its scores "
            f"are the model's minus {bias:.6g}.",
            stacklevel=3,
        )
    return weight
