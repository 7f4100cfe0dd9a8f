"""Every family against numbers that transformers on PyTorch computed.

`python -m tests.parity` made the numbers (tests/golden/models); the weights are
drawn anew.
"""

import json
import pathlib

import keras
import keras_hub
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save_file

import tfrlhf
from tests.parity import cases
from tests.parity import checks
from tfrlhf.models.policy import PLAIN_HEADS
from tfrlhf.models.transformers_bridge import read_causal_lm
from tfrlhf.models.transformers_weights import weight_map

GOLDEN = pathlib.Path(__file__).parents[1] / "golden" / "models"


def golden(case):
    return np.load(GOLDEN / f"{cases.slug(case)}.npz")


def write(directory, case, **changes):
    """The checkpoint of a case, with other fields in its config.json."""
    kept = golden(case)
    config = json.loads(str(kept["config"])) | changes
    dtype = ml_dtypes.bfloat16 if case in cases.BFLOAT16 else "float32"
    tensors = {
        name: cases.draw(name, shape).astype(dtype)
        for name, shape in json.loads(str(kept["tensors"])).items()
    }
    (directory / "config.json").write_text(json.dumps(config))
    if case in cases.SHARDED:
        write_shards(directory, tensors)
    else:
        save_file(tensors, directory / "model.safetensors")
    checks.tokenizer(directory)
    return directory


def write_shards(directory, tensors):
    names = sorted(tensors)
    index = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-{number}.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file)
        index |= dict.fromkeys(part, file)
    path = directory / "model.safetensors.index.json"
    path.write_text(json.dumps({"weight_map": index}))


