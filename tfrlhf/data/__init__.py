"""Text on disk to carriers of token ids, and carriers to batches.

Knows records, the tokenizer's ids and padding; no model and no training.
"""

from tfrlhf.data.batches import batches
from tfrlhf.data.examples import examples
from tfrlhf.data.examples import sequences
from tfrlhf.data.packing import PackedExamples
from tfrlhf.data.packing import pack
from tfrlhf.data.preferences import preferences
from tfrlhf.data.prompts import check_prompts
from tfrlhf.data.prompts import encode_prompts
from tfrlhf.data.prompts import prompt_texts
from tfrlhf.data.ratings import ratings
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import read_jsonl
from tfrlhf.data.sources import Records
from tfrlhf.data.sources import load
from tfrlhf.data.stream import Stream
from tfrlhf.data.stream import stream
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.transcripts import read_transcripts

__all__ = [
    "DataError",
    "PackedExamples",
    "Record",
    "Records",
    "Stream",
    "TextTokenizer",
    "batches",
    "check_prompts",
    "encode_prompts",
    "examples",
    "load",
    "pack",
    "preferences",
    "prompt_texts",
    "ratings",
    "read_jsonl",
    "read_transcripts",
    "sequences",
    "stream",
]
