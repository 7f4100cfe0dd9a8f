"""The config.json of a Hugging Face model as a KerasHub model without weights.

Every field is honoured, known to be harmless, or refused by name: a field that
is passed over in silence would give other logits than transformers.
"""

import json
import math
import pathlib
import reprlib
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any
from typing import NamedTuple

import keras
import keras_hub

_REFUSAL = "so this model cannot be loaded"

# Names, token ids, dropout, initialisers, outputs and speed, generation and
# classification settings: none of them changes the logits.
_HARMLESS = frozenset(
    """
    _attn_implementation _attn_implementation_autoset _commit_hash
    _name_or_path _num_labels architectures attn_implementation
    bad_words_ids begin_suppress_tokens bos_token_id chunk_size_feed_forward
    decoder_start_token_id diversity_penalty do_sample dtype early_stopping
    encoder_no_repeat_ngram_size eos_token_id
    exponential_decay_length_penalty finetuning_task forced_bos_token_id
    forced_eos_token_id gradient_checkpointing id2label initializer_range
    is_decoder label2id length_penalty max_length min_length
    no_repeat_ngram_size num_beam_groups num_beams num_labels
    num_return_sequences output_attentions output_hidden_states output_past
    output_scores pad_token_id prefix problem_type remove_invalid_values
    repetition_penalty return_dict return_dict_in_generate sep_token_id
    suppress_tokens task_specific_params temperature tf_legacy_loss
    tokenizer_class top_k top_p torch_dtype torchscript
    transformers.js_config transformers_version typical_p unsloth_fixed
    unsloth_version use_bfloat16 use_cache
    """.split()
)
_REASONS = {
    "auto_map": "it asks for code of its own",
    "is_encoder_decoder": "only decoders are known here",
    "quantization_config": "quantised weights are not supported",
}
_TANH_GELUS = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_accurate")
_ROPE_FIELDS: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset(
        """
        factor low_freq_factor high_freq_factor
        original_max_position_embeddings
        """.split()
    ),
}


