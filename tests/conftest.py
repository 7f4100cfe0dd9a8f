"""Environment and outside data for every test."""

import os

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import gzip
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def shared_data():
    """Data that is no part of the project: TFRLHF_TEST_DATA or ../shared."""
    default = ROOT.parent / "shared"
    path = pathlib.Path(os.environ.get("TFRLHF_TEST_DATA", default))
    if not path.is_dir():
        reason = f"no outside data at {path}: set TFRLHF_TEST_DATA"
        if os.environ.get("TFRLHF_REQUIRE_DATA") == "1":
            pytest.fail(reason)
        pytest.skip(reason)
    return path


@pytest.fixture(scope="session")
def gpt2_directory(shared_data, tmp_path_factory):
    """A Hugging Face directory of GPT-2 with its real vocabulary."""
    directory = tmp_path_factory.mktemp("gpt2")
    for name in ("vocab.json", "merges.txt"):
        packed = shared_data / "tokenizers" / f"gpt2_{name}.gz"
        (directory / name).write_bytes(gzip.decompress(packed.read_bytes()))
    (directory / "config.json").write_text('{"model_type": "gpt2"}')
    return directory


@pytest.fixture(scope="session")
def stories_directory(shared_data):
    """The Hugging Face directory of a real trained Llama."""
    return shared_data / "checkpoints" / "stories260K"
