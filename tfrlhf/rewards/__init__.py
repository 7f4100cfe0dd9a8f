"""Reward functions over text, a family of them in one file.

A reward is any callable `(prompts: list[str], responses: list[str],
**columns) -> list[float]`. Where there is nothing to set it is a function;
where there is, a class of that call. The functions here know no model and no
data set.
"""

from tfrlhf.rewards.answers import F1
from tfrlhf.rewards.answers import ExactMatch
from tfrlhf.rewards.classifier import Classifier
from tfrlhf.rewards.code_tests import CodeTests
from tfrlhf.rewards.combination import Combined
from tfrlhf.rewards.combination import combine
from tfrlhf.rewards.courtesy import courtesy
from tfrlhf.rewards.endpoint import EndpointError
from tfrlhf.rewards.endpoint import HTTPReward
from tfrlhf.rewards.fluency import NegativePerplexity
from tfrlhf.rewards.form import Format
from tfrlhf.rewards.form import Length
from tfrlhf.rewards.form import Repetition
from tfrlhf.rewards.labels import LabelMatch
from tfrlhf.rewards.labels import read_labels
from tfrlhf.rewards.labels import write_labels
from tfrlhf.rewards.numeric import NumericAnswer
from tfrlhf.rewards.retrieval import Retriever
from tfrlhf.rewards.safety import BlockedWords
from tfrlhf.rewards.safety import ClassifierFilter
from tfrlhf.rewards.sandbox import Sandbox
from tfrlhf.rewards.sandbox import SandboxError
from tfrlhf.rewards.sentiment import vader
from tfrlhf.rewards.text_overlap import BLEU
from tfrlhf.rewards.text_overlap import CHRF
from tfrlhf.rewards.text_overlap import ROUGE
from tfrlhf.rewards.words import words

__all__ = [
    "BLEU",
    "BlockedWords",
    "CHRF",
    "Classifier",
    "ClassifierFilter",
    "CodeTests",
    "Combined",
    "EndpointError",
    "ExactMatch",
    "F1",
    "Format",
    "HTTPReward",
    "LabelMatch",
    "Length",
    "NegativePerplexity",
    "NumericAnswer",
    "ROUGE",
    "Repetition",
    "Retriever",
    "Sandbox",
    "SandboxError",
    "combine",
    "courtesy",
    "read_labels",
    "vader",
    "words",
    "write_labels",
]
