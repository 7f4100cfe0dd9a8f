"""Hugging Face directories that transformers on PyTorch loads.

Knows which files such a directory has; what a model's numbers are called there
is known to `models/transformers_describe.py` and `transformers_names.py`.
"""

import json
import pathlib
import warnings
from typing import Any

import keras
import keras_hub
import numpy as np
import numpy.typing as npt
import tokenizers

from tfrlhf.models import Policy
from tfrlhf.models import RewardModel
from tfrlhf.models import Tokenizer
from tfrlhf.models import adapters
from tfrlhf.models.policy import UNLIMITED
from tfrlhf.models.transformers_describe import describe
from tfrlhf.models.transformers_families import CAUSAL_LMS
from tfrlhf.models.transformers_names import names_of
from tfrlhf.models.transformers_weights import check_complete
from tfrlhf.models.transformers_weights import weight_map
from tfrlhf.models.transformers_writer import Source
from tfrlhf.models.transformers_writer import write_safetensors

Array = npt.NDArray[Any]
Json = dict[str, Any]
Tensors = dict[str, Source]

_CLASSES = {
    "gpt2": "GPT2",
    "llama": "Llama",
    "mistral": "Mistral",
    "qwen2": "Qwen2",
    "qwen3": "Qwen3",
    "gemma3_text": "Gemma3",
    "smollm3": "SmolLM3",
}
_PAD = "<|pad|>"


def write_transformers(
    model: Policy | RewardModel, directory: str | pathlib.Path
) -> None:
    """Writes a directory that transformers and programs like it load.

    A policy becomes a `...ForCausalLM` with the same logits, a reward model a
    `...ForSequenceClassification` of one label with the same scores: gain and
    weights of its head become `score.weight`. That layer has no bias, so a
    bias that is not 0 goes into GPT-2's last normalisation, and is left out of
    the other families, whose scores there are lower by a constant; a warning
    says so and config.json has it as `score_bias`. Transformers reads the score
    at the last token that is not padding: where the tokenizer pads with EOS or
    an ordinary token, a token `<|pad|>` is added.

    An adapter is merged into the weights that are written, on a copy;
    `write_adapter` writes it alone.

    Args:
        model: over a KerasHub model of GPT-2, Llama, Mistral, Qwen 2 or 3,
            Gemma 3 for text or SmolLM3.
        directory: where to; made if it does not exist. Its config.json,
            generation_config.json, model.safetensors and tokenizer files are
            replaced.

    Raises:
        ValueError: the model has something that the format cannot hold.

    Example:
        >>> write_transformers(policy, "exported")
        >>> # with PyTorch: AutoModelForCausalLM.from_pretrained("exported")
    """
    directory = pathlib.Path(directory)
    backbone = _backbone(model)
    if model.adapter is not None:
        backbone = adapters.own_backbone(backbone, model.adapter)
    config = describe(backbone, model.context_length)
    check_complete(backbone)
    tensors: Tensors = {
        entry.name: Source(entry.variables[0].dtype, entry.shape, entry.read)
        for entry in weight_map(backbone)
    }
    family = _CLASSES[config["model_type"]]
    tokenizer = model.tokenizer
    if isinstance(model, RewardModel):
        tokenizer = _padding(tokenizer)
        _append_rows(config, tensors, tokenizer)
        _add_score(model, config, tensors)
        text = "Text" if family == "Gemma3" else ""
        family += f"{text}ForSequenceClassification"
    else:
        family += "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    ids = _token_ids(tokenizer)
    dtypes = {source.dtype for source in tensors.values()}
    config |= {"architectures": [family], **ids}
    config["torch_dtype"] = dtypes.pop() if len(dtypes) == 1 else "float32"
    directory.mkdir(parents=True, exist_ok=True)
    write_safetensors(directory / "model.safetensors", tensors)
    _write_json(directory / "config.json", config)
    if isinstance(model, Policy):
        _write_json(directory / "generation_config.json", ids)
    if tokenizer is not None:
        _write_tokenizer(tokenizer, directory)


def check_family(model: Policy | RewardModel) -> keras.Model:
    """Returns a model's backbone if transformers has names for its weights.

    Args:
        model: see `write_transformers`.

    Returns:
        KerasHub's backbone.

    Raises:
        ValueError: it is of a family that transformers' names are not known
            of here.
    """
    if isinstance(model, Policy):
        if type(model.model) not in CAUSAL_LMS.values():
            raise ValueError(
                f"A policy over {type(model.model).__name__} cannot be written "
                "for transformers: only KerasHub's own language models can."
            )
        backbone = model.model.backbone
    else:
        backbone = model.backbone
    names_of(backbone)
    return backbone


