"""Adapters as PEFT keeps them: adapter_config.json and its tensors.

PEFT adds (lora_alpha / r)·x·Aᵀ·Bᵀ with A [r, inputs] and B [outputs, r]; its
modules have the names of `transformers_names.py`.
"""

import math
import pathlib
from typing import Any
from typing import NamedTuple

import keras
import numpy as np
import numpy.typing as npt
import safetensors

from tfrlhf.models.adapters import Adapter
from tfrlhf.models.transformers_fields import Fields
from tfrlhf.models.transformers_fields import read_json
from tfrlhf.models.transformers_weights import weight_map

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."

Array = npt.NDArray[Any]

# What does not change the numbers, and what is read by its name below.
_KNOWN = frozenset(
    """
    auto_mapping base_model_name_or_path bias corda_config eva_config
    exclude_modules fan_in_fan_out inference_mode init_lora_weights
    layers_pattern loftq_config lora_alpha lora_dropout megatron_config
    megatron_core peft_type peft_version qalora_group_size r revision
    runtime_config target_modules task_type use_rslora
    """.split()
)
# The ways to begin that leave the weights of the base model alone.
_BEGINNINGS = (True, False, "gaussian", "orthogonal", "eva")


class PeftAdapter(NamedTuple):
    """An adapter in PEFT's terms.

    Attributes:
        rank: `r`.
        alpha: `lora_alpha`.
        targets: `target_modules`.
        tensors: float32 matrices by their names in the file.
    """

    rank: int
    alpha: float
    targets: list[str]
    tensors: dict[str, Array]


class _Slot(NamedTuple):
    """Which part of which module a kernel of KerasHub is."""

    module: str
    part: int
    parts: int


def to_peft(adapter: Adapter, backbone: keras.Model) -> PeftAdapter:
    """Lays an adapter out as PEFT does.

    GPT-2 keeps query, key and value in one module, `c_attn`. The adapters of
    n of them become one of rank n·r: their A below each other, their B in
    blocks. All modules then have that rank, the others filled up with zeros,
    because not every program reads a rank of single modules.

    Args:
        adapter: of the backbone.
        backbone: of a family that `Policy.from_preset` reads.

    Returns:
        `PeftAdapter`.

    Raises:
        ValueError: the backbone is of another family.
    """
    slots = _slots(backbone)
    modules: dict[str, list[tuple[_Slot, Array, Array]]] = {}
    for place, pair in zip(adapter.places(), adapter.pairs, strict=True):
        slot = slots[id(place.layer.kernel)]
        first, second = (np.asarray(w, "float32") for w in pair)
        modules.setdefault(slot.module, []).append((slot, first, second))
    most = max(len(found) for found in modules.values())
    rank = adapter.rank
    tensors = {}
    for module, found in modules.items():
        inputs, outputs = found[0][1].shape[0], found[0][2].shape[1]
        a = np.zeros((most * rank, inputs), "float32")
        b = np.zeros((found[0][0].parts * outputs, most * rank), "float32")
        for i, (slot, first, second) in enumerate(found):
            rows = slice(i * rank, (i + 1) * rank)
            a[rows] = first.T
            b[slot.part * outputs : (slot.part + 1) * outputs, rows] = second.T
        tensors[f"{PREFIX}{module}.lora_A.weight"] = a
        tensors[f"{PREFIX}{module}.lora_B.weight"] = b
    everywhere = {slot.module for slot in slots.values()}
    targets = sorted({_target(module, everywhere) for module in modules})
    return PeftAdapter(most * rank, most * adapter.alpha, targets, tensors)


def read_peft(backbone: keras.Model, directory: pathlib.Path) -> Adapter:
    """Reads an adapter that PEFT, or `export.write_adapter`, wrote.

    Args:
        backbone: the base model's, of a family that `Policy.from_preset`
            reads.
        directory: holds adapter_config.json and adapter_model.safetensors.

    Returns:
        The adapter; one of GPT-2's `c_attn` becomes three.

    Raises:
        ValueError: a field that is not honoured here, or tensors that are not
            those of the backbone.
    """
    slots = _slots(backbone)
    fields = _checked_fields(directory / CONFIG_FILE)
    rank = fields.size("r")
    scale = math.sqrt(rank) if fields.flag("use_rslora", False) else 1.0
    path = directory / WEIGHTS_FILE
    tensors = _read_tensors(path)
    layers = _adapted_layers(path, backbone, tensors)
    alpha = fields.number("lora_alpha") * scale
    try:
        adapter = Adapter(backbone, rank, alpha, layers)
    except ValueError as error:
        raise ValueError(f"{path} cannot be loaded: {error}") from error
    for place, pair in zip(adapter.places(), adapter.pairs, strict=True):
        module, part, parts = slots[id(place.layer.kernel)]
        inputs, outputs = place.sizes()
        a = _tensor(path, tensors, f"{module}.lora_A", (rank, inputs))
        b = _tensor(path, tensors, f"{module}.lora_B", (outputs * parts, rank))
        pair[0].assign(a.T)
        pair[1].assign(b[part * outputs : (part + 1) * outputs].T)
    return adapter


