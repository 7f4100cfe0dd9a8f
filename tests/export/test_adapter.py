"""Adapters in PEFT's layout; PEFT itself reads some in tests/parity."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file

import tfrlhf
from tests import small
from tests.export.test_transformers import policy_of
from tests.parity import cases
from tests.parity import checks
from tfrlhf.export import write_adapter
from tfrlhf.export import write_transformers

FAMILIES = ("gpt2", "llama 2", "mistral", "qwen 2.5", "qwen 3", "smollm3")
TARGETS = {
    "gpt2": ("query", "value", "attention_output"),
    "smollm3": ("k_proj", "o_proj", "down_proj"),
    "gemma 3": ("query", "value", "attention_output", "ffw_linear"),
}
OTHERS = ("query", "attention_output", "feedforward_gate_dense")
WRITTEN = {
    "gpt2": ["attn.c_proj", "c_attn"],
    "smollm3": ["down_proj", "k_proj", "o_proj"],
    "gemma 3": ["down_proj", "o_proj", "q_proj", "v_proj"],
}
A = "base_model.model.model.layers.{}.self_attn.q_proj.lora_A.weight"


def read(directory):
    config = json.loads((directory / "adapter_config.json").read_text())
    return config, load_file(directory / "adapter_model.safetensors")


def rewrite(directory, tensors=None, **fields):
    """Changes an adapter as somebody else might have written it."""
    config, old = read(directory)
    text = json.dumps(config | fields)
    (directory / "adapter_config.json").write_text(text)
    path = directory / "adapter_model.safetensors"
    save_file(old if tensors is None else tensors, path)


@pytest.fixture
def adapted():
    policy = small.llama_policy(sharpness=4.0)
    policy.enable_lora(2, 3.0)
    checks.draw_adapter(policy.adapter)
    return policy


@pytest.mark.parametrize("case", [*FAMILIES, "gemma 3"])
def test_its_product_is_what_merging_adds(tmp_path, case):
    policy = policy_of(case, tmp_path / "base")
    policy.enable_lora(2, 3.0, TARGETS.get(case, OTHERS))
    checks.draw_adapter(policy.adapter)
    write_adapter(policy, tmp_path / "adapter", base="some/base")
    write_transformers(policy, tmp_path / "merged")
    config, found = read(tmp_path / "adapter")
    others = ["gate_proj", "o_proj", "q_proj"]
    assert config["target_modules"] == WRITTEN.get(case, others)
    assert config["peft_type"] == "LORA"
    assert config["task_type"] == "CAUSAL_LM"
    assert config["base_model_name_or_path"] == "some/base"
    # Query and value of GPT-2 share a module.
    assert config["r"] == (4 if case == "gpt2" else 2)
    assert config["lora_alpha"] / config["r"] == 1.5
    # PyTorch's GPT-2 keeps its kernels as [inputs, outputs].
    assert config["fan_in_fan_out"] == (case == "gpt2")
    base = load_file(tmp_path / "base" / "model.safetensors")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    moved = 0
    for name, weight in base.items():
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in found:
            first = found.pop(f"{stem}.lora_A.weight")
            second = found.pop(f"{stem}.lora_B.weight")
            assert first.shape[0] == second.shape[1] == config["r"]
            product = 1.5 * second @ first
            weight = weight + (product.T if case == "gpt2" else product)
            moved += np.abs(product).max() > 0.1
        np.testing.assert_allclose(merged[name], weight, atol=1e-5)
    assert not found
    layers = len(policy.trunk.transformer_layers)
    assert moved == len(config["target_modules"]) * layers


@pytest.mark.parametrize("case", ["gpt2", "qwen 3", "gemma 3"])
def test_it_comes_back(tmp_path, case):
    policy = policy_of(case, tmp_path / "base")
    fresh = tfrlhf.Policy.from_preset(tmp_path / "base")
    before = checks.logits(fresh)
    policy.enable_lora(2, 3.0, TARGETS.get(case, OTHERS))
    checks.draw_adapter(policy.adapter)
    write_adapter(policy, tmp_path / "adapter")
    fresh.load_adapter(tmp_path / "adapter")
    assert checks.difference(checks.logits(fresh), before) > 0.1
    assert checks.difference(checks.logits(fresh), checks.logits(policy)) < 1e-4
    names = {weight.name for weight in fresh.trainable_variables}
    assert names == {weight.name for weight in fresh.adapter.weights}


def test_one_adapter_of_three_kernels(tmp_path):
    # As PEFT makes it for GPT-2: one A for query, key and value.
    policy = small.gpt2_policy(sharpness=4.0)
    policy.enable_lora(2, targets=("query", "key", "value"))
    write_adapter(policy, tmp_path)
    _, tensors = read(tmp_path)
    wanted = {}
    for name, tensor in tensors.items():
        shape = (2, 32) if "lora_A" in name else (96, 2)
        assert tensor.shape == ((6, 32) if "lora_A" in name else (96, 6))
        wanted[name] = cases.draw(name, shape)
    rewrite(tmp_path, wanted, r=2, lora_alpha=2)
    fresh = small.gpt2_policy(sharpness=4.0)
    kernels = {
        part: np.asarray(layer.kernel).reshape(32, 32)
        for part, layer in attention_layers(fresh).items()
    }
    fresh.load_adapter(tmp_path)
    fresh.merge_lora()
    stem = "base_model.model.transformer.h.1.attn.c_attn.lora_"
    product = wanted[f"{stem}B.weight"] @ wanted[f"{stem}A.weight"]
    for row, part in enumerate(("query", "key", "value")):
        added = product[32 * row : 32 * (row + 1)].T
        kernel = np.asarray(attention_layers(fresh)[part].kernel)
        np.testing.assert_allclose(
            kernel.reshape(32, 32), kernels[part] + added, atol=1e-5
        )


def attention_layers(policy):
    attention = policy.trunk.transformer_layers[1]._self_attention_layer
    return {
        "query": attention._query_dense,
        "key": attention._key_dense,
        "value": attention._value_dense,
    }


def test_a_rank_stable_scale_is_honoured(tmp_path, adapted):
    write_adapter(adapted, tmp_path)
    rewrite(tmp_path, use_rslora=True)
    fresh = small.llama_policy(sharpness=4.0)
    fresh.load_adapter(tmp_path)
    assert fresh.adapter.alpha / 2 == pytest.approx(3.0 / np.sqrt(2))


def test_an_adapter_of_a_quantised_base(tmp_path, adapted):
    write_adapter(adapted, tmp_path / "before")
    adapted.quantize("int8")
    write_adapter(adapted, tmp_path / "after")
    before, after = (read(tmp_path / x)[1] for x in ("before", "after"))
    for name, tensor in before.items():
        np.testing.assert_array_equal(after[name], tensor)


def test_a_reward_model_brings_its_score(tmp_path):
    policy = policy_of("llama 2", tmp_path / "base")
    policy.enable_lora(2)
    reward = checks.reward_model(policy, share_trunk=True)
    with pytest.warns(UserWarning, match=f"minus {checks.BIAS:.6g}"):
        write_adapter(reward, tmp_path / "adapter")
    config, tensors = read(tmp_path / "adapter")
    assert config["task_type"] == "SEQ_CLS"
    assert config["modules_to_save"] == ["score"]
    np.testing.assert_allclose(
        tensors["base_model.model.score.weight"],
        1.7 * np.asarray(reward.head.kernel).T,
    )


# --- What is refused ---------------------------------------------------------


def refusal(action, *arguments):
    with pytest.raises(ValueError) as caught:
        action(*arguments)
    message = str(caught.value)
    assert "\n" not in message and message.endswith(".")
    return message


def test_what_cannot_be_written(tmp_path):
    policy = small.gpt2_policy()
    assert "has no adapter" in refusal(write_adapter, policy, tmp_path / "x")
    policy.enable_lora(2)
    reward = tfrlhf.RewardModel.from_policy(policy, share_trunk=True)
    assert "pads with a token that is also" in refusal(
        write_adapter, reward, tmp_path / "x"
    )
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("peft_type", "IA3"),
        ("bias", "lora_only"),
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("rank_pattern", {"q_proj": 4}),
        ("alpha_pattern", {"q_proj": 4}),
        ("layers_to_transform", [0]),
        ("layer_replication", [[0, 1], [0, 1]]),
        ("init_lora_weights", "pissa"),
        ("lora_alpha", "16"),
        ("r", 0),
        ("a_field_of_tomorrow", 1),
    ],
)
def test_fields_that_change_the_output(tmp_path, adapted, field, value):
    write_adapter(adapted, tmp_path)
    rewrite(tmp_path, **{field: value})
    fresh = small.llama_policy()
    message = refusal(fresh.load_adapter, tmp_path)
    assert f"`{field}` of {tmp_path}" in message
    assert fresh.adapter is None


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda found: found.pop(A.format(1)), "q_proj.lora_A.weight` is miss"),
        (lambda found: found.update({A.format(2): np.ones(2)}), "no place in"),
        (lambda found: found.update({A.format(0): np.ones(2)}), "has shape"),
        (
            lambda found: found.update({A.format(0): np.full((2, 32), np.nan)}),
            "NaN or infinite",
        ),
    ],
)
def test_tensors_that_do_not_fit(tmp_path, adapted, change, part):
    write_adapter(adapted, tmp_path)
    _, tensors = read(tmp_path)
    change(tensors)
    rewrite(tmp_path, tensors)
    assert part in refusal(small.llama_policy().load_adapter, tmp_path)


def test_directories_that_are_no_adapter(tmp_path, adapted):
    load = small.llama_policy().load_adapter
    assert "adapter_config.json is missing" in refusal(load, tmp_path)
    write_adapter(adapted, tmp_path)
    assert "holds an adapter without the model" in refusal(
        tfrlhf.Policy.from_preset, tmp_path
    )
    assert "has an adapter already" in refusal(adapted.load_adapter, tmp_path)
    (tmp_path / "adapter_model.safetensors").write_bytes(b"cut")
    assert "not a safetensors file" in refusal(load, tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    assert "adapter_model.safetensors is missing" in refusal(load, tmp_path)
