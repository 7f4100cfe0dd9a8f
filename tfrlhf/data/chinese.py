"""What Chinese text needs, which has no spaces between its words."""

import re

_CHARACTER = re.compile("([㐀-鿿])")


def is_chinese(text: str) -> bool:
    """Tells whether a text has a Chinese character.

    Args:
        text: any text.

    Example:
        >>> is_chinese("Hello, 你好"), is_chinese("Hello")
        (True, False)
    """
    return _CHARACTER.search(text) is not None


def characters_apart(text: str) -> str:
    """Puts each Chinese character on a line of its own.

    A byte-level BPE tokenizer takes a run of them for one word: trained on a
    small corpus it makes tokens of whole phrases. Trained on such text it
    makes tokens of the single characters, which new sentences share.

    Args:
        text: any text to train a tokenizer on.

    Example:
        >>> characters_apart("Tea 茶叶").split()
        ['Tea', '茶', '叶']
    """
    return _CHARACTER.sub(r"\n\1\n", text)