@pytest.fixture(scope="module", params=cases.CASES)
def loaded(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(cases.slug(request.param))
    policy = tfrlhf.Policy.from_preset(write(directory, request.param))
    return request.param, policy, checks.logits(policy)


def test_the_logits_are_those_of_transformers(loaded):
    case, _, logits = loaded
    _, mask = cases.sequences()
    there = np.broadcast_to(mask[:, :, None] > 0, logits.shape)[cases.KEPT]
    apart = np.abs(logits[cases.KEPT] - golden(case)["logits"])[there]
    assert apart.max() < 1e-4


def test_greedy_goes_on_as_in_transformers(loaded):
    case, policy, _ = loaded
    ours = checks.greedy(policy, cases.prompts(), cases.NEW_TOKENS)
    assert ours == golden(case)["greedy"].tolist()


def test_a_copy_and_a_preset_say_the_same(loaded, tmp_path):
    _, policy, logits = loaded
    copy = tfrlhf.frozen_copy(policy)
    np.testing.assert_array_equal(checks.logits(copy), logits)
    saved = checks.through_preset(policy, tmp_path)
    np.testing.assert_array_equal(checks.logits(saved), logits)
    assert type(saved.model) is type(policy.model)


def test_a_reward_model_sees_the_same_hidden_states(loaded, tmp_path):
    _, policy, _ = loaded
    reward = tfrlhf.RewardModel.from_policy(policy)
    ids, mask = cases.sequences()
    inputs = {"token_ids": ids, "padding_mask": mask}
    expected = np.asarray(policy.trunk(inputs))
    np.testing.assert_array_equal(reward.backbone(inputs), expected)
    reward.save_to_preset(tmp_path)
    saved = tfrlhf.RewardModel.from_preset(tmp_path)
    np.testing.assert_array_equal(saved.backbone(inputs), expected)


def test_the_weight_map_covers_what_is_learned_once(loaded):
    backbone = loaded[1].model.backbone
    entries = weight_map(backbone)
    mapped = [id(v) for entry in entries for v in entry.variables]
    assert len(set(mapped)) == len(mapped)
    assert set(mapped) == {id(v) for v in backbone.trainable_variables}
    assert {e.name: list(e.shape) for e in entries} == json.loads(
        str(golden(loaded[0])["tensors"])
    )


def test_every_variable_has_a_value(loaded):
    # SmolLM3's rotary frequencies are in no file.
    assert all(v._value is not None for v in loaded[1].model.weights)


def test_what_was_read_is_what_is_written(loaded):
    case, policy, _ = loaded
    for entry in weight_map(policy.model.backbone):
        expected = cases.draw(entry.name, entry.shape)
        if case in cases.BFLOAT16:
            expected = expected.astype(ml_dtypes.bfloat16).astype("float32")
        np.testing.assert_array_equal(entry.read(), expected)


def test_an_adapter_and_a_shared_trunk(loaded):
    _, policy, logits = loaded
    copy = tfrlhf.frozen_copy(policy)
    copy.trainable = True
    copy.enable_lora(2)
    np.testing.assert_array_equal(checks.logits(copy), logits)
    for weight in copy.adapter.weights:
        weight.assign(cases.draw(weight.name, weight.shape))
    adapted = checks.logits(copy)
    assert np.abs(adapted - logits).max() > 1e-3
    if isinstance(copy.model, PLAIN_HEADS):
        ids, mask = cases.sequences()
        hidden = copy.hidden_states(ids, mask)
        shared = copy.model.backbone.token_embedding(hidden, reverse=True)
        real = mask > 0
        np.testing.assert_allclose(
            np.asarray(shared)[real], np.asarray(copy.call(ids, mask))[real]
        )
    copy.merge_lora()
    np.testing.assert_allclose(checks.logits(copy), adapted, atol=1e-4)


def test_a_model_that_needs_nothing_is_keras_hubs_own(tmp_path):
    model = read_causal_lm(write(tmp_path, "gemma 3")).model
    assert type(model) is keras_hub.models.Gemma3CausalLM
    assert type(model.backbone) is keras_hub.models.Gemma3Backbone


def test_the_real_story_goes_on_as_in_transformers(stories_directory):
    policy = tfrlhf.Policy.from_preset(stories_directory)
    prompt = policy.need_tokenizer().encode(cases.STORY)
    expected = json.loads((GOLDEN / "story.json").read_text())
    assert checks.greedy(policy, [prompt], cases.STORY_TOKENS) == [expected]


# --- Spellings and defaults --------------------------------------------------


def logits_of(directory):
    model = read_causal_lm(directory)
    return checks.logits(tfrlhf.Policy(model.model, None, 160))


SPELLINGS = {
    "transformers 5": (
        "gemma 3, odd",
        {
            "rope_theta": None,
            "rope_local_base_freq": None,
            "rope_scaling": None,
            "rope_parameters": {
                "full_attention": {
                    "rope_type": "linear",
                    "factor": 4.0,
                    "rope_theta": 2e5,
                },
                "sliding_attention": {
                    "rope_type": "default",
                    "rope_theta": 5e3,
                },
            },
        },
    ),
    "a pattern instead of a list": (
        "gemma 3",
        {"layer_types": None, "sliding_window_pattern": 6},
    ),
    "the list's default": ("qwen 2.5, window", {"layer_types": None}),
    "the layers without positions by interval": (
        "smollm3, window",
        {"no_rope_layers": None, "layer_types": None},
    ),
    "a window that is off": (
        "qwen 3",
        {"layer_types": None, "sliding_window": 3, "max_window_layers": 0},
    ),
}


@pytest.mark.parametrize(("case", "changes"), SPELLINGS.values(), ids=SPELLINGS)
def test_other_spellings_of_the_same(tmp_path, case, changes):
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    expected = logits_of(write(before, case))
    got = logits_of(write(after, case, **changes))
    np.testing.assert_array_equal(got, expected)


def test_a_missing_window_of_mistral_is_not_no_window(tmp_path):
    directory = write(tmp_path, "mistral, no window")
    assert read_causal_lm(directory).model.backbone.sliding_window is None
    config = json.loads((directory / "config.json").read_text())
    del config["sliding_window"]
    (directory / "config.json").write_text(json.dumps(config))
    assert read_causal_lm(directory).model.backbone.sliding_window == 4096


# --- What is refused ---------------------------------------------------------

QWEN3, GEMMA3, SMOLLM3 = "qwen 3", "gemma 3, odd", "smollm3"
LLAMA3 = {"rope_type": "llama3", "factor": 2.0}
REFUSED = [
    ("mistral", {"tie_word_embeddings": True}, "an output matrix of its own"),
    ("mistral", {"sliding_window": 0}, "a positive whole number"),
    ("mistral", {"hidden_act": "gelu"}, "Mistral has it built in"),
    ("mistral", {"rope_scaling": LLAMA3}, "only 'default', 'linear'"),
    ("qwen 2.5", {"head_dim": 8}, "has no separate head size"),
    ("qwen 2.5", {"num_key_value_heads": 3}, "`num_key_value_heads`, 3"),
    ("qwen 2.5", {"use_mrope": True}, "only positions in text"),
    ("qwen 2.5", {"layer_types": ["sliding_attention"] * 2}, "keep one"),
    (QWEN3, {"attention_bias": True}, "no such biases"),
    (QWEN3, {"layer_types": ["full_attention"]}, "for each of 2 layers"),
    (QWEN3, {"layer_types": ["chunked_attention"] * 2}, "must list"),
    (QWEN3, {"rope_scaling": {"type": "yarn", "factor": 4.0}}, "is 'yarn'"),
    (GEMMA3, {"attn_logit_softcapping": 50.0}, "other programs do not"),
    (GEMMA3, {"use_bidirectional_attention": True}, "only decoders"),
    (GEMMA3, {"hidden_activation": "silu"}, "has it built in"),
    (GEMMA3, {"tie_word_embeddings": False}, "has it built in"),
    (GEMMA3, {"query_pre_attn_scalar": 0}, "a positive number"),
    (GEMMA3, {"rope_parameters": {"rope_theta": 1e4}}, "unknown"),
    (SMOLLM3, {"attention_bias": True}, "no such biases"),
    (SMOLLM3, {"tie_word_embeddings": False}, "no output matrix"),
    (SMOLLM3, {"no_rope_layers": [1]}, "must list 0 or 1"),
    (SMOLLM3, {"rope_scaling": LLAMA3}, "only 'default' can be loaded"),
    (SMOLLM3, {"partial_rotary_factor": 0.5}, "a field unknown here"),
]


@pytest.mark.parametrize(("case", "changes", "part"), REFUSED, ids=str)
def test_a_field_that_cannot_be_honoured_is_named(
    tmp_path, case, changes, part
):
    with pytest.raises(ValueError) as caught:
        read_causal_lm(write(tmp_path, case, **changes))
    message = str(caught.value)
    assert f"`{next(iter(changes))}" in message
    assert f"of {tmp_path / 'config.json'}" in message
    assert part in message
    assert message.endswith(".") and "\n" not in message


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_no_numbers(tmp_path, bad):
    directory = write(tmp_path, "mistral")
    name = "model.layers.1.mlp.up_proj.weight"
    rewrite(directory, name, lambda tensor: tensor.flat.__setitem__(5, bad))
    with pytest.raises(ValueError) as caught:
        read_causal_lm(directory)
    assert str(caught.value).startswith(
        f"`{name}` of {directory / 'model.safetensors'} has 1 weights"
    )


def test_a_file_that_was_cut(tmp_path):
    directory = write(tmp_path, "mistral")
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="or not all of it"):
        read_causal_lm(directory)


def test_the_model_keeps_nothing_of_the_file(tmp_path):
    directory = write(tmp_path, "mistral")
    model = read_causal_lm(directory).model
    policy = tfrlhf.Policy(model, None, 160)
    before = checks.logits(policy)
    with (directory / "model.safetensors").open("r+b") as file:
        file.write(bytes(file.seek(0, 2) - file.seek(0)))
    np.testing.assert_array_equal(checks.logits(policy), before)


@pytest.mark.parametrize("refused", [False, True])
def test_keras_is_left_as_it_was(tmp_path, refused):
    directory = write(tmp_path, "mistral")
    if refused:
        rewrite(directory, "model.norm.weight", lambda t: t.fill(np.nan))
        with pytest.raises(ValueError, match="NaN"):
            read_causal_lm(directory)
    else:
        read_causal_lm(directory)
    # It initialises what waits, and fails at what has its value already.
    with keras.StatelessScope():
        pass


def rewrite(directory, name, change):
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors[name])
    save_file(tensors, path)
