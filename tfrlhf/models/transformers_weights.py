"""Which tensor of a Hugging Face file belongs to which KerasHub variable.

`weight_map` is the one place where the names of both libraries meet, for
reading and for writing. Knows nothing about config.json.
"""

import contextlib
import math
import pathlib
import re
from typing import Any
from typing import NamedTuple

import keras
import keras_hub
import numpy as np
import numpy.typing as npt
import safetensors

from tfrlhf.models.transformers_config import read_json

Array = npt.NDArray[Any]

_HEAD = "lm_head.weight"


class FileTensor(NamedTuple):
    """One tensor of a Hugging Face file and the variables it fills.

    Attributes:
        name: of the tensor, as transformers writes it.
        variables: of the KerasHub backbone; several where the file keeps them
            side by side on its last axis.
        shape: of the tensor in the file.
        transposed: True where the file stores [outputs, inputs].
    """

    name: str
    variables: tuple[keras.Variable, ...]
    shape: tuple[int, ...]
    transposed: bool

    def assign(self, tensor: Array) -> None:
        """Fills the variables.

        Args:
            tensor: float, of shape `shape`.
        """
        parts = np.split(tensor, len(self.variables), axis=-1)
        for variable, part in zip(self.variables, parts, strict=True):
            part = part.T if self.transposed else part
            variable.assign(part.reshape(variable.shape))


def weight_map(backbone: keras.Model) -> list[FileTensor]:
    """Lists the tensors that transformers keeps for a backbone.

    Args:
        backbone: KerasHub `GPT2Backbone`, `LlamaBackbone` or
            `Llama3Backbone`.

    Returns:
        One entry for every tensor, the embeddings first; together they cover
        every variable.

    Raises:
        ValueError: the backbone is of another family.
    """
    names = _names(backbone)
    paths = dict(names.tensors)
    for index in range(backbone.num_layers):
        for name, parts in names.layer.items():
            paths[f"{names.prefix}{names.layers}.{index}.{name}"] = tuple(
                f"transformer_layer_{index}/{part}" for part in parts
            )
    if not backbone.token_embedding.tie_weights:
        paths[_HEAD] = ("token_embedding/reverse_embeddings",)
    variables = {variable.path: variable for variable in backbone.weights}
    entries: list[FileTensor] = []
    for name, parts in paths.items():
        chosen = tuple(variables[part] for part in parts)
        # Both libraries keep the embeddings as [vocabulary, hidden].
        transposed = names.transposed and bool(entries)
        *rows, columns = _matrix_shape(chosen[0])
        shape = (*rows, columns * len(chosen))
        if transposed:
            shape = shape[::-1]
        entries.append(FileTensor(name, chosen, shape, transposed))
    return entries


class StoredWeights:
    """The tensors of a directory's safetensors files, read when asked for.

    Args:
        directory: holds model.safetensors, or model.safetensors.index.json
            and its shards.
        stack: closes the files.

    Raises:
        ValueError: a file is missing or damaged.
    """

    def __init__(
        self, directory: pathlib.Path, stack: contextlib.ExitStack
    ) -> None:
        self._path, files = _weight_files(directory)
        self._found: dict[str, Any] = {}
        for file in files:
            if not file.exists():
                raise ValueError(
                    f"{file} is missing: {self._path.name} lists it."
                )
            try:
                opened = safetensors.safe_open(str(file), "numpy")
            except safetensors.SafetensorError as error:
                raise ValueError(
                    f"{file} is not a safetensors file: {error}."
                ) from error
            handle = stack.enter_context(opened)
            self._found.update(dict.fromkeys(handle.keys(), handle))

    def fill(self, backbone: keras.Model) -> None:
        """Checks every name, shape and type, then assigns tensor by tensor.

        Args:
            backbone: KerasHub backbone of GPT-2 or Llama.

        Raises:
            ValueError: the tensors are not exactly those of the backbone.
        """
        entries = weight_map(backbone)
        names = _names(backbone)
        stored = {entry.name: entry.name for entry in entries}
        if not any(name.startswith(names.prefix) for name in self._found):
            # The file of a base model leaves the prefix out.
            stored = {n: n.removeprefix(names.prefix) for n in stored}
        self._check_names(list(stored.values()), names.buffers)
        for entry in entries:
            self._check_tensor(stored[entry.name], entry.shape)
        for entry in entries:
            entry.assign(self._read(stored[entry.name]))

    def _read(self, name: str) -> Array:
        return np.asarray(self._found[name].get_tensor(name), "float32")

    def _check_names(self, expected: list[str], buffers: str) -> None:
        missing = [name for name in expected if name not in self._found]
        if missing:
            raise ValueError(
                f"`{missing[0]}` is missing in {self._path}"
                f"{_others(missing)}: the model of its config.json needs it."
            )
        extra = [
            name
            for name in sorted(self._found.keys() - set(expected))
            if not re.search(buffers, name)
        ]
        if _HEAD in extra and np.array_equal(
            self._read(_HEAD), self._read(expected[0])
        ):
            extra.remove(_HEAD)
        if extra:
            raise ValueError(
                f"`{extra[0]}` of {self._path}{_others(extra)} has no place "
                "in the model of its config.json."
            )

    def _check_tensor(self, name: str, expected: tuple[int, ...]) -> None:
        described = self._found[name].get_slice(name)
        shape = tuple(described.get_shape())
        if shape != expected:
            raise ValueError(
                f"`{name}` of {self._path} has shape {shape} but its "
                f"config.json asks for {expected}."
            )
        dtype = described.get_dtype()
        if dtype not in ("F64", "F32", "F16", "BF16"):
            raise ValueError(
                f"`{name}` of {self._path} is stored as {dtype}: only "
                "floating-point weights can be loaded."
            )


