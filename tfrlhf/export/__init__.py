"""What leaves: SavedModels for TF Serving, Hugging Face directories."""

from tfrlhf.export.adapter import write_adapter
from tfrlhf.export.graph_tokenizer import GraphTokenizer
from tfrlhf.export.graph_tokenizer import UnsupportedTokenizer
from tfrlhf.export.saved_model import write_saved_model
from tfrlhf.export.transformers import write_transformers

__all__ = [
    "GraphTokenizer",
    "UnsupportedTokenizer",
    "write_adapter",
    "write_saved_model",
    "write_transformers",
]
