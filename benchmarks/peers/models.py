"""Random models in transformers, and a tokenizer of one word a token."""

import math
from typing import Any

import numpy as np
import torch
import transformers

from benchmarks.shapes import MEAN_LENGTH
from benchmarks.shapes import Shape


def awaken() -> None:
    """Keeps PyTorch's threads busy for some milliseconds."""
    torch.mm(torch.zeros(1024, 1024), torch.zeros(1024, 1024))


def config(
    shape: Shape, ends: bool = False, pad: bool = False, **changes: Any
) -> Any:
    """The configuration of a model without dropout.

    Args:
        shape: its size.
        ends: whether the last id ends a response; else nothing does.
        pad: whether the model knows which id is padding.
        changes: more fields.
    """
    common = {
        "vocab_size": shape.vocabulary + pad,
        "bos_token_id": None,
        "eos_token_id": shape.vocabulary - 1 if ends else None,
        "pad_token_id": shape.vocabulary if pad else None,
    }
    if shape.family == "gpt2":
        return transformers.GPT2Config(
            n_embd=shape.width,
            n_layer=shape.layers,
            n_head=shape.heads,
            n_inner=shape.feed_forward,
            n_positions=max(shape.length, 128),
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
            **changes,
        )
    return transformers.LlamaConfig(
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_heads or shape.heads,
        tie_word_embeddings=True,
        **common,
        **changes,
    )


def language_model(shape: Shape, ends: bool = False, pad: bool = False) -> Any:
    """A causal language model with random weights; see `config`."""
    torch.manual_seed(1)
    return transformers.AutoModelForCausalLM.from_config(
        config(shape, ends, pad)
    )


def scalar_model(shape: Shape, **changes: Any) -> Any:
    """The same trunk with a scalar head."""
    torch.manual_seed(2)
    return transformers.AutoModelForSequenceClassification.from_config(
        config(shape, num_labels=1, **changes)
    )


@torch.no_grad()
def end_at_random(policy: Any, shape: Shape) -> None:
    """Makes every token the last one with the same probability.

    The first number of the hidden state below the head becomes 1, and the end
    token's row of the head reads nothing else; so its logit is a constant, and
    lengths are geometric.
    """
    policy.transformer.ln_f.weight[0] = 0.0
    policy.transformer.ln_f.bias[0] = 1.0
    head = policy.get_output_embeddings().weight
    head[:, 0] = 0.0
    end = shape.vocabulary - 1
    head[end] = 0.0
    # The other logits are normal: unit inputs times weights of this spread.
    variance = shape.width * float(head[:end].var())
    others = math.log(end) + variance / 2
    chance = 1.0 / (MEAN_LENGTH * shape.response)
    head[end, 0] = others + math.log(chance / (1.0 - chance))


def tokenizer(shape: Shape) -> Any:
    """A tokenizer whose id 17 is the word t17; padding has an id of its own."""
    from tokenizers import Tokenizer
    from tokenizers import models
    from tokenizers import pre_tokenizers

    words = {f"t{i}": i for i in range(shape.vocabulary)}
    words["<pad>"] = shape.vocabulary
    backend = Tokenizer(models.WordLevel(words, unk_token="t0"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        eos_token=f"t{shape.vocabulary - 1}",
        padding_side="left",
    )


def texts(shape: Shape, count: int, length: int, seed: int = 0) -> list[str]:
    """Makes texts of as many words, each one token."""
    ids = random_ids(shape, count, length, seed)
    return [" ".join(f"t{i}" for i in row) for row in ids]


def random_ids(
    shape: Shape, count: int, length: int, seed: int = 0
) -> np.ndarray:
    """Ids that are neither padding nor the end, int32 [count, length]."""
    numbers = np.random.default_rng(seed)
    return numbers.integers(
        1, shape.vocabulary - 1, [count, length], dtype=np.int32
    )
