"""What the machine gives: products through oneDNN, and reading memory."""

import statistics
import threading
import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from benchmarks.turns import Turns

SIDE = 2048
REPEATS = 9
# Far more than the caches hold.
BYTES = 2**30
THREADS = 2


def run(turns: Turns) -> None:
    """Measures FLOPs and bytes a second, each turn anew."""
    products = {
        name: make_product(dtype)
        for name, dtype in (("float32", tf.float32), ("bfloat16", tf.bfloat16))
    }
    numbers = np.ones(BYTES // 4, np.float32)
    parts = np.array_split(numbers, THREADS)
    read(parts)
    while turns.wait():
        rates = {
            name: 2 * SIDE**3 / median(product)
            for name, product in products.items()
        }
        # Others can only make it slower.
        seconds = min(timed(lambda: read(parts)) for _ in range(3))
        turns.report(rates | {"bandwidth": BYTES / seconds})


def make_product(dtype: tf.DType) -> Callable[[], None]:
    """A large square product, warmed up."""
    left, right = (
        tf.cast(tf.random.normal([SIDE, SIDE]), dtype) for _ in range(2)
    )
    function = tf.function(lambda: tf.matmul(left, right), autograph=False)
    for _ in range(3):
        function()
    return function


def read(parts: list[np.ndarray]) -> None:
    """Reads arrays from memory, each in a thread of its own."""
    threads = [
        # It lets other threads run, and keeps up with the memory.
        threading.Thread(target=np.max, args=(part,))
        for part in parts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def median(work: Callable[[], None]) -> float:
    """Median seconds."""
    return statistics.median(timed(work) for _ in range(REPEATS))


def timed(work: Callable[[], None]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
