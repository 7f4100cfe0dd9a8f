"""Text on disk to carriers of token ids, and carriers to batches.

Knows records, the tokenizer's ids and padding; no model and no training.
"""

from tfrlhf.data.agreement import Agreement
from tfrlhf.data.agreement import annotator_agreement
from tfrlhf.data.agreement import filter_annotators
from tfrlhf.data.agreement import weight_annotators
from tfrlhf.data.batches import batches
from tfrlhf.data.chinese import characters_apart
from tfrlhf.data.chinese import is_chinese
from tfrlhf.data.clicks import click_preferences
from tfrlhf.data.examples import examples
from tfrlhf.data.examples import sequences
from tfrlhf.data.packing import PackedExamples
from tfrlhf.data.packing import pack
from tfrlhf.data.preferences import preferences
from tfrlhf.data.prompts import batches_by_length
from tfrlhf.data.prompts import check_prompts
from tfrlhf.data.prompts import encode_prompts
from tfrlhf.data.prompts import prompt_texts
from tfrlhf.data.ratings import ratings
from tfrlhf.data.records import DataError
from tfrlhf.data.records import Record
from tfrlhf.data.records import read_jsonl
from tfrlhf.data.sources import Records
from tfrlhf.data.sources import load
from tfrlhf.data.splits import split_by_prompt
from tfrlhf.data.step_ratings import separator_id
from tfrlhf.data.step_ratings import step_ratings
from tfrlhf.data.stream import Stream
from tfrlhf.data.stream import stream
from tfrlhf.data.tokens import TextTokenizer
from tfrlhf.data.transcripts import read_transcripts

__all__ = [
    "Agreement",
    "DataError",
    "PackedExamples",
    "Record",
    "Records",
    "Stream",
    "TextTokenizer",
    "annotator_agreement",
    "batches",
    "batches_by_length",
    "characters_apart",
    "click_preferences",
    "check_prompts",
    "encode_prompts",
    "examples",
    "filter_annotators",
    "is_chinese",
    "load",
    "pack",
    "preferences",
    "prompt_texts",
    "ratings",
    "read_jsonl",
    "read_transcripts",
    "separator_id",
    "sequences",
    "split_by_prompt",
    "step_ratings",
    "stream",
    "weight_annotators",
]