def _modules(backbone: keras.Model) -> dict[str, tuple[keras.Variable, ...]]:
    """The kernels of the linear layers by the names of PyTorch's modules."""
    return {
        entry.name.removesuffix(".weight"): entry.variables
        for entry in weight_map(backbone)
        if entry.variables[0].path.endswith("/kernel")
    }


def _slots(backbone: keras.Model) -> dict[int, _Slot]:
    return {
        id(variable): _Slot(module, part, len(variables))
        for module, variables in _modules(backbone).items()
        for part, variable in enumerate(variables)
    }


def _target(module: str, modules: set[str]) -> str:
    """The shortest end of a module's name that only its like have."""
    *_, parent, name = module.split(".")
    parents = {
        other.split(".")[-2] for other in modules if other.endswith(f".{name}")
    }
    return name if len(parents) == 1 else f"{parent}.{name}"


def _checked_fields(path: pathlib.Path) -> Fields:
    fields = Fields(path, read_json(path))
    if fields.get("peft_type", None) != "LORA":
        raise fields.error("peft_type", " but only 'LORA' can be loaded")
    if fields.get("bias", "none") != "none":
        raise fields.error("bias", " but only 'none' can be loaded")
    if fields.get("init_lora_weights", True) not in _BEGINNINGS:
        raise fields.error(
            "init_lora_weights",
            ", which changes the base model: let PEFT convert it to a plain "
            "LoRA first, by `save_pretrained` with "
            "`path_initial_model_for_weight_conversion`",
        )
    for name, value in fields.values.items():
        # By identity, because 0 == False, and 0 is a setting.
        unset = value is None or value is False or value in ({}, [])
        if name not in _KNOWN and not unset:
            raise fields.error(
                name,
                ", which may change what the adapter computes and is not "
                "honoured here: merge the adapter with PEFT, and load the "
                "merged model",
            )
    return fields


def _read_tensors(path: pathlib.Path) -> dict[str, Array]:
    if not path.exists():
        raise ValueError(
            f"{path} is missing: let PEFT save the adapter as safetensors."
        )
    try:
        with safetensors.safe_open(str(path), "numpy") as file:
            return {
                name: np.asarray(file.get_tensor(name), "float32")
                for name in file.keys()
            }
    except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(
            f"{path} is not a safetensors file, or not all of it: {error}."
        ) from error


def _adapted_layers(
    path: pathlib.Path, backbone: keras.Model, tensors: dict[str, Array]
) -> list[str]:
    """The names of KerasHub's layers of which a file has matrices."""
    modules = _modules(backbone)
    layers: dict[str, None] = {}
    for name in tensors:
        module, _, kind = name.removeprefix(PREFIX).partition(".lora_")
        if kind not in ("A.weight", "B.weight") or module not in modules:
            raise ValueError(
                f"`{name}` of {path} has no place in this model: only "
                "matrices of its attention and feed-forward layers can be "
                "loaded."
            )
        for variable in modules[module]:
            layers[variable.path.split("/")[-2]] = None
    return list(layers)


def _tensor(
    path: pathlib.Path,
    tensors: dict[str, Array],
    name: str,
    shape: tuple[int, int],
) -> Array:
    name = f"{PREFIX}{name}.weight"
    if name not in tensors:
        raise ValueError(
            f"`{name}` is missing in {path}: the adapter must be of the same "
            "modules in every layer."
        )
    tensor = tensors[name]
    if tensor.shape != shape:
        raise ValueError(
            f"`{name}` of {path} has shape {tensor.shape} but this model with "
            f"the `r` of {CONFIG_FILE} asks for {shape}."
        )
    if not np.isfinite(tensor).all():
        raise ValueError(
            f"`{name}` of {path} has weights that are NaN or infinite: take a "
            "sound adapter."
        )
    return tensor
