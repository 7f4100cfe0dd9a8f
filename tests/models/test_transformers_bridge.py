import gzip
import json
import re

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file
from transformers import AutoTokenizer

from tests import references_models as reference
from tfrlhf.models.transformers_bridge import is_transformers_directory
from tfrlhf.models.transformers_bridge import read_causal_lm
from tfrlhf.models.transformers_weights import weight_map

LENGTH = 40
VOCABULARY = 37
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}


def llama_config(**changes):
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "vocab_size": VOCABULARY,
        "hidden_size": 96,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-3,
        "rope_theta": 5e5,
        "tie_word_embeddings": False,
        "hidden_act": "silu",
        "attention_bias": False,
        "pretraining_tp": 1,
        "eos_token_id": [1, 2],
    }
    return config | changes


def gpt2_config(**changes):
    config = {
        "model_type": "gpt2",
        "vocab_size": VOCABULARY,
        "n_positions": 64,
        "n_ctx": 64,
        "n_embd": 24,
        "n_layer": 2,
        "n_head": 3,
        "n_inner": 20,
        "activation_function": "gelu_new",
        "resid_pdrop": 0.1,
        "task_specific_params": {"text-generation": {"max_length": 50}},
    }
    return config | changes


def draw(shapes):
    rng = np.random.default_rng(7)
    tensors = {}
    for name, shape in shapes.items():
        # Small embeddings make the epsilon count; large products make the
        # attention uneven, so that positions count.
        scale = 0.05 if "wte" in name or "embed" in name else 0.3
        tensors[name] = rng.normal(0, scale, shape).astype("float32")
        if "norm" in name or "ln_" in name:
            tensors[name] += 1
    return tensors


