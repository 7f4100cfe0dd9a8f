"""Small random checkpoints of every family, the same wherever they are made.

Imported by TensorFlow's side and by PyTorch's, so it imports neither.
"""

import zlib

import numpy as np

VOCABULARY = 211
NEW_TOKENS = 64
# The logits that are kept for `make test`.
KEPT = np.s_[:, ::4, ::4]
STORY = "Once upon a time, there was a little girl named Lily."
STORY_TOKENS = 200
# Ragged, and longer than the windows below.
PROMPT_LENGTHS = (3, 11, 7)
PAD, EOS = 0, 1
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 72,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 160,
    "bos_token_id": None,
    "eos_token_id": EOS,
    "pad_token_id": PAD,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
LOCAL, GLOBAL = "sliding_attention", "full_attention"
CASES = {
    "gpt2": {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_positions": 160,
        "n_embd": 48,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 80,
        "layer_norm_epsilon": 3e-5,
        "bos_token_id": None,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
    },
    "llama 2": SMALL
    | {
        "model_type": "llama",
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e4,
        "tie_word_embeddings": False,
    },
    "llama 3": SMALL
    | {
        "model_type": "llama",
        "rms_norm_eps": 3e-5,
        "rope_theta": 5e5,
        "rope_scaling": LLAMA3,
        "tie_word_embeddings": True,
    },
    "llama, linear": SMALL
    | {
        "model_type": "llama",
        "rms_norm_eps": 1e-6,
        "rope_theta": 3e3,
        "rope_scaling": {"rope_type": "linear", "factor": 2.5},
        "tie_word_embeddings": False,
    },
    "mistral": SMALL
    | {
        "model_type": "mistral",
        "rms_norm_eps": 3e-5,
        "rope_theta": 2e4,
        "sliding_window": 6,
        "head_dim": 20,
        "tie_word_embeddings": False,
    },
    "mistral, no window": SMALL
    | {
        "model_type": "mistral",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": None,
        "tie_word_embeddings": False,
    },
    "qwen 2.5": SMALL
    | {
        "model_type": "qwen2",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "tie_word_embeddings": True,
        "use_sliding_window": False,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen 2.5, window": SMALL
    | {
        "model_type": "qwen2",
        "rms_norm_eps": 3e-5,
        "rope_theta": 1e4,
        "rope_scaling": {"rope_type": "linear", "factor": 3.0},
        "tie_word_embeddings": False,
        "use_sliding_window": True,
        "sliding_window": 5,
        "max_window_layers": 1,
    },
    "qwen 3": SMALL
    | {
        "model_type": "qwen3",
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "head_dim": 20,
        "tie_word_embeddings": True,
    },
    "qwen 3, window": SMALL
    | {
        "model_type": "qwen3",
        # Large, to be seen behind the normalised queries and keys too.
        "rms_norm_eps": 1e-3,
        "rope_theta": 1e4,
        "head_dim": 12,
        "tie_word_embeddings": False,
        "use_sliding_window": True,
        "sliding_window": 5,
        "layer_types": [LOCAL, GLOBAL],
    },
    "gemma 3": SMALL
    | {
        "model_type": "gemma3_text",
        "hidden_size": 32,
        "intermediate_size": 40,
        # Five local layers, then a global one.
        "num_hidden_layers": 6,
        "rms_norm_eps": 1e-6,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 6,
    },
    "gemma 3, odd": SMALL
    | {
        "model_type": "gemma3_text",
        "rms_norm_eps": 1e-3,
        "head_dim": 16,
        "query_pre_attn_scalar": 21,
        "sliding_window": 5,
        "layer_types": [GLOBAL, LOCAL],
        "rope_theta": 2e5,
        "rope_local_base_freq": 5e3,
        "rope_scaling": {"rope_type": "linear", "factor": 4.0},
        "final_logit_softcapping": 20.0,
    },
    "smollm3": SMALL
    | {
        "model_type": "smollm3",
        "rms_norm_eps": 1e-6,
        "rope_theta": 5e6,
        "no_rope_layers": [1, 0],
        "mlp_bias": True,
    },
    "smollm3, window": SMALL
    | {
        "model_type": "smollm3",
        "rms_norm_eps": 3e-5,
        "rope_theta": 2e4,
        "no_rope_layer_interval": 2,
        "use_sliding_window": True,
        "sliding_window": 5,
    },
}
# How the file of a case is stored, where it is not one file of float32.
SHARDED = ("llama 3", "qwen 2.5")
BFLOAT16 = ("qwen 3",)
# What PEFT adapts; GPT-2's `c_fc` ends in an activation in KerasHub.
ADAPTED = {"gpt2": ["c_attn", "attn.c_proj", "mlp.c_proj"]}
EVERY = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()
# Scaled by lora_alpha / sqrt(r).
RANK_STABLE = ("gpt2", "qwen 2.5")


# Other values, which must move the logits: else agreement proves nothing.
CHANGES = {
    "layer_norm_epsilon": 1e-5,
    "rms_norm_eps": 1e-4,
    "rope_theta": 1.5e4,
    "rope_scaling": None,
    "sliding_window": 8,
    "layer_types": [GLOBAL, GLOBAL],
    "query_pre_attn_scalar": 12,
    "rope_local_base_freq": 1e4,
    "final_logit_softcapping": None,
    "no_rope_layers": [1, 1],
    "no_rope_layer_interval": 4,
}


def changed_fields(case):
    """The fields of a case that must matter, each with another value."""
    fields = CASES[case]
    changes = {name: v for name, v in CHANGES.items() if name in fields}
    if not fields.get("use_sliding_window", True):
        # The window is off: the field that says so is what matters.
        changes.pop("sliding_window")
        changes["use_sliding_window"] = True
    return {name: v for name, v in changes.items() if fields[name] != v}


def slug(case):
    return case.replace(",", "").replace(" ", "_").replace(".", "_")


def draw(name, shape):
    """A weight; the same for the same name and shape."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    noise = rng.normal(0, 0.2, shape).astype("float32")
    is_norm = "norm" in name or "ln_" in name
    if is_norm and name.endswith("weight"):
        # Gemma adds 1 to them itself.
        return noise + 1
    return noise


def prompts():
    """Three rows of ids without padding, PAD or EOS."""
    rng = np.random.default_rng(5)
    return [
        rng.integers(2, VOCABULARY, length).tolist()
        for length in PROMPT_LENGTHS
    ]


def sequences():
    """Ids [3, 40] and their mask, right-padded."""
    rng = np.random.default_rng(6)
    lengths = np.array([40, 17, 29])
    ids = rng.integers(2, VOCABULARY, (3, 40))
    mask = (np.arange(40) < lengths[:, None]).astype("int32")
    return (ids * mask + PAD * (1 - mask)).astype("int32"), mask
