"""Packaging of tfrlhf: `pip install -c constraints.txt -e .[dev]`."""

from setuptools import find_packages
from setuptools import setup

setup(
    name="tfrlhf",
    version="0.1.0",
    description="Reinforcement learning from human feedback for Keras",
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["tfrlhf", "tfrlhf.*"]),
    package_data={"tfrlhf": ["py.typed", "data/embedded/*.json*"]},
    install_requires=[
        "tensorflow>=2.21,<2.22",
        "keras>=3.15,<3.16",
        "keras-nlp>=0.32,<0.33",
        "keras-rs>=0.4,<0.5",
        # 2.21.0 fails at import (undefined ICU symbol).
        "tensorflow-text>=2.21.1,<2.22",
        "transformers>=5.23,<6",
        "tokenizers>=0.22",
        "sentencepiece>=0.2.1",
        "safetensors>=0.5",
        "tensorflow-datasets>=4.9.10",
        "tensorboard>=2.21,<2.22",
        # Chat templates are written in it; transformers does not ask for it.
        "jinja2>=3.1.6",
        "sacrebleu>=2.6",
        "rouge-score>=0.1.2",
        "tyro>=1.0.17",
        "rich>=13",
    ],
    extras_require={
        "sentiment": ["vaderSentiment>=3.3.2"],
        "parquet": ["pyarrow>=15"],
        "datasets": ["datasets>=3"],
        "plots": ["matplotlib>=3.9"],
        "dev": [
            "pytest>=9",
            "pytest-xdist>=3.8",
            "ruff==0.17.5",
            "mypy==2.4.1",
        ],
    },
)