def llama_tensors(config):
    width, inner = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    shared = (config.get("num_key_value_heads") or heads) * width // heads
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], width),
        "model.norm.weight": (width,),
    }
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (config["vocab_size"], width)
    for layer in range(config["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        shapes |= {
            at + "input_layernorm.weight": (width,),
            at + "post_attention_layernorm.weight": (width,),
            at + "self_attn.q_proj.weight": (width, width),
            at + "self_attn.k_proj.weight": (shared, width),
            at + "self_attn.v_proj.weight": (shared, width),
            at + "self_attn.o_proj.weight": (width, width),
            at + "mlp.gate_proj.weight": (inner, width),
            at + "mlp.up_proj.weight": (inner, width),
            at + "mlp.down_proj.weight": (width, inner),
        }
    return draw(shapes)


def gpt2_tensors(config):
    width = config["n_embd"]
    inner = config.get("n_inner") or 4 * width
    shapes = {
        "wte.weight": (config["vocab_size"], width),
        "wpe.weight": (config["n_positions"], width),
        "ln_f.weight": (width,),
        "ln_f.bias": (width,),
    }
    for layer in range(config["n_layer"]):
        at = f"h.{layer}."
        for norm in ("ln_1", "ln_2"):
            shapes |= {
                f"{at}{norm}.{part}": (width,) for part in ("weight", "bias")
            }
        for name, rows, columns in (
            ("attn.c_attn", width, 3 * width),
            ("attn.c_proj", width, width),
            ("mlp.c_fc", width, inner),
            ("mlp.c_proj", inner, width),
        ):
            shapes[f"{at}{name}.weight"] = (rows, columns)
            shapes[f"{at}{name}.bias"] = (columns,)
    return draw(shapes)


def write(directory, config, tensors):
    (directory / "config.json").write_text(json.dumps(config))
    save_file(tensors, directory / "model.safetensors")
    return directory


def write_llama(directory, **changes):
    config = llama_config(**changes)
    return write(directory, config, llama_tensors(config))


def write_gpt2(directory, **changes):
    config = gpt2_config(**changes)
    return write(directory, config, gpt2_tensors(config))


def random_ids(length=LENGTH):
    return np.random.default_rng(3).integers(0, VOCABULARY, length)


def logits(model, token_ids):
    rows = np.atleast_2d(np.asarray(token_ids, "int32"))
    inputs = {"token_ids": rows, "padding_mask": np.ones_like(rows)}
    return model(inputs, training=False).numpy()


def assert_reads_as(directory, expected, token_ids):
    got = logits(read_causal_lm(directory).model, token_ids)[0]
    np.testing.assert_allclose(got, expected, atol=1e-4)


def refusal(directory):
    with pytest.raises(ValueError) as caught:
        read_causal_lm(directory)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert str(directory) in message
    return message


LLAMA_CHANGES = {
    "grouped, untied, theta outside": {},
    "tied, every head its own key": {
        "tie_word_embeddings": True,
        "num_key_value_heads": None,
    },
    "llama3, old spelling": {"rope_scaling": {"rope_type": "llama3"} | LLAMA3},
    "llama3, new spelling": {
        "rope_theta": None,
        "rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5} | LLAMA3,
    },
    "linear, oldest spelling": {
        "rope_scaling": {"type": "linear", "factor": 4}
    },
    "linear, new spelling": {
        "rope_theta": None,
        "rope_parameters": {
            "rope_type": "linear",
            "factor": 2.5,
            "rope_theta": 100.0,
        },
    },
    "default, new spelling": {
        "rope_theta": None,
        "rope_parameters": {"rope_type": "default", "rope_theta": 300.0},
    },
    "both spellings, agreeing": {
        "rope_scaling": {"type": "linear", "factor": 4},
        "rope_parameters": {"rope_type": "linear", "factor": 4.0},
    },
}


@pytest.mark.parametrize("changes", LLAMA_CHANGES.values(), ids=LLAMA_CHANGES)
def test_llama_agrees_with_numpy(tmp_path, changes):
    config = llama_config(**changes)
    tensors = llama_tensors(config)
    write(tmp_path, config, tensors)
    ids = random_ids()
    assert_reads_as(tmp_path, reference.llama_logits(tensors, config, ids), ids)


@pytest.mark.parametrize(
    "changes",
    [
        {"rms_norm_eps": 1e-6},
        {"rope_theta": 1e4},
        {"rope_scaling": {"rope_type": "llama3"} | LLAMA3},
        {"rope_scaling": {"rope_type": "linear", "factor": 4}},
    ],
    ids=str,
)
def test_the_reference_sees_a_changed_field(changes):
    # Otherwise the agreement above would prove nothing about it.
    config = llama_config()
    tensors = llama_tensors(config)
    ids = random_ids()
    before = reference.llama_logits(tensors, config, ids)
    after = reference.llama_logits(tensors, config | changes, ids)
    assert np.abs(before - after).max() > 0.01


@pytest.mark.parametrize(
    "changes",
    [{}, {"n_inner": None}, {"activation_function": "gelu_pytorch_tanh"}],
    ids=str,
)
def test_gpt2_agrees_with_numpy(tmp_path, changes):
    config = gpt2_config(**changes)
    tensors = gpt2_tensors(config)
    # A language model's file has the prefix, and sometimes the causal mask.
    stored = {"transformer." + name: t for name, t in tensors.items()}
    stored["transformer.h.0.attn.bias"] = np.tri(64, dtype="float32")
    write(tmp_path, config, stored)
    ids = random_ids()
    assert_reads_as(tmp_path, reference.gpt2_logits(tensors, config, ids), ids)


def test_the_file_of_a_base_model(tmp_path):
    config = gpt2_config()
    tensors = gpt2_tensors(config)
    write(tmp_path, config, tensors)
    ids = random_ids()
    assert_reads_as(tmp_path, reference.gpt2_logits(tensors, config, ids), ids)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files_become_float32(tmp_path, dtype):
    numbers = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    config = llama_config(torch_dtype=dtype)
    tensors = {
        name: tensor.astype(numbers)
        for name, tensor in llama_tensors(config).items()
    }
    write(tmp_path, config, tensors)
    ids = random_ids()
    assert_reads_as(tmp_path, reference.llama_logits(tensors, config, ids), ids)
    weights = read_causal_lm(tmp_path).model.weights
    assert {weight.dtype for weight in weights} == {"float32"}


def test_shards(tmp_path):
    config = llama_config()
    tensors = llama_tensors(config)
    names = sorted(tensors)
    index = {}
    for number, start in enumerate((0, len(names) // 2), 1):
        file = f"model-{number:05}-of-00002.safetensors"
        part = names[start:] if start else names[: len(names) // 2]
        save_file({name: tensors[name] for name in part}, tmp_path / file)
        index |= dict.fromkeys(part, file)
    index_file = tmp_path / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"metadata": {}, "weight_map": index}))
    (tmp_path / "config.json").write_text(json.dumps(config))
    ids = random_ids()
    assert_reads_as(tmp_path, reference.llama_logits(tensors, config, ids), ids)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refusal(tmp_path)
    index_file.write_text("{}")
    assert "has no `weight_map`" in refusal(tmp_path)


def test_context_length_and_shape_of_the_result(tmp_path):
    loaded = read_causal_lm(write_llama(tmp_path))
    assert loaded.context_length == 128
    assert loaded.model.preprocessor is None
    loaded = read_causal_lm(write_gpt2(tmp_path))
    assert loaded.context_length == 64
    assert loaded.model.backbone.dropout == 0


@pytest.mark.parametrize("write_directory", [write_llama, write_gpt2])
def test_the_weight_map_covers_every_variable_once(tmp_path, write_directory):
    backbone = read_causal_lm(write_directory(tmp_path)).model.backbone
    mapped = [v.path for entry in weight_map(backbone) for v in entry.variables]
    assert sorted(mapped) == sorted(v.path for v in backbone.weights)


def test_a_repeated_head_must_equal_the_embeddings(tmp_path):
    config = llama_config(tie_word_embeddings=True)
    tensors = llama_tensors(config)
    head = tensors["model.embed_tokens.weight"].copy()
    write(tmp_path, config, tensors | {"lm_head.weight": head})
    ids = random_ids()
    assert_reads_as(tmp_path, reference.llama_logits(tensors, config, ids), ids)
    write(tmp_path, config, tensors | {"lm_head.weight": head + 1})
    assert "`lm_head.weight`" in refusal(tmp_path)


def test_the_directory_is_told_from_a_keras_hub_preset(tmp_path):
    assert not is_transformers_directory(tmp_path / "absent")
    assert not is_transformers_directory(tmp_path)
    (tmp_path / "model.safetensors").touch()
    assert is_transformers_directory(tmp_path)
    config = tmp_path / "config.json"
    config.write_text('{"model_type": "gpt2"}')
    assert is_transformers_directory(tmp_path)
    config.write_text('{"registered_name": "keras_hub>GPT2Backbone"}')
    assert not is_transformers_directory(tmp_path)
    config.write_text("{")
    assert is_transformers_directory(tmp_path)


# --- What is refused ---------------------------------------------------------

REFUSED_LLAMA = [
    ({"head_dim": 8}, "`head_dim` of", "is 8 but hidden_size / num"),
    ({"hidden_act": "gelu"}, "`hidden_act` of", "is 'gelu'"),
    ({"attention_bias": True}, "`attention_bias` of", "no biases"),
    ({"mlp_bias": True}, "`mlp_bias` of", "no biases"),
    ({"sliding_window": 0}, "`sliding_window` of", "is 0: a field unknown"),
    ({"quantization_config": {"bits": 4}}, "`quantization_config` of", "quant"),
    ({"auto_map": {"AutoModel": "x.Y"}}, "`auto_map` of", "code of its own"),
    ({"rope_interleaved": True}, "`rope_interleaved` of", "halves"),
    ({"partial_rotary_factor": 0.5}, "`partial_rotary_factor` of", "is 0.5"),
    ({"rms_norm_eps": "1e-5"}, "`rms_norm_eps` of", "a positive number"),
    ({"rms_norm_eps": -1}, "`rms_norm_eps` of", "a positive number"),
    ({"hidden_size": 96.0}, "`hidden_size` of", "whole number"),
    ({"hidden_size": None}, "`hidden_size` is missing", "config.json"),
    ({"num_attention_heads": 5}, "`hidden_size` of", "multiple of"),
    ({"num_key_value_heads": 4}, "`num_attention_heads` of", "multiple of"),
    ({"tie_word_embeddings": 1}, "`tie_word_embeddings` of", "true or false"),
    ({"rope_theta": 0}, "`rope_theta` of", "a positive number"),
    ({"rope_scaling": 2.0}, "`rope_scaling` of", "an object"),
    (
        {"rope_scaling": {"type": "dynamic", "factor": 2.0}},
        "`rope_scaling.type` of",
        "only 'default', 'linear', 'llama3'",
    ),
    (
        {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}},
        "`rope_parameters.rope_type` of",
        "is 'yarn'",
    ),
    (
        {"rope_scaling": {"rope_type": "linear"}},
        "`rope_scaling.factor` is missing",
        "config.json",
    ),
    (
        {"rope_scaling": {"rope_type": "default", "factor": 2.0}},
        "`rope_scaling.factor` of",
        "unknown",
    ),
    (
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
        "`rope_parameters.rope_theta` of",
        "`rope_theta` is 500000.0",
    ),
    (
        {
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
            "rope_parameters": {"rope_type": "linear", "factor": 3.0},
        },
        "`rope_scaling` of",
        "says otherwise",
    ),
]
REFUSED_GPT2 = [
    ({"layer_norm_epsilon": 1e-6}, "`layer_norm_epsilon` of", "is 1e-06"),
    ({"activation_function": "relu"}, "`activation_function` of", "'relu'"),
    ({"activation_function": "gelu"}, "`activation_function` of", "'gelu'"),
    ({"scale_attn_weights": False}, "`scale_attn_weights` of", "False"),
    ({"tie_word_embeddings": False}, "`tie_word_embeddings` of", "False"),
    (
        {"scale_attn_by_inverse_layer_idx": True},
        "`scale_attn_by_inverse_layer_idx` of",
        "alike",
    ),
    (
        {"reorder_and_upcast_attn": True},
        "`reorder_and_upcast_attn` of",
        "no such arithmetic",
    ),
    ({"add_cross_attention": True}, "`add_cross_attention` of", "nothing else"),
    ({"n_ctx": 32}, "`n_ctx` of", "n_positions"),
    ({"n_head": 5}, "`n_embd` of", "multiple of"),
    ({"n_layer": None}, "`n_layer` is missing", "config.json"),
]


