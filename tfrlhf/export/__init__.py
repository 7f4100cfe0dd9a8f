"""What leaves: SavedModels that answer text, for TF Serving."""

from tfrlhf.export.graph_tokenizer import GraphTokenizer
from tfrlhf.export.graph_tokenizer import UnsupportedTokenizer
from tfrlhf.export.saved_model import write_saved_model

__all__ = ["GraphTokenizer", "UnsupportedTokenizer", "write_saved_model"]
