"""Records to batches of ids, beside the tokenizer alone.

The measurement is `benchmarks/input_pipeline.py`, on the package's own data.
"""

import tokenizers

from benchmarks import input_pipeline
from benchmarks.turns import Turns
from tfrlhf import data


def run(turns: Turns) -> None:
    """Encodes the records once a turn, and makes batches of them twice."""
    records, _, tokenizer = input_pipeline.sources(None)
    texts = [record["prompt"] + record["response"] for record in records]
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    stream = data.stream(records, tokenizer, input_pipeline.LENGTH)
    dataset = stream.dataset(check=False)
    works = {
        "encode": lambda: backend.encode_batch(texts),
        "epoch": lambda: sum(1 for _ in stream.epoch(0)),
        "dataset": lambda: sum(1 for _ in dataset),
    }
    while turns.wait():
        turns.report(
            {n: input_pipeline.timed(work)[0] for n, work in works.items()}
        )
