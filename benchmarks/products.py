"""What the kernels give at the shapes that models have, beside their peak.

python -m benchmarks.products

An update is at most as fast as its products, and so is a new token. Here each
of them is made by itself: those of an update by oneDNN, as a share of the GEMM
peak; those of a new token by XLA and oneDNN, as the weights read a second, and
all of them in a loop compiled by XLA that makes nothing else.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from benchmarks import counts
from benchmarks.ours import limits
from benchmarks.shapes import SHAPES
from benchmarks.shapes import Shape

# Rows, inner and outer width of the products of a new token.
SMALL = (
    (8, 768, 768),
    (8, 768, 3072),
    (8, 768, 50304),
    (16, 256, 256),
    (16, 256, 1024),
)
# How many weights take turns, as layers do.
LAYERS = 6
REPEATS = 8
TOKENS = 16


def main() -> None:
    """Prints the tables."""
    peak = 2 * limits.SIDE**3 / limits.median(limits.make_product(tf.float32))
    print(f"GEMM peak {peak / 1e9:.0f} GFLOP/s")
    for name in ("small", "large"):
        show_update(name, SHAPES[name], peak)
    for rows, inner, outer in SMALL:
        speeds = {
            compiler: read_a_second(rows, inner, outer, compiler == "XLA")
            for compiler in ("XLA", "oneDNN")
        }
        told = ", ".join(f"{n} {x / 1e9:.1f} GB/s" for n, x in speeds.items())
        print(f"[{rows}, {inner}] x [{inner}, {outer}]: {told}")
    for name in ("generate-small", "large", "gpt2", "stories260k"):
        weights, all_ = (token_seconds(SHAPES[name], x) for x in (False, True))
        print(
            f"{name}, a new token's products: with weights {1e3 * weights:.2f} "
            f"ms, with keys and values too {1e3 * all_:.2f} ms"
        )


def show_update(name: str, shape: Shape, peak: float) -> None:
    """Prints the products of an update, and what they take together."""
    tokens, width = shape.batch * shape.length, shape.width
    responses = shape.batch * shape.response
    # Rows, inner, outer, how many of them in policy and value model.
    dense = {
        "projections": (tokens, width, width, 8 * shape.layers),
        "up": (tokens, width, shape.feed_forward, 2 * shape.layers),
        "down": (tokens, shape.feed_forward, width, 2 * shape.layers),
        "head": (responses, width, shape.vocabulary, 1),
    }
    total = 2 * shape.layers * attention_seconds(shape)
    for part, (rows, inner, outer, count) in dense.items():
        x, kernel, upstream = (
            tf.random.normal(size)
            for size in ((rows, inner), (inner, outer), (rows, outer))
        )
        taken = (
            seconds(tf.matmul, x, kernel),
            seconds(
                lambda a, b: tf.matmul(a, b, transpose_b=True), upstream, kernel
            ),
            seconds(
                lambda a, b: tf.matmul(a, b, transpose_a=True), x, upstream
            ),
        )
        flops = 2 * rows * inner * outer
        shares = ", ".join(f"{flops / t / peak:.0%}" for t in taken)
        print(f"{name}, {part}: forward, both gradients: {shares}")
        total += count * sum(taken)
    taken_all = counts.EPOCHS * total
    share = counts.update(shape) / taken_all / peak
    print(f"{name}, an update's products: {taken_all:.2f} s, {share:.0%}")


def attention_seconds(shape: Shape) -> float:
    """The products of one layer's attention, forward and backward."""
    heads = [shape.batch, shape.heads, shape.length]
    queries = tf.random.normal([*heads, shape.width // shape.heads])
    weights = tf.random.normal([*heads, shape.length])
    return 2 * (
        seconds(
            lambda a, b: tf.matmul(a, b, transpose_b=True), queries, queries
        )
        + seconds(tf.matmul, weights, queries)
        + seconds(
            lambda a, b: tf.matmul(a, b, transpose_a=True), weights, queries
        )
    )


def read_a_second(rows: int, inner: int, outer: int, xla: bool) -> float:
    """Bytes of weights a second, of products one after the other."""
    kernels = [tf.random.normal([inner, outer]) for _ in range(LAYERS)]

    @tf.function(jit_compile=xla, autograph=False)
    def products(x: Any, kernels: Any) -> Any:
        for kernel in kernels:
            # Each waits for the one before.
            x += 1e-9 * tf.reduce_sum(tf.matmul(x, kernel))
        return x

    x = tf.random.normal([rows, inner])
    taken = seconds(products, x, kernels, repeats=1)
    return LAYERS * 4 * inner * outer / taken


def token_seconds(shape: Shape, attention: bool) -> float:
    """What the products of a new token take, as `Policy.generate` makes them.

    Args:
        shape: of the model, whose cache is full.
        attention: whether keys and values are multiplied with.
    """
    rows, width, inner = shape.batch, shape.width, shape.feed_forward
    head_width = width // shape.heads
    key_heads = shape.key_width // head_width
    ups = 1 if shape.family == "gpt2" else 2

    def halves(height: int, width: int) -> list[Any]:
        return [kernel(height, width // 2) for _ in range(2)]

    def kernel(*size: int) -> Any:
        return tf.random.normal(size, stddev=0.05)

    layers = [
        {
            "query": kernel(width, width),
            "key": kernel(width, shape.key_width),
            "value": kernel(width, shape.key_width),
            "output": halves(width, width),
            "up": [x for _ in range(ups) for x in halves(width, inner)],
            "down": halves(inner, width),
            "keys": kernel(rows, key_heads, head_width, shape.length),
            "values": kernel(rows, key_heads, shape.length, head_width),
        }
        for _ in range(shape.layers)
    ]
    # As many columns as `decoding.head_matrix` makes.
    head = kernel(width, -(-shape.vocabulary // 128) * 128 + 64)

    def times(x: Any, kernels: Any) -> Any:
        return tf.concat([x @ each for each in kernels], axis=1)

    def token(x: Any, layers: Any, head: Any) -> Any:
        for layer in layers:
            queries, *others = (x @ layer[n] for n in ("query", "key", "value"))
            if attention:
                size = [rows, key_heads, -1, head_width]
                weights = tf.reshape(queries, size) @ layer["keys"]
                queries = tf.reshape(weights @ layer["values"], [rows, width])
            x = times(queries, layer["output"])
            x = times(times(x, layer["up"])[:, :inner], layer["down"])
            x += sum(1e-9 * tf.reduce_sum(other) for other in others)
        logits = (x @ head)[:, : shape.vocabulary]
        return x + 1e-9 * tf.reduce_max(logits, axis=1, keepdims=True)

    @tf.function(jit_compile=True, autograph=False)
    def loop(x: Any, layers: Any, head: Any) -> Any:
        def step(count: Any, x: Any) -> Any:
            return count + 1, token(x, layers, head)

        return tf.while_loop(lambda count, _: count < TOKENS, step, (0, x))[1]

    x = kernel(rows, width)
    loop(x, layers, head)
    return limits.median(lambda: loop(x, layers, head)) / TOKENS


def seconds(
    function: Callable[..., Any], *inputs: Any, repeats: int = REPEATS
) -> float:
    """The median of what a function takes, after a first call.

    It is called several times in one graph, as calling a graph takes time.
    """

    def repeated(*inputs: Any) -> Any:
        found: list[Any] = []
        for _ in range(repeats):
            with tf.control_dependencies(found[-1:]):
                found.append(function(*inputs))
        return found

    compiled = tf.function(repeated, autograph=False)
    compiled(*inputs)
    return limits.median(lambda: compiled(*inputs)) / repeats


if __name__ == "__main__":
    main()
