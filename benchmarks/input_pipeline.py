"""How fast records become batches of ids, beside the tokenizer's own speed.

    python benchmarks/input_pipeline.py [DATA]

For each kind of data: examples a second through `encode_batch` of the backend,
which makes ids of the same texts and nothing else, and what part of it
`data.stream` reaches, as batches of arrays (epoch) and as a Dataset. Both are
measured in turns, three times; the processor time of all threads is what to
compare where other programs run. DATA is a directory with
data/math/gsm8k_train.jsonl.gz, data/sft/oasst_zh.jsonl.gz and GPT-2's
vocabulary under tokenizers/; without it the data of the package are used.
"""

import gzip
import os
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import tokenizers

import tfrlhf
from tfrlhf import data

CHATML = """{% for m in messages %}<|im_start|>{{ m.role }}
{{ m.content }}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""
EMBEDDED = pathlib.Path(tfrlhf.__file__).parent / "data" / "embedded"
LENGTH = 16384
Json = dict[str, Any]


def main(directory: str | None = None) -> None:
    """Prints the ratios."""
    records, chats, tokenizer = sources(directory)
    texts = [record["prompt"] + record["response"] for record in records]
    measure("prompt and response", records, texts, tokenizer)
    tokenizer = chat_tokenizer(tokenizer)
    texts = [tokenizer.render_chat(chat["messages"]) for chat in chats]
    measure("messages", chats, texts, tokenizer)


def sources(
    directory: str | None,
) -> tuple[list[Json], list[Json], tfrlhf.Tokenizer]:
    """Records of texts, records of messages, and a tokenizer."""
    if directory is None:
        found = [
            record
            for name in ("en", "zh")
            for record in data.read_jsonl(
                EMBEDDED / f"reviews_{name}.jsonl", required=()
            )
        ]
        records = [
            {"prompt": record["review"], "response": reply}
            for record in found
            for reply in record.get("replies", [])
        ]
        records *= 1 + 5000 // len(records)
        lines = [record["review"] for record in found]
        chats = [as_chat(record) for record in records]
        return records, chats, tfrlhf.Tokenizer.train(lines, 2000)
    root = pathlib.Path(directory)
    records = list(data.load(root / "data/math/gsm8k_train.jsonl.gz"))
    chats = list(data.load(root / "data/sft/oasst_zh.jsonl.gz")) * 4
    with tempfile.TemporaryDirectory() as place:
        for name in ("vocab.json", "merges.txt"):
            packed = root / "tokenizers" / f"gpt2_{name}.gz"
            target = pathlib.Path(place) / name
            target.write_bytes(gzip.decompress(packed.read_bytes()))
        tokenizer = tfrlhf.Tokenizer.from_directory(place)
    return records, [as_chat(record) for record in chats], tokenizer


def as_chat(record: Json) -> Json:
    """A record of messages, whatever its prompt is."""
    prompt = record["prompt"]
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    answer = {"role": "assistant", "content": record["response"]}
    return {"messages": [*prompt, answer]}


def chat_tokenizer(tokenizer: tfrlhf.Tokenizer) -> tfrlhf.Tokenizer:
    """The same tokenizer with ChatML."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    end = backend.token_to_id("<|im_end|>")
    return tfrlhf.Tokenizer(
        backend, bos_id=None, eos_id=end, pad_id=end, chat_template=CHATML
    )


def measure(
    name: str,
    records: list[Json],
    texts: list[str],
    tokenizer: tfrlhf.Tokenizer,
) -> None:
    """Prints three lines for one kind of data."""
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    stream = data.stream(records, tokenizer, LENGTH)
    dataset = stream.dataset(check=False)
    steps = {
        "encode_batch": lambda: backend.encode_batch(texts),
        "epoch": lambda: sum(1 for _ in stream.epoch(0)),
        "dataset": lambda: sum(1 for _ in dataset),
    }
    for _ in range(3):
        taken = {step: timed(run) for step, run in steps.items()}
        wall, processor = taken.pop("encode_batch")
        ratios = ", ".join(
            f"{step} {wall / a:.2f} (processor {processor / b:.2f})"
            for step, (a, b) in taken.items()
        )
        print(f"{name}: {len(texts) / wall:.0f} examples/s, {ratios}")


def timed(run: Callable[[], object]) -> tuple[float, float]:
    """Seconds, and seconds of all processors."""
    wall, processor = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - wall, time.process_time() - processor


if __name__ == "__main__":
    main(*sys.argv[1:])