@pytest.mark.parametrize(("changes", "start", "part"), REFUSED_LLAMA, ids=str)
def test_llama_refuses_by_name(tmp_path, changes, start, part):
    directory = write_llama(tmp_path)
    config = llama_config(**changes)
    (directory / "config.json").write_text(json.dumps(config))
    message = refusal(directory)
    assert message.startswith(start)
    assert part in message


@pytest.mark.parametrize(("changes", "start", "part"), REFUSED_GPT2, ids=str)
def test_gpt2_refuses_by_name(tmp_path, changes, start, part):
    directory = write_gpt2(tmp_path)
    config = gpt2_config(**changes)
    (directory / "config.json").write_text(json.dumps(config))
    message = refusal(directory)
    assert message.startswith(start)
    assert part in message


@pytest.mark.parametrize(
    "changes",
    [{"sliding_window": None}, {"mlp_bias": False}, {"pruned_heads": {}}],
    ids=str,
)
def test_a_field_that_is_off_is_no_reason_to_refuse(tmp_path, changes):
    read_causal_lm(write_llama(tmp_path, **changes))


@pytest.mark.parametrize("model_type", ["opt", None, ["gpt2"]])
def test_other_model_types(tmp_path, model_type):
    directory = write_llama(tmp_path)
    config = llama_config(model_type=model_type)
    (directory / "config.json").write_text(json.dumps(config))
    assert "`model_type`" in refusal(directory)
    if model_type:
        assert "only 'gpt2', 'llama' can be loaded" in refusal(directory)