class _Names(NamedTuple):
    """How the tensors of one family are called."""

    prefix: str
    layers: str
    transposed: bool
    tensors: dict[str, tuple[str, ...]]
    layer: dict[str, tuple[str, ...]]
    buffers: str


_GPT2 = _Names(
    prefix="transformer.",
    layers="h",
    transposed=False,
    tensors={
        "transformer.wte.weight": ("token_embedding/embeddings",),
        "transformer.wpe.weight": ("position_embedding/embeddings",),
        "transformer.ln_f.weight": ("layer_norm/gamma",),
        "transformer.ln_f.bias": ("layer_norm/beta",),
    },
    layer={
        "ln_1.weight": ("self_attention_layer_norm/gamma",),
        "ln_1.bias": ("self_attention_layer_norm/beta",),
        "attn.c_attn.weight": (
            "self_attention/query/kernel",
            "self_attention/key/kernel",
            "self_attention/value/kernel",
        ),
        "attn.c_attn.bias": (
            "self_attention/query/bias",
            "self_attention/key/bias",
            "self_attention/value/bias",
        ),
        "attn.c_proj.weight": ("self_attention/attention_output/kernel",),
        "attn.c_proj.bias": ("self_attention/attention_output/bias",),
        "ln_2.weight": ("feedforward_layer_norm/gamma",),
        "ln_2.bias": ("feedforward_layer_norm/beta",),
        "mlp.c_fc.weight": ("feedforward_intermediate_dense/kernel",),
        "mlp.c_fc.bias": ("feedforward_intermediate_dense/bias",),
        "mlp.c_proj.weight": ("feedforward_output_dense/kernel",),
        "mlp.c_proj.bias": ("feedforward_output_dense/bias",),
    },
    buffers=r"h\.\d+\.attn\.(masked_)?bias$",
)
_LLAMA = _Names(
    prefix="model.",
    layers="layers",
    transposed=True,
    tensors={
        "model.embed_tokens.weight": ("token_embedding/embeddings",),
        "model.norm.weight": ("sequence_output_layernorm/scale",),
    },
    layer={
        "input_layernorm.weight": ("self_attention_layernorm/scale",),
        "self_attn.q_proj.weight": ("self_attention/query/kernel",),
        "self_attn.k_proj.weight": ("self_attention/key/kernel",),
        "self_attn.v_proj.weight": ("self_attention/value/kernel",),
        "self_attn.o_proj.weight": ("self_attention/attention_output/kernel",),
        "post_attention_layernorm.weight": ("feedforward_layernorm/scale",),
        "mlp.gate_proj.weight": ("feedforward_gate_dense/kernel",),
        "mlp.up_proj.weight": ("feedforward_intermediate_dense/kernel",),
        "mlp.down_proj.weight": ("feedforward_output_dense/kernel",),
    },
    buffers=r"rotary_emb\.inv_freq$",
)


def _names(backbone: keras.Model) -> _Names:
    if isinstance(backbone, keras_hub.models.GPT2Backbone):
        return _GPT2
    if isinstance(backbone, keras_hub.models.LlamaBackbone):
        return _LLAMA
    raise ValueError(
        f"A {type(backbone).__name__} has no Hugging Face names here: only "
        "backbones of GPT-2 and Llama have."
    )


def _matrix_shape(variable: keras.Variable) -> tuple[int, ...]:
    """The shape of a kernel or bias with the axes of the heads merged."""
    shape = tuple(variable.shape)
    if len(shape) == 1 or variable.path.endswith("/bias"):
        return (math.prod(shape),)
    inputs = len(shape) - 1 if "attention_output" in variable.path else 1
    return math.prod(shape[:inputs]), math.prod(shape[inputs:])


def _others(names: list[str]) -> str:
    return f" (and {len(names) - 1} more)" if len(names) > 1 else ""


def _weight_files(
    directory: pathlib.Path,
) -> tuple[pathlib.Path, list[pathlib.Path]]:
    """The file that names all tensors, and the files that hold them."""
    single = directory / "model.safetensors"
    if single.exists():
        return single, [single]
    index = directory / "model.safetensors.index.json"
    if not index.exists():
        raise ValueError(
            f"{directory} has neither {single.name} nor {index.name}: save "
            "the weights as safetensors."
        )
    shards = read_json(index).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise ValueError(f"{index} has no `weight_map` from tensors to files.")
    return index, [directory / file for file in sorted(set(shards.values()))]