def _backbone(model: Policy | RewardModel) -> keras.Model:
    backbone = check_family(model)
    if model.context_length >= UNLIMITED and not isinstance(
        backbone, keras_hub.models.GPT2Backbone
    ):
        raise ValueError(
            "The longest sequence of this model is not known, and config.json "
            "must say it: set its `context_length`."
        )
    tokenizer = model.tokenizer
    if tokenizer and tokenizer.vocabulary_size > backbone.vocabulary_size:
        raise ValueError(
            f"The tokenizer has {tokenizer.vocabulary_size} tokens but the "
            f"model {backbone.vocabulary_size}: they do not belong together."
        )
    return backbone


def _padding(tokenizer: Tokenizer | None) -> Tokenizer:
    """The tokenizer with a padding token that is nothing else."""
    if tokenizer is None:
        raise ValueError(
            "A reward model without a tokenizer cannot be written: "
            "transformers needs to know what padding is."
        )
    if _pads_apart(tokenizer):
        return tokenizer
    backend: Any = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    backend.add_special_tokens([_PAD])
    return Tokenizer(
        backend,
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=backend.token_to_id(_PAD),
        chat_template=tokenizer.chat_template,
        chat_variables=tokenizer.chat_variables,
    )


def has_own_padding(model: RewardModel) -> bool:
    """Whether padding is a token of its own, as transformers needs it."""
    return model.tokenizer is not None and _pads_apart(model.tokenizer)


def _pads_apart(tokenizer: Tokenizer) -> bool:
    pad = tokenizer.pad_id
    return pad in tokenizer.special_ids and pad != tokenizer.eos_id


def _append_rows(config: Json, tensors: Tensors, tokenizer: Tokenizer) -> None:
    """Makes room in the embeddings for an added padding token."""
    missing = tokenizer.vocabulary_size - config["vocab_size"]
    if missing <= 0:
        return
    name = next(iter(tensors))
    embeddings = tensors[name]
    rows, width = embeddings.shape
    tensors[name] = Source(
        embeddings.dtype,
        (rows + missing, width),
        lambda: np.pad(embeddings.read(), [(0, missing), (0, 0)]),
    )
    config["vocab_size"] += missing


def score_parts(model: RewardModel) -> tuple[Array, float]:
    """Returns the weights [1, H] and the bias of all that is after h."""
    head = {
        name: keras.ops.convert_to_tensor(variable).numpy()
        for name, variable in model.head_variables().items()
    }
    weight = head["kernel"].T * head["gain"]
    return weight, float(head["head_bias"][0] * head["gain"] + head["bias"])


def _add_score(model: RewardModel, config: Json, tensors: Tensors) -> None:
    weight, bias = score_parts(model)
    tensors.pop("lm_head.weight", None)
    tensors["score.weight"] = Source("float32", weight.shape, lambda: weight)
    config |= {
        "id2label": {"0": "score"},
        "label2id": {"score": 0},
        "problem_type": "regression",
    }
    if bias and config["model_type"] == "gpt2" and weight.any():
        _shift_last_norm(tensors, weight[0] * bias / (weight @ weight.T).item())
    elif bias:
        config["score_bias"] = bias
        warnings.warn(
            "transformers has no bias beside `score.weight`, so its scores "
            f"are the model's minus {bias:.6g}.",
            stacklevel=3,
        )


def _shift_last_norm(tensors: Tensors, shift: Array) -> None:
    name = "transformer.ln_f.bias"
    norm = tensors[name]
    tensors[name] = norm._replace(
        read=lambda: (norm.read() + shift).astype(norm.dtype)
    )


def _token_ids(tokenizer: Tokenizer | None) -> Json:
    return {
        f"{name}_token_id": getattr(tokenizer, f"{name}_id", None)
        for name in ("bos", "eos", "pad")
    }


def _write_tokenizer(tokenizer: Tokenizer, directory: pathlib.Path) -> None:
    tokenizer.save(directory)
    path = directory / "tokenizer_config.json"
    settings = json.loads(path.read_text("utf-8"))
    # The name that transformers 4 knows too.
    settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    _write_json(path, settings)


def _write_json(path: pathlib.Path, content: Json) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")
