"""FLOPs and bytes that a phase needs, counted from the shape alone.

A product [m, k] × [k, n] is 2·m·k·n FLOPs; nothing but products is counted.
What an implementation may compute beside (padding, logits of prompts, masked
half of the attention, passes made again to save memory) is not needed and not
counted, so a share of a limit cannot be made larger by doing more.

    forward   layers · (projections + attention) + head
    backward  two products for each one of the forward pass: 2 · forward
"""

from benchmarks.shapes import Shape

EPOCHS = 4


def projections(shape: Shape, tokens: int) -> int:
    """FLOPs of the products with weights, of one layer.

    Query and output are [H, H], key and value [H, K], the feed-forward part
    two matrices [H, F] in GPT-2 and three in Llama.
    """
    matrices = 3 if shape.family == "llama" else 2
    attention = 2 * shape.width**2 + 2 * shape.width * shape.key_width
    inner = matrices * shape.width * shape.feed_forward
    return 2 * tokens * (attention + inner)


def attention(shape: Shape, rows: int, length: int) -> int:
    """FLOPs of queries times keys and weights times values, of one layer.

    A token sees itself and those before it: S (S + 1) / 2 pairs a row, each
    of them 2·H for the logit and 2·H for the value.
    """
    pairs = rows * length * (length + 1) // 2
    return pairs * 4 * shape.width


def head(shape: Shape, tokens: int) -> int:
    """FLOPs of the logits of so many tokens."""
    return 2 * tokens * shape.width * shape.vocabulary


def trunk(shape: Shape, rows: int, length: int) -> int:
    """FLOPs of all layers for rows of this length."""
    layer = projections(shape, rows * length) + attention(shape, rows, length)
    return shape.layers * layer


def forward(shape: Shape) -> int:
    """FLOPs of a pass over whole rows that scores their responses.

    The last token is not read: nothing follows it.
    """
    logits = head(shape, shape.batch * shape.response)
    return trunk(shape, shape.batch, shape.length - 1) + logits


def value_forward(shape: Shape) -> int:
    """FLOPs of the values of the responses."""
    values = 2 * shape.batch * shape.response * shape.width
    return trunk(shape, shape.batch, shape.length - 1) + values


def update(shape: Shape, shared: bool = False) -> int:
    """FLOPs of four passes over a rollout, forward and backward.

    Args:
        shape: of policy and value model.
        shared: whether both have one trunk.
    """
    value = value_forward(shape)
    if shared:
        value -= trunk(shape, shape.batch, shape.length - 1)
    return EPOCHS * 3 * (forward(shape) + value)


def collect(shape: Shape) -> int:
    """FLOPs of looking at a rollout: reference and value model.

    The policy's log-probabilities are known from sampling.
    """
    return forward(shape) + value_forward(shape)


def step(shape: Shape, rows: int) -> int:
    """FLOPs of forward and backward pass over rows of a whole length."""
    logits = head(shape, rows * shape.response)
    return 3 * (trunk(shape, rows, shape.length - 1) + logits)


def reward_step(shape: Shape) -> int:
    """FLOPs of forward and backward pass over pairs, all of which is read."""
    return 3 * trunk(shape, 2 * shape.batch, shape.length)


def prompt_pass(shape: Shape) -> int:
    """FLOPs of reading the prompts, with the logits of their last tokens."""
    whole = trunk(shape, shape.batch, shape.prompt)
    return whole + head(shape, shape.batch)


def decode_step(shape: Shape, position: int) -> int:
    """FLOPs of one new token of every row that has so many before it."""
    pairs = shape.batch * (position + 1)
    layer = projections(shape, shape.batch) + pairs * 4 * shape.width
    return shape.layers * layer + head(shape, shape.batch)


def layer_weights(shape: Shape) -> int:
    """Numbers in one layer, biases and norms included."""
    matrices = projections(shape, 1) // 2
    if shape.family == "llama":
        return matrices + 2 * shape.width
    biases = 5 * shape.width + shape.feed_forward
    return matrices + biases + 4 * shape.width


def weights_read(shape: Shape) -> int:
    """Numbers that a new token needs: the layers, the last norm, the head."""
    norm = shape.width * (1 if shape.family == "llama" else 2)
    table = shape.vocabulary * shape.width
    return shape.layers * layer_weights(shape) + norm + table


def cache_read(shape: Shape, position: int) -> int:
    """Numbers of keys and values that new tokens of all rows look at."""
    return 2 * shape.layers * shape.batch * position * shape.key_width


def rollout_seconds(
    shape: Shape, peak: float, bandwidth: float, size: int = 4
) -> float:
    """The least time that sampling whole responses can take.

    Args:
        shape: of the policy.
        peak: FLOPs a second.
        bandwidth: bytes a second; of a model that fits into the caches the
            weights may come faster.
        size: bytes of a number.

    Returns:
        The prompts at the peak; each further token at the peak or as fast as
        weights and cache can be read, whichever takes longer.
    """
    seconds = prompt_pass(shape) / peak
    for position in range(shape.prompt, shape.length - 1):
        numbers = weights_read(shape) + cache_read(shape, position)
        computed = decode_step(shape, position) / peak
        seconds += max(computed, size * numbers / bandwidth)
    return seconds
