"""Single texts through a backend, with an error for words it does not have.

Knows `tokenizers`; nothing of special ids beyond where they stand.
"""

import contextlib
from itertools import islice
from itertools import takewhile
from typing import Any

from tfrlhf.models.tokenizer_files import Backend


class UnknownWord(ValueError):
    """A text with words for which a tokenizer has no tokens."""


def encode(backend: Backend, text: str, special: bool) -> Any:
    """Returns the encoding of a text.

    Args:
        backend: A `tokenizers.Tokenizer`.
        text: Any.
        special: Whether the post-processor adds its tokens.

    Raises:
        UnknownWord: A part of the text has no token.
        TypeError: No string, or one with half a character.
    """
    try:
        return backend.encode(text, add_special_tokens=special)
    except TypeError:
        raise
    # The library has no class for it.
    except Exception as error:
        raise UnknownWord(
            f"{text[:40]!r} cannot be encoded ({error}): the tokenizer has no "
            "token for a part of it, so give its model an `unk_token` that is "
            "in its vocabulary, or change the text."
        ) from error


def opening_ids(backend: Backend) -> list[int]:
    """Returns what the post-processor puts in front of every text."""
    encoding = _any_encoding(backend)
    marked = zip(encoding.ids, encoding.special_tokens_mask, strict=True)
    return [index for index, _ in takewhile(lambda pair: pair[1], marked)]


def _any_encoding(backend: Backend) -> Any:
    """A text of words that the tokenizer has, with the special tokens."""
    special = backend.get_added_tokens_decoder()
    vocabulary = backend.get_vocab().items()
    words = (word for word, index in vocabulary if index not in special)
    for text in ("a", *islice(words, 100)):
        with contextlib.suppress(UnknownWord):
            return encode(backend, text, True)
    raise UnknownWord(
        "The tokenizer has no unknown token and cannot even encode its own "
        "words: give its model an `unk_token` that is in its vocabulary."
    )
