"""What transformers on PyTorch computes; runs in an environment of its own.

Usage: python tests/parity/torch_side.py make DIRECTORY [STORIES IDS]
       python tests/parity/torch_side.py read DIRECTORY
"""

import json
import os
import pathlib
import sys

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

import cases
import numpy as np
import peft
import torch
import transformers
from transformers import AutoConfig
from transformers import AutoModelForCausalLM
from transformers import AutoModelForSequenceClassification
from transformers import AutoTokenizer


def make(directory, stories=None, ids=None):
    """Writes a directory for every case, and what the model in it says.

    Args:
        directory: where to.
        stories: a checkpoint that goes on with a story.
        ids: a JSON file with the ids it begins with.
    """
    effects = {}
    for case, fields in cases.CASES.items():
        target = directory / cases.slug(case) / "theirs"
        config = AutoConfig.for_model(**fields)
        model = AutoModelForCausalLM.from_config(config)
        draw_weights(model)
        if case in cases.BFLOAT16:
            model = model.to(torch.bfloat16)
        size = "40KB" if case in cases.SHARDED else "5GB"
        model.save_pretrained(target, max_shard_size=size)
        adapted = adapt(case, target)
        record(target, target.parent / "theirs.npz", adapted=adapted)
        effects[case] = field_effects(case, target)
    if stories is not None:
        model = load(stories, AutoModelForCausalLM)
        story = greedy(model, json.loads(ids.read_text()), cases.STORY_TOKENS)
        (directory / "story.json").write_text(json.dumps(story))
    versions = {"torch": torch.__version__}
    versions["transformers"] = transformers.__version__
    versions["peft"] = peft.__version__
    (directory / "versions.json").write_text(json.dumps(versions))
    (directory / "effects.json").write_text(json.dumps(effects))


def adapt(case, directory):
    """Writes an adapter of a case's model; returns the logits with it."""
    config = peft.LoraConfig(
        r=3,
        lora_alpha=5,
        target_modules=cases.ADAPTED.get(case, cases.EVERY),
        use_rslora=case in cases.RANK_STABLE,
        fan_in_fan_out=case == "gpt2",
        task_type="CAUSAL_LM",
    )
    model = peft.get_peft_model(load(directory, AutoModelForCausalLM), config)
    draw_weights(model, "lora_")
    model.save_pretrained(directory.parent / "peft")
    return logits(model.eval())


def draw_weights(model, part=""):
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if part not in name:
                continue
            weight.copy_(torch.from_numpy(cases.draw(name, weight.shape)))


def load(directory, kind):
    return kind.from_pretrained(directory, dtype=torch.float32).eval()


def record(directory, path, **more):
    model = load(directory, AutoModelForCausalLM)
    tensors = {n: list(p.shape) for n, p in model.named_parameters()}
    np.savez(
        path,
        logits=logits(model),
        greedy=np.array([greedy(model, ids) for ids in cases.prompts()]),
        config=(directory / "config.json").read_text(),
        tensors=json.dumps(tensors),
        **more,
    )


def field_effects(case, directory):
    """By how much each field moves the logits when it is another."""
    before = np.load(directory.parent / "theirs.npz")["logits"]
    effects = {}
    for name, value in cases.changed_fields(case).items():
        config = AutoConfig.for_model(**cases.CASES[case] | {name: value})
        model = AutoModelForCausalLM.from_pretrained(
            directory, config=config, dtype=torch.float32
        )
        effects[name] = float(np.abs(logits(model.eval()) - before).max())
    return effects


@torch.no_grad()
def logits(model):
    ids, mask = cases.sequences()
    return model(
        torch.tensor(ids, dtype=torch.long), attention_mask=torch.tensor(mask)
    ).logits.numpy()


@torch.no_grad()
def greedy(model, ids, count=cases.NEW_TOKENS):
    """One prompt at a time, without padding and without a stop."""
    output = model.generate(
        torch.tensor([ids]),
        attention_mask=torch.ones(1, len(ids), dtype=torch.long),
        max_new_tokens=count,
        min_new_tokens=count,
        do_sample=False,
        # Nothing may end it, and `min_new_tokens` would forbid EOS.
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(ids) :].tolist()


def read(directory):
    """Reads what `write_transformers` wrote."""
    for case in cases.CASES:
        here = directory / cases.slug(case)
        record(here / "ours", here / "ours.npz")
        AutoTokenizer.from_pretrained(here / "ours")
        model = load(here / "reward", AutoModelForSequenceClassification)
        np.save(here / "reward.npy", logits(model)[:, 0])
        read_adapters(here)


def read_adapters(here):
    """Reads what `write_adapter` wrote, over the model it was made for."""
    policy = load(here / "theirs", AutoModelForCausalLM)
    reward = AutoModelForSequenceClassification.from_pretrained(
        here / "theirs", num_labels=1, dtype=torch.float32
    )
    policy = peft.PeftModel.from_pretrained(policy, here / "adapter")
    reward = peft.PeftModel.from_pretrained(reward, here / "adapter_reward")
    np.savez(
        here / "adapter.npz",
        logits=logits(policy.eval()),
        scores=logits(reward.eval())[:, 0],
    )


if __name__ == "__main__":
    # The program's own directory is the first place to import from.
    torch.set_num_threads(1)
    command, *paths = sys.argv[1:]
    {"make": make, "read": read}[command](*map(pathlib.Path, paths))
