"""A small language model from nothing, for tasks that bring their own text."""

from collections.abc import Iterable

import keras_hub

from tfrlhf import checks
from tfrlhf.models.policy import Policy
from tfrlhf.models.tokenizer import Tokenizer

HEADS = 4


def small_policy(
    texts: Iterable[str] | None = None,
    *,
    tokenizer: Tokenizer | None = None,
    vocabulary_size: int = 2048,
    layers: int = 4,
    width: int = 128,
    context_length: int = 160,
) -> Policy:
    """Makes a random GPT-2 without dropout, of 1 million parameters or so.

    It has read nothing: `SFT(policy, learn_prompts=True)` teaches it the
    language of the texts, prompts included.

    Args:
        texts: what a byte-level BPE tokenizer is trained on.
        tokenizer: one that exists, instead of texts.
        vocabulary_size: tokens that training may make.
        layers: of the backbone.
        width: of its hidden states; four heads share it.
        context_length: the most tokens of prompt and response together.

    Returns:
        The policy, with its tokenizer.

    Raises:
        ValueError: texts and a tokenizer, or neither; a single string; no
            layers, or a width that the heads cannot share.

    Example:
        >>> examples = [{"prompt": "What is 1 + 1? ", "response": "2"}]
        >>> texts = [e["prompt"] + e["response"] for e in examples]
        >>> policy = tfrlhf.small_policy(texts)
    """
    if (texts is None) == (tokenizer is None):
        raise ValueError(
            "small_policy needs texts or a tokenizer, one of them."
        )
    checks.within("layers", layers, 1)
    checks.within("context_length", context_length, 2)
    if width < HEADS or width % HEADS:
        raise ValueError(
            f"`width` must be a multiple of {HEADS}, as so many heads share "
            f"it. Received: {width}."
        )
    if tokenizer is None:
        assert texts is not None
        tokenizer = Tokenizer.train(texts, vocabulary_size)
    backbone = keras_hub.models.GPT2Backbone(
        # A multiple of 64 is quicker to multiply with.
        vocabulary_size=-(-tokenizer.vocabulary_size // 64) * 64,
        num_layers=layers,
        num_heads=HEADS,
        hidden_dim=width,
        intermediate_dim=4 * width,
        max_sequence_length=context_length,
        dropout=0.0,
    )
    model = keras_hub.models.GPT2CausalLM(backbone=backbone, preprocessor=None)
    return Policy(model, tokenizer)
