"""Where a text may be cut without changing its tokens.

Byte-level tokenizers split a text into words before they merge bytes. Between
two words the ids of both sides are those of the whole, so that a response can
be tokenised without its prompt, in a fraction of the time.
"""

import itertools
import json
import re
from typing import Any
from typing import NamedTuple

# How GPT-2 splits; the pre-tokenizer knows it without writing it.
GPT2 = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+"
    r"| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)
_START = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _START + r"\p{N}{1,3}" + _END
QWEN2 = _START + r"\p{N}" + _END


# Signs that no pattern takes for letters; an apostrophe may begin "'s".
_SIGNS = frozenset('!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~。，、；：？！…')


class WordEnds(NamedTuple):
    """Where the words of a tokenizer end, whatever else the text holds.

    Attributes:
        at_spaces: Whether before a space.
        at_signs: Whether between a sign and a letter or digit too.
        inside: Pairs of characters that an added token holds.
    """

    at_spaces: bool
    at_signs: bool
    inside: frozenset[str]

    def between(self, prompt: str, response: str) -> bool:
        """Tells whether a word certainly ends between two texts."""
        last, first = prompt[-1:], response[:1]
        if not last or not first or last.isspace():
            return False
        if first == " ":
            return self.at_spaces
        return (
            self.at_signs
            and last in _SIGNS
            and _is_plain(first)
            and last + first not in self.inside
        )


def find_word_ends(backend: Any) -> WordEnds:
    """Looks up where a tokenizer's words end.

    Args:
        backend: A `tokenizers.Tokenizer`.
    """
    at_spaces = splits_at_spaces(backend)
    added = backend.get_added_tokens_decoder().values()
    inside = frozenset(
        token.content[i : i + 2]
        for token in added
        for i in range(len(token.content) - 1)
    )
    # The others take a sign and the letters after it for one word.
    at_signs = at_spaces and _pattern(backend) == GPT2
    return WordEnds(at_spaces, at_signs, inside)


def find_cuts(backend: Any) -> re.Pattern[str] | None:
    """Returns what ends a part of a text that can be tokenised by itself.

    Added tokens are taken out of a text before it is split into words, so the
    parts between them do not depend on each other.

    Args:
        backend: A `tokenizers.Tokenizer`.

    Returns:
        A pattern of all added tokens; None where that is not certain.
    """
    added = backend.get_added_tokens_decoder().values()
    contents = {token.content for token in added} - {""}
    begins = {text[:i] for text in contents for i in range(1, len(text) + 1)}
    # Where tokens overlap, which one is found depends on what is before.
    overlap = any(
        text[i:j] in (begins if j == len(text) else contents)
        for text in contents
        for i in range(1, len(text))
        for j in range(i + 1, len(text) + 1)
    )
    nested = any(
        text[:i] in contents for text in contents for i in range(len(text))
    )
    if not contents or overlap or nested or not splits_at_spaces(backend):
        return None
    return re.compile("|".join(map(re.escape, sorted(contents))))


def cut(text: str, cuts: re.Pattern[str]) -> list[str]:
    """Cuts a text after each match."""
    ends = [0, *(match.end() for match in cuts.finditer(text)), len(text)]
    return [text[a:b] for a, b in itertools.pairwise(ends) if a < b]


def _is_plain(character: str) -> bool:
    """Whether every version of Unicode calls it a letter or digit."""
    return (character.isascii() and character.isalnum()) or (
        "\u4e00" <= character <= "\u9fa5"
    )


def _pattern(backend: Any) -> str:
    """The splitting of a backend that splits at spaces."""
    state = json.loads(backend.pre_tokenizer.__getstate__())
    first, *rest = state.get("pretokenizers", [state])
    return first["pattern"]["Regex"] if rest else GPT2


def splits_at_spaces(backend: Any) -> bool:
    """Tells whether a word always ends where text is followed by a space.

    True for the splitting of GPT-2, Llama 3 and Qwen 2, as long as no added
    token could reach over the space.

    Args:
        backend: A `tokenizers.Tokenizer`.
    """
    added = backend.get_added_tokens_decoder().values()
    reaching = any(
        token.lstrip
        or token.rstrip
        or token.single_word
        or " " in token.content
        for token in added
    )
    if reaching or backend.normalizer is not None or not backend.pre_tokenizer:
        return False
    state = json.loads(backend.pre_tokenizer.__getstate__())
    steps = state.get("pretokenizers", [state])
    *splits, last = steps
    if last.get("type") != "ByteLevel" or last.get("add_prefix_space"):
        return False
    if not splits:
        return bool(last.get("use_regex", True))
    first = splits[0]
    return (
        len(splits) == 1
        and not last.get("use_regex", True)
        and first.get("type") == "Split"
        and first.get("behavior") == "Isolated"
        and not first.get("invert")
        and first.get("pattern", {}).get("Regex") in (GPT2, LLAMA3, QWEN2)
    )
