"""The shapes that are measured; both sides build their models from them.

Knows no library: it is imported in the environments of all sides.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Shape:
    """A language model and the batch it sees.

    Attributes:
        layers: of the trunk.
        width: of its hidden states.
        heads: of the attention.
        vocabulary: rows of the embedding, which is the head too.
        prompt: tokens of every prompt.
        response: the most tokens of a response.
        batch: rows.
        family: "gpt2" or "llama".
        key_heads: of keys and values; 0 for as many as there are heads.
        inner: width inside the feed-forward part; 0 for four times the width.
    """

    layers: int
    width: int
    heads: int
    vocabulary: int
    prompt: int = 32
    response: int = 64
    batch: int = 16
    family: str = "gpt2"
    key_heads: int = 0
    inner: int = 0

    @property
    def length(self) -> int:
        """Tokens of a whole row."""
        return self.prompt + self.response

    @property
    def feed_forward(self) -> int:
        """Width inside the feed-forward part."""
        return self.inner or 4 * self.width

    @property
    def key_width(self) -> int:
        """Width of keys and values of all heads."""
        return self.width // self.heads * (self.key_heads or self.heads)


SHAPES = {
    "tiny": Shape(2, 64, 2, 512, prompt=16, response=16),
    "small": Shape(4, 256, 4, 8192, prompt=32, response=48),
    "large": Shape(6, 384, 6, 16384, prompt=32, response=64),
    "large-50k": Shape(6, 384, 6, 50257, prompt=32, response=64),
    "generate-small": Shape(4, 256, 4, 8192),
    "gpt2": Shape(12, 768, 12, 50257, batch=8),
    "stories260k": Shape(
        5, 64, 8, 512, batch=64, family="llama", key_heads=4, inner=172
    ),
}
# Of the limit; where responses end by themselves.
MEAN_LENGTH = 0.25
# Responses to a prompt, of RLOO and GRPO.
GROUP = 4
# So small that the policy stays what it was over a whole measurement.
LEARNING_RATE = 1e-7


def find(name: str, changes: Mapping[str, Any] | None = None) -> Shape:
    """Returns the shape of a name, some of its fields changed."""
    return dataclasses.replace(SHAPES[name], **(changes or {}))
