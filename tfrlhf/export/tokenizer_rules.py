"""What of a tokenizer.json decides the ids, and what has no in-graph form.

Reads the JSON of a tokenizer and refuses, by name, whatever the graph could
not do exactly. Knows nothing of TensorFlow but the syntax of its RE2.
"""

import json
import re
from itertools import product
from typing import Any
from typing import NamedTuple
from typing import NoReturn

from tfrlhf.models.tokenizer import BYTE_TOKEN
from tfrlhf.models.tokenizer import SPACE
from tfrlhf.models.tokenizer import byte_characters

# RE2 knows ASCII white space only, and its letters and numbers are of an older
# Unicode than those of `tokenizers`: the later ones are spelled out.
_SPACES = (
    r"\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}"
    r"\x{202f}\x{205f}\x{3000}"
)
_LETTERS = (
    r"\p{L}\x{1c89}\x{1c8a}\x{a7cb}-\x{a7cd}\x{a7da}-\x{a7dc}"
    r"\x{105c0}-\x{105f3}\x{10d4a}-\x{10d65}\x{10d6f}-\x{10d85}"
    r"\x{10ec2}-\x{10ec4}\x{11380}-\x{11389}\x{1138b}\x{1138e}"
    r"\x{11390}-\x{113b5}\x{113b7}\x{113d1}\x{113d3}\x{11bc0}-\x{11be0}"
    r"\x{13460}-\x{143fa}\x{16100}-\x{1611d}\x{16d40}-\x{16d6c}\x{18cff}"
    r"\x{1e5d0}-\x{1e5ed}\x{1e5f0}\x{2ebf0}-\x{2ee5d}"
)
_NUMBERS = (
    r"\p{N}\x{10d40}-\x{10d49}\x{116d0}-\x{116e3}\x{11bf0}-\x{11bf9}"
    r"\x{16130}-\x{16139}\x{16d70}-\x{16d79}\x{1ccf0}-\x{1ccf9}"
    r"\x{1e5f1}-\x{1e5fa}"
)
# Stands for `\s+(?!\S)`: RE2 has no look-ahead, so a run of white space before
# a word is cut in front of its last character first.
LAST_SPACE = f"([{_SPACES}])([{_SPACES}][^{_SPACES}])"
WORD = (
    f"'s|'t|'re|'ve|'m|'ll|'d| ?[{_LETTERS}]+| ?[{_NUMBERS}]+"
    f"| ?[^{_SPACES}{_LETTERS}{_NUMBERS}]+|[{_SPACES}]+"
)
_MODEL_OPTIONS = (
    "dropout",
    "continuing_subword_prefix",
    "end_of_word_suffix",
    "ignore_merges",
)
_PREPEND_AND_REPLACE = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": SPACE},
        {"type": "Replace", "pattern": {"String": " "}, "content": SPACE},
    ],
}


class UnsupportedTokenizer(ValueError):
    """The tokenizer has a part that cannot be put into a graph exactly."""


class Rules(NamedTuple):
    """How text becomes symbols.

    Attributes:
        byte_level: Symbols are the bytes of words, else the characters of
            whole texts.
        opening: When a space is put in front of a piece of text between added
            tokens: "never", of the "first" piece or "always", where none is
            there; or "unconditional".
    """

    byte_level: bool
    opening: str


def refuse(what: str) -> NoReturn:
    """Raises UnsupportedTokenizer, naming what is not supported."""
    raise UnsupportedTokenizer(
        f"No exact in-graph form of a tokenizer with {what}; export without "
        "string signatures and tokenise on the client."
    )


def kind(component: dict[str, Any] | None) -> str:
    """How a part of the tokenizer is named in an error."""
    return "null" if component is None else json.dumps(component)


def read_rules(spec: dict[str, Any]) -> Rules:
    """Reads how text is split, and refuses every way but the known ones."""
    model = spec["model"]
    if model["type"] != "BPE":
        refuse(f"model {model['type']}")
    for option in _MODEL_OPTIONS:
        if model[option]:
            refuse(f"model option {option}={model[option]!r}")
    rules = _splitting(spec)
    if not rules.byte_level and not model["byte_fallback"]:
        refuse("model option byte_fallback=False")
    return rules


def _splitting(spec: dict[str, Any]) -> Rules:
    splitter = spec["pre_tokenizer"] or {"type": None}
    normalizer = spec["normalizer"]
    if normalizer is None and splitter["type"] == "ByteLevel":
        if splitter["use_regex"]:
            opening = "always" if splitter["add_prefix_space"] else "never"
            return Rules(byte_level=True, opening=opening)
    if normalizer is None and splitter["type"] == "Metaspace":
        if splitter["replacement"] == SPACE and not splitter["split"]:
            opening = splitter["prepend_scheme"]
            return Rules(byte_level=False, opening=opening)
    if splitter["type"] is None and normalizer == _PREPEND_AND_REPLACE:
        return Rules(byte_level=False, opening="unconditional")
    refuse(
        f"normalizer {kind(normalizer)} and pre-tokenizer "
        f"{kind(spec['pre_tokenizer'])}"
    )


def added_patterns(spec: dict[str, Any]) -> list[str]:
    """A pattern for the added tokens found first, then for the later ones."""
    contents: dict[bool, list[str]] = {False: [], True: []}
    for token in spec["added_tokens"]:
        late = token["normalized"]
        options = [
            name for name in ("single_word", "lstrip", "rstrip") if token[name]
        ]
        if late and spec["normalizer"] is not None:
            options.append("normalized")
        if options:
            refuse(f"added token {token['content']!r} with {options[0]}=true")
        contents[late].append(token["content"])
    # The longest token wins, as RE2 takes the first alternative that fits.
    return [
        "|".join(re.escape(text) for text in sorted(group, key=len)[::-1])
        for group in contents.values()
        if group
    ]


def byte_ids(vocabulary: dict[str, int], rules: Rules) -> list[int]:
    """The id of each of the 256 bytes."""
    names = [f"<0x{byte:02X}>" for byte in range(256)]
    if rules.byte_level:
        names = byte_characters()
    missing = [byte for byte in range(256) if names[byte] not in vocabulary]
    if missing:
        refuse(f"no token for byte {missing[0]}")
    return [vocabulary[name] for name in names]


def junctions(
    pairs: list[tuple[str, str]], vocabulary: dict[str, int]
) -> set[tuple[int, int]]:
    """Neighbouring symbols that some merge joins; others never meet.

    A token ends in its last character or, in SentencePiece, in a byte token.
    Taking both where the name fits both joins too much, which only costs time.
    """

    def symbols(character: str, piece: str) -> list[int]:
        names = [character]
        if BYTE_TOKEN.fullmatch(piece):
            names.append(piece)
        return [vocabulary[name] for name in names if name in vocabulary]

    return {
        pair
        for left, right in pairs
        for pair in product(
            symbols(left[-1], left[-6:]), symbols(right[0], right[:6])
        )
    }
