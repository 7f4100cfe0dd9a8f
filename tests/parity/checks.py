"""A checkpoint of transformers in the hands of tfrlhf, measured."""

import pathlib
import warnings

import numpy as np
import tokenizers
from tokenizers import models
from tokenizers import pre_tokenizers

import tfrlhf
from tests.parity import cases
from tfrlhf.export import write_adapter
from tfrlhf.export import write_transformers
from tfrlhf.types import Prompts

# Of `reward_model`, head and gain together.
BIAS = 0.3 * 1.7 - 0.2
GREEDY = tfrlhf.Sampler(temperature=0.0, stop_token_ids=())


def tokenizer(path):
    """Writes one token a word: the ids of a case, PAD and EOS special."""
    vocabulary = {f"w{i}": i for i in range(cases.VOCABULARY)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, "w2"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.add_special_tokens([f"w{cases.PAD}", f"w{cases.EOS}"])
    special = {"bos_id": None, "eos_id": cases.EOS, "pad_id": cases.PAD}
    tfrlhf.Tokenizer(backend, **special).save(path)


def padded(prompts):
    """Rows of ids as right-padded `Prompts`."""
    length = max(map(len, prompts))
    ids = np.full((len(prompts), length), cases.PAD, "int32")
    mask = np.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, : len(prompt)] = prompt
        mask[row, : len(prompt)] = 1
    return Prompts(ids, mask)


def logits(policy):
    """Of `cases.sequences`."""
    return np.asarray(policy(*cases.sequences()))


def difference(left, right):
    """The largest one where there is no padding."""
    _, mask = cases.sequences()
    return float(np.abs(left - right)[mask > 0].max())


def greedy(policy, prompts, count):
    """What the policy goes on with, through `generate` with its cache."""
    output = policy.generate(padded(prompts), count, GREEDY, seed=0)
    ids = np.asarray(output.token_ids)
    response = np.asarray(output.response_mask) > 0
    return [row[there].tolist() for row, there in zip(ids, response, strict=1)]


def through_preset(policy, directory):
    """The policy after `save_to_preset` and `from_preset`."""
    policy.save_to_preset(directory)
    return tfrlhf.Policy.from_preset(directory)


def reward_model(policy, share_trunk=False):
    """A reward model over the policy's weights with a head of its own."""
    reward = tfrlhf.RewardModel.from_policy(policy, share_trunk=share_trunk)
    shape = reward.head.kernel.shape
    reward.head.kernel.assign(cases.draw("score", tuple(shape)))
    reward.head.bias.assign([0.3])
    reward.gain.assign(1.7)
    reward.bias.assign(-0.2)
    return reward


def scores_to_expect(reward):
    """What transformers should say: without a bias that it has no place for."""
    scores = np.asarray(reward(*cases.sequences()))
    has_bias = "GPT2" in type(reward.backbone).__name__
    return scores if has_bias else scores - BIAS


def write_quietly(model, directory: pathlib.Path):
    """`write_transformers` without its warning about the bias."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_transformers(model, directory)


def draw_adapter(adapter):
    """Gives an adapter weights as training might."""
    for weight in adapter.weights:
        weight.assign(cases.draw(weight.name, tuple(weight.shape)))


def write_adapters(policy, targets, directory: pathlib.Path):
    """Adapts a policy, writes adapters of it and of a reward model over it.

    What they compute goes into a file, the scores without their bias.
    """
    policy.enable_lora(2, 3.0, targets)
    draw_adapter(policy.adapter)
    reward = reward_model(policy, share_trunk=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write_adapter(policy, directory / "adapter")
        write_adapter(reward, directory / "adapter_reward")
    scores = np.asarray(reward(*cases.sequences())) - BIAS
    path = directory / "adapted.npz"
    np.savez(path, logits=logits(policy), scores=scores)