def build_causal_lm(
    path: pathlib.Path, config: dict[str, Any]
) -> tuple[keras.Model, int]:
    """Builds the model that a config.json describes, with random weights.

    Args:
        path: of the file, for the messages.
        config: its content.

    Returns:
        The KerasHub `CausalLM` (dropout 0, no preprocessor), and the context
        length in tokens.

    Raises:
        ValueError: a field is missing, wrong, or not one KerasHub honours.
    """
    fields = _Fields(path, config)
    families = {"gpt2": _GPT2, "llama": _LLAMA}
    fields.require_known("model_type", families)
    family = families[config["model_type"]]
    fields.refuse_unknown(
        family.honoured | family.harmless | _HARMLESS | {"model_type"},
        family.reasons | _REASONS,
    )
    return family.build(fields), fields.size(family.context_field)


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object.

    Args:
        path: of the file.

    Returns:
        The object.

    Raises:
        ValueError: there is no such file, or it holds something else.
    """
    if not path.exists():
        raise ValueError(
            f"{path} is missing: give the directory of a Hugging Face model."
        )
    try:
        values = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold a JSON object.")
    return values


class _Fields:
    """The fields of a JSON object, read with a check; null is absent."""

    def __init__(
        self, path: pathlib.Path, values: dict[str, Any], prefix: str = ""
    ) -> None:
        self.path = path
        self.values = values
        self.prefix = prefix

    def error(self, name: str, problem: str) -> ValueError:
        return ValueError(
            f"`{self.prefix}{name}` of {self.path} is "
            f"{reprlib.repr(self.values.get(name))}{problem}."
        )

    def get(self, name: str, default: Any) -> Any:
        value = self.values.get(name)
        value = default if value is None else value
        if value is None:
            raise ValueError(
                f"`{self.prefix}{name}` is missing in {self.path}."
            )
        return value

    def size(self, name: str, default: int | None = None) -> int:
        value = self.get(name, default)
        if type(value) is not int or value < 1:
            raise self.error(name, " but must be a positive whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self.get(name, default)
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self.error(name, " but must be a positive number")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.get(name, default)
        if type(value) is not bool:
            raise self.error(name, " but must be true or false")
        return value

    def fixed(self, name: str, allowed: tuple[Any, ...], why: str) -> None:
        if self.get(name, allowed[0]) not in allowed:
            listed = " or ".join(map(repr, allowed))
            raise self.error(name, f" but must be {listed}: {why}, {_REFUSAL}")

    def divisible(self, name: str, divisor: str) -> None:
        if self.size(name) % self.size(divisor, self.size(name)):
            parts = self.values[divisor]
            raise self.error(
                name, f" but must be a multiple of `{divisor}`, {parts}"
            )

    def require_known(self, name: str, known: Iterable[str]) -> None:
        if self.get(name, None) not in tuple(known):
            listed = ", ".join(map(repr, known))
            raise self.error(name, f" but only {listed} can be loaded")

    def refuse_unknown(
        self, known: frozenset[str], reasons: dict[str, str]
    ) -> None:
        for name, value in self.values.items():
            # By identity, because 0 == False, and 0 is a setting.
            unset = value is None or value is False or value in ({}, [])
            if name not in known and not unset:
                unknown = "a field unknown here that may change the output"
                reason = reasons.get(name, unknown)
                raise self.error(name, f": {reason}, {_REFUSAL}")


class _Family(NamedTuple):
    """What the fields of one `model_type` mean."""

    build: Callable[[_Fields], keras.Model]
    context_field: str
    honoured: frozenset[str]
    harmless: frozenset[str]
    reasons: dict[str, str]


def _build_gpt2(fields: _Fields) -> keras.Model:
    fields.divisible("n_embd", "n_head")
    hidden = fields.size("n_embd")
    positions = fields.size("n_positions")
    built_in = "KerasHub's GPT-2 has it built in"
    fields.fixed("n_ctx", (positions,), "it must equal `n_positions`")
    fields.fixed("activation_function", _TANH_GELUS, built_in)
    fields.fixed("layer_norm_epsilon", (1e-5,), built_in)
    fields.fixed("scale_attn_weights", (True,), built_in)
    fields.fixed("tie_word_embeddings", (True,), built_in)
    backbone = keras_hub.models.GPT2Backbone(
        vocabulary_size=fields.size("vocab_size"),
        num_layers=fields.size("n_layer"),
        num_heads=fields.size("n_head"),
        hidden_dim=hidden,
        intermediate_dim=fields.size("n_inner", 4 * hidden),
        dropout=0.0,
        max_sequence_length=positions,
    )
    return keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)


def _build_llama(fields: _Fields) -> keras.Model:
    fields.divisible("hidden_size", "num_attention_heads")
    fields.divisible("num_attention_heads", "num_key_value_heads")
    fields.fixed(
        "hidden_act", ("silu", "swish"), "KerasHub's Llama has it built in"
    )
    heads = fields.size("num_attention_heads")
    head_size = fields.size("hidden_size") // heads
    if fields.size("head_dim", head_size) != head_size:
        raise fields.error(
            "head_dim",
            f" but hidden_size / num_attention_heads is {head_size}: "
            f"KerasHub's Llama has no separate head size, {_REFUSAL}",
        )
    backbone = keras_hub.models.Llama3Backbone(
        vocabulary_size=fields.size("vocab_size"),
        num_layers=fields.size("num_hidden_layers"),
        num_query_heads=heads,
        num_key_value_heads=fields.size("num_key_value_heads", heads),
        hidden_dim=fields.size("hidden_size"),
        intermediate_dim=fields.size("intermediate_size"),
        layer_norm_epsilon=fields.number("rms_norm_eps", 1e-6),
        tie_word_embeddings=fields.flag("tie_word_embeddings", False),
        dropout=0.0,
        **_rope(fields),
    )
    return keras_hub.models.Llama3CausalLM(backbone=backbone, preprocessor=None)


def _rope(fields: _Fields) -> dict[str, float]:
    """The backbone's RoPE arguments, from either spelling."""
    spellings = [
        _rope_arguments(fields, name)
        for name in ("rope_scaling", "rope_parameters")
        if fields.values.get(name)
    ]
    if not spellings:
        return {"rope_max_wavelength": fields.number("rope_theta", 1e4)}
    if spellings[0] != spellings[-1]:
        raise fields.error(
            "rope_scaling", " but `rope_parameters` says otherwise: keep one"
        )
    return spellings[0]