def test_missing_and_damaged_files(tmp_path):
    assert "config.json is missing" in refusal(tmp_path)
    config = tmp_path / "config.json"
    config.write_text("{")
    assert "is not JSON" in refusal(tmp_path)
    config.write_text("[]")
    assert "must hold a JSON object" in refusal(tmp_path)
    config.write_text(json.dumps(llama_config()))
    assert "has neither model.safetensors nor" in refusal(tmp_path)
    # What a checkout without Git LFS holds.
    (tmp_path / "model.safetensors").write_text("version https://git-lfs\n")
    assert "is not a safetensors file" in refusal(tmp_path)


def test_tensors_that_do_not_fit(tmp_path):
    config = llama_config()
    tensors = llama_tensors(config)
    norm = "model.norm.weight"
    write(tmp_path, config, {n: t for n, t in tensors.items() if n != norm})
    assert f"`{norm}` is missing in" in refusal(tmp_path)

    bias = {"model.layers.0.self_attn.q_proj.bias": np.zeros(96, "float32")}
    write(tmp_path, config, tensors | bias)
    assert refusal(tmp_path).startswith(f"`{next(iter(bias))}` of")

    write(tmp_path, config, tensors | {norm: np.ones(95, "float32")})
    assert re.search(r"has shape \(95,\) but .*\(96,\)", refusal(tmp_path))

    write(tmp_path, config, tensors | {norm: np.ones(96, "int8")})
    assert "is stored as I8" in refusal(tmp_path)


