"""A tokenizer of characters with one merge, enough to test the data code."""

import gzip
import json

import pytest

PAD, EOS, BOS, AB = 0, 1, 2, 3


class CharacterTokenizer:
    """Ids are code points, except that "ab" is one token."""

    def __init__(self, bos_id=None, eos_id=EOS):
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = PAD

    def encode(self, text):
        ids = [] if self.bos_id is None else [self.bos_id]
        return ids + self._pieces(text)

    def encode_pair(self, prompt, response):
        first, whole = self.encode(prompt), self.encode(prompt + response)
        if whole[: len(first)] == first:
            return first, whole[len(first) :], True
        return first, self._pieces(response), False

    def _pieces(self, text):
        return [ord(piece) for piece in text.replace("ab", chr(AB))]


@pytest.fixture
def tokenizer():
    return CharacterTokenizer()


@pytest.fixture
def bos_tokenizer():
    return CharacterTokenizer(bos_id=BOS)


@pytest.fixture
def endless_tokenizer():
    return CharacterTokenizer(eos_id=None)


@pytest.fixture
def write_lines(tmp_path):
    """Writes values as JSON, and bytes or strings as they are, a line each."""

    def write(*lines, name="data.jsonl"):
        path = tmp_path / name
        open_file = gzip.open if name.endswith(".gz") else open
        with open_file(path, "wb") as file:
            for line in lines:
                if not isinstance(line, bytes | str):
                    line = json.dumps(line)
                if isinstance(line, str):
                    line = line.encode()
                file.write(line + b"\n")
        return path

    return write


@pytest.fixture
def ids():
    """Code points of a text, for the expected rows."""
    return lambda text: [ord(character) for character in text]