def _rope_arguments(fields: _Fields, name: str) -> dict[str, float]:
    if not isinstance(fields.values[name], dict):
        raise fields.error(name, " but must be an object")
    rope = _Fields(fields.path, fields.values[name], f"{name}.")
    # Old files keep theta outside, new ones inside.
    theta = rope.number("rope_theta", fields.number("rope_theta", 1e4))
    if fields.number("rope_theta", theta) != theta:
        raise rope.error(
            "rope_theta",
            f" but `rope_theta` is {fields.values['rope_theta']}: keep one",
        )
    old = rope.values.get("rope_type") is None
    kind_name = "type" if old and "type" in rope.values else "rope_type"
    kind = rope.get(kind_name, "default")
    rope.require_known(kind_name, _ROPE_FIELDS)
    rope.refuse_unknown(
        _ROPE_FIELDS[kind] | {"rope_type", "type", "rope_theta"}, {}
    )
    if kind == "default":
        return {"rope_max_wavelength": theta}
    if kind == "linear":
        # KerasHub's Llama ignores its `rope_position_scaling_factor`. Set like
        # this, its llama3 scaling divides the frequency of every wavelength
        # above 1, which is all of them.
        low, high, positions = 1.0, 2.0, 1
    else:
        low = rope.number("low_freq_factor")
        high = rope.number("high_freq_factor")
        positions = rope.size(
            "original_max_position_embeddings",
            fields.size("max_position_embeddings"),
        )
    return {
        "rope_max_wavelength": theta,
        "rope_frequency_adjustment_factor": rope.number("factor"),
        "rope_low_freq_factor": low,
        "rope_high_freq_factor": high,
        "rope_pretraining_sequence_length": positions,
    }


_GPT2 = _Family(
    build=_build_gpt2,
    context_field="n_positions",
    honoured=frozenset(
        """
        activation_function layer_norm_epsilon n_ctx n_embd n_head n_inner
        n_layer n_positions scale_attn_weights tie_word_embeddings vocab_size
        """.split()
    ),
    harmless=frozenset(
        """
        attn_pdrop embd_pdrop resid_pdrop summary_activation
        summary_first_dropout summary_proj_to_labels summary_type
        summary_use_proj
        """.split()
    ),
    reasons={
        "add_cross_attention": "KerasHub's GPT-2 attends to nothing else",
        "reorder_and_upcast_attn": "KerasHub's GPT-2 has no such arithmetic",
        "scale_attn_by_inverse_layer_idx": (
            "KerasHub's GPT-2 scales the attention of all layers alike"
        ),
    },
)
_LLAMA = _Family(
    build=_build_llama,
    context_field="max_position_embeddings",
    honoured=frozenset(
        """
        head_dim hidden_act hidden_size intermediate_size
        max_position_embeddings num_attention_heads num_hidden_layers
        num_key_value_heads rms_norm_eps rope_parameters rope_scaling
        rope_theta tie_word_embeddings vocab_size
        """.split()
    ),
    # `pretraining_tp` splits the products, `is_llama_config` repeats the type.
    harmless=frozenset(
        {"attention_dropout", "is_llama_config", "pretraining_tp"}
    ),
    reasons={
        "attention_bias": "KerasHub's Llama has no biases in its attention",
        "mlp_bias": "KerasHub's Llama has no biases in its feed-forward part",
        "rope_interleaved": "KerasHub's Llama rotates halves, not pairs",
    },
)