# --- A real checkpoint -------------------------------------------------------


@pytest.fixture(scope="module")
def stories(stories_directory):
    return read_causal_lm(stories_directory).model


@pytest.fixture(scope="module")
def stories_tokenizer(stories_directory):
    return AutoTokenizer.from_pretrained(stories_directory)


@pytest.fixture(scope="module")
def stories_reference(stories_directory):
    tensors = load_file(stories_directory / "model.safetensors")
    config = json.loads((stories_directory / "config.json").read_text())
    return lambda ids: reference.llama_logits(tensors, config, ids)


def test_real_logits(stories, stories_tokenizer, stories_reference):
    ids = stories_tokenizer("One day, Tom went to the park with his red ball.")
    ids = ids["input_ids"]
    np.testing.assert_allclose(
        logits(stories, ids)[0], stories_reference(ids), atol=1e-4
    )


def test_real_stories_are_likely(stories, stories_tokenizer, shared_data):
    file = shared_data / "data" / "text" / "tinystories_1000.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        # Evenly spaced: hundreds of the file differ, from 1.35 to 1.95. All
        # of it gives 1.62.
        texts = [json.loads(line)["text"] for line in list(lines)[::40]]
    ids = np.zeros((len(texts), 512), "int32")
    mask = np.zeros_like(ids)
    for row, text in enumerate(texts):
        tokens = stories_tokenizer(text)["input_ids"][:512]
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    inputs = {"token_ids": ids, "padding_mask": mask}
    predicted = stories(inputs, training=False).numpy()[:, :-1]
    chosen = np.take_along_axis(predicted, ids[:, 1:, None], axis=-1)[..., 0]
    nats = np.log(np.exp(predicted).sum(axis=-1)) - chosen
    assert nats[mask[:, 1:] == 1].mean() == pytest.approx(1.66, abs=0.15)


def test_real_story_goes_on(stories, stories_tokenizer, stories_reference):
    prompt = "Once upon a time, there was a little girl named Lily."
    ids = stories_tokenizer(prompt)["input_ids"]
    ours, expected = list(ids), list(ids)
    for _ in range(20):
        ours.append(int(logits(stories, ours)[0, -1].argmax()))
        expected.append(int(stories_reference(expected)[-1].argmax()))
    assert ours == expected
    continuation = stories_tokenizer.decode(ours[len(ids) :])
    assert continuation == (
        "She loved to play outside in the park. One day, she"
    )
