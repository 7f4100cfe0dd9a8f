r"""A tokenizer made of core TensorFlow ops, for graphs that serve strings.

Gives the ids of the host's `Tokenizer`, exactly, for byte-level BPE with
GPT-2's splitting and for SentencePiece BPE with byte fallback, and refuses
every other kind. A served graph needs neither Python nor an op library.

Text is cut at the added tokens, then into words, then into symbols, the bytes
or characters that merging starts from. N symbols of all texts lie in one
vector with the number of their segment, the span that no merge can leave; a
step merges in every segment the left-most pair of the lowest rank.
"""

import json
from typing import Any
from typing import NamedTuple

import tensorflow as tf

from tfrlhf.export.tokenizer_rules import LAST_SPACE
from tfrlhf.export.tokenizer_rules import WORD
from tfrlhf.export.tokenizer_rules import UnsupportedTokenizer
from tfrlhf.export.tokenizer_rules import added_patterns
from tfrlhf.export.tokenizer_rules import byte_ids
from tfrlhf.export.tokenizer_rules import junctions
from tfrlhf.export.tokenizer_rules import kind
from tfrlhf.export.tokenizer_rules import read_rules
from tfrlhf.export.tokenizer_rules import refuse
from tfrlhf.models.tokenizer import SPACE
from tfrlhf.models.tokenizer import Tokenizer
from tfrlhf.types import Tensor

__all__ = ["GraphTokenizer", "UnsupportedTokenizer"]

# No UTF-8 text holds this byte, so it can mark a cut.
CUT = b"\xff"


class _Pieces(NamedTuple):
    """Flat pieces of text.

    Attributes:
        text: string [P].
        row: int64 [P], which text it comes from.
        added: int64 [P], the id of an added token, else -1.
        first: bool [P], whether its text begins with it.
    """

    text: Tensor
    row: Tensor
    added: Tensor
    first: Tensor


class GraphTokenizer(tf.Module):
    """Encodes and decodes inside a graph, with the ids of the host.

    Example:
    >>> tokenizer = Tokenizer.train(["low lower lowest"], 260)
    >>> GraphTokenizer(tokenizer).encode(tf.constant(["low"])).to_list()
    [[258]]

    Args:
        tokenizer: The host's.

    Raises:
        UnsupportedTokenizer: Names the part that has no exact form here.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__(name="graph_tokenizer")
        spec = json.loads(tokenizer.to_json())
        self._rules = read_rules(spec)
        table = tokenizer.token_bytes
        if table is None:
            refuse(f"decoder {kind(spec['decoder'])}")
        vocabulary = spec["model"]["vocab"]
        self._size = tokenizer.vocabulary_size
        self._prefix = tf.constant([tokenizer.encode("")], tf.int32)
        self._strip = tokenizer.strips_leading_space
        # One more, empty, for ids outside the vocabulary.
        self._token_bytes = tf.constant([*table, b""])
        self._added_patterns = added_patterns(spec)
        self._added = _table(
            {token["content"]: token["id"] for token in spec["added_tokens"]},
            tf.string,
        )
        self._byte_ids = tf.constant(
            byte_ids(vocabulary, self._rules), tf.int64
        )
        if not self._rules.byte_level:
            self._characters = _table(
                {text: i for text, i in vocabulary.items() if len(text) == 1},
                tf.string,
            )
        pairs = [tuple(pair) for pair in spec["model"]["merges"]]
        ids = [(vocabulary[a], vocabulary[b]) for a, b in pairs]
        self._ranks = _table(
            {a * self._size + b: rank for rank, (a, b) in enumerate(ids)},
            tf.int64,
        )
        self._merged = tf.constant(
            [vocabulary[a + b] for a, b in pairs] or [0], tf.int64
        )
        self._junctions = _table(
            {a * self._size + b: 1 for a, b in junctions(pairs, vocabulary)},
            tf.int64,
        )

    def encode(self, texts: Tensor) -> tf.RaggedTensor:
        """Ids of texts, BOS in front where the host puts one, no EOS.

        Args:
            texts: string [B]; invalid UTF-8 counts as U+FFFD.

        Returns:
            int32 [B, (S)].
        """
        texts = _valid(texts)
        count = tf.shape(texts, tf.int64)[0]
        units, override, row, word = self._units(self._cut(texts, count))
        ids, of_unit = self._symbols(units, override)
        row, word = tf.gather(row, of_unit), tf.gather(word, of_unit)
        ids, row = self._merge(ids, row, self._segments(ids, word))
        rows = tf.RaggedTensor.from_value_rowids(
            tf.cast(ids, tf.int32), row, nrows=count, validate=False
        )
        prefix = tf.repeat(self._prefix, count, axis=0)
        return tf.concat([tf.RaggedTensor.from_tensor(prefix), rows], axis=1)

    def decode(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        """Text of ids; special ones are left out.

        Args:
            token_ids: int32 [B, S].
            mask: int32 [B, S], 1 where a token is read.

        Returns:
            string [B], valid UTF-8: a maximal run of bytes that are none is
            U+FFFD.
        """
        return self._strip_space(_valid(self._join(token_ids, mask)))

    def decode_response(
        self, token_ids: Tensor, prompt_mask: Tensor, response_mask: Tensor
    ) -> Tensor:
        """What responses add to the text of their prompts.

        Args:
            token_ids: int32 [B, S], prompts and responses.
            prompt_mask: int32 [B, S], 1 on the prompts.
            response_mask: int32 [B, S], 1 on the responses, after the prompt.

        Returns:
            string [B], as `Tokenizer.decode_response` gives them.
        """
        before = self._join(token_ids, prompt_mask)
        after = self._join(token_ids, response_mask)
        prompt, whole = _valid(before), _valid(before + after)
        length = tf.strings.length(prompt)
        begins = tf.strings.substr(whole, tf.zeros_like(length), length)
        # Otherwise the response completes the character for which the last
        # U+FFFD (three bytes) of the prompt stands.
        position = tf.where(begins == prompt, length, length - 3)
        rest = tf.strings.substr(
            whole, position, tf.strings.length(whole) - position
        )
        alone = self._strip_space(_valid(after))
        return tf.where(before == b"", alone, rest)

    def _join(self, token_ids: Tensor, mask: Tensor) -> Tensor:
        known = (token_ids >= 0) & (token_ids < self._size) & (mask > 0)
        ids = tf.where(known, token_ids, self._size)
        return tf.strings.reduce_join(tf.gather(self._token_bytes, ids), -1)

    def _strip_space(self, text: Tensor) -> Tensor:
        return tf.strings.regex_replace(text, "^ ", "") if self._strip else text

    def _cut(self, texts: Tensor, count: Tensor) -> _Pieces:
        """Cuts texts [B] at the added tokens and drops what is empty."""
        pieces = _Pieces(
            text=texts,
            row=tf.range(count),
            added=tf.fill([count], tf.constant(-1, tf.int64)),
            first=tf.fill([count], True),
        )
        for pattern in self._added_patterns:
            marked = tf.strings.regex_replace(
                pieces.text, pattern, CUT + rb"\0" + CUT
            )
            marked = tf.where(pieces.added < 0, marked, pieces.text)
            parts = tf.strings.split(marked, CUT)
            parent = parts.value_rowids()
            begins = tf.gather(parts.row_starts(), parent)
            index = tf.range(tf.size(parent, tf.int64)) - begins
            pieces = _Pieces(
                text=parts.flat_values,
                row=tf.gather(pieces.row, parent),
                added=self._added.lookup(parts.flat_values),
                first=tf.gather(pieces.first, parent) & (index == 0),
            )
        filled = pieces.text != b""
        return _Pieces(*(tf.boolean_mask(part, filled) for part in pieces))

    def _units(self, pieces: _Pieces) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Words [U] of bytes, or characters [U].

        Returns:
            Their text, the id that replaces each or -1, the row of each, and
            the number of the word of each.
        """
        text = self._open(pieces)
        if self._rules.byte_level:
            text = tf.strings.regex_replace(
                text, LAST_SPACE, rb"\1" + CUT + rb"\2"
            )
            text = tf.strings.regex_replace(text, WORD, rb"\0" + CUT)
        is_added = pieces.added >= 0
        # An added token stays in one piece and is replaced as a whole.
        text = tf.where(is_added, b"a", text)
        if self._rules.byte_level:
            parts = tf.strings.split(text, CUT)
        else:
            parts = tf.strings.unicode_split(text, "UTF-8")
        units, piece = parts.flat_values, parts.value_rowids()
        filled = units != b""
        units, piece = (tf.boolean_mask(x, filled) for x in (units, piece))
        override = tf.gather(pieces.added, piece)
        word = piece
        if self._rules.byte_level:
            word = tf.range(tf.size(units, tf.int64))
        else:
            known = self._characters.lookup(units)
            override = tf.where(override >= 0, override, known)
        return units, override, tf.gather(pieces.row, piece), word

    def _open(self, pieces: _Pieces) -> Tensor:
        """Writes spaces as the vocabulary does and puts one in front."""
        text, opening = pieces.text, self._rules.opening
        space = " "
        if not self._rules.byte_level:
            space = SPACE
            text = tf.strings.regex_replace(text, " ", space)
        if opening == "never":
            return text
        wanted = tf.fill(tf.shape(text), True)
        if opening == "first":
            wanted = pieces.first
        if opening != "unconditional":
            size = len(space.encode())
            wanted &= tf.strings.substr(text, 0, size) != space
        return tf.where(wanted, space + text, text)

    def _symbols(self, units: Tensor, override: Tensor) -> tuple[Tensor, ...]:
        """Ids [N] of the bytes of units [U] or of whole ones, and the unit."""
        whole = override >= 0
        lengths = tf.where(whole, 1, tf.strings.length(units))
        unit = tf.repeat(tf.range(tf.size(units)), lengths)
        joined = tf.strings.reduce_join(tf.where(whole, b"a", units))
        values = tf.cast(tf.io.decode_raw(joined, tf.uint8), tf.int32)
        ids = tf.gather(self._byte_ids, values)
        override = tf.gather(override, unit)
        return tf.where(override >= 0, override, ids), unit

    def _segments(self, ids: Tensor, word: Tensor) -> Tensor:
        """Numbers [N] of the spans that no merge can leave."""
        pairs = ids[:-1] * self._size + ids[1:]
        apart = (self._junctions.lookup(pairs) < 0) | (word[1:] != word[:-1])
        return tf.concat(
            [
                tf.zeros_like(ids[:1]),
                tf.math.cumsum(tf.cast(apart, tf.int64)),
            ],
            axis=0,
        )

    def _merge(
        self, ids: Tensor, row: Tensor, segment: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Merges until no pair has a rank; ids and rows [N'] are left."""
        segments = tf.size(tf.unique(segment).y, tf.int64)
        row_of_segment = tf.math.unsorted_segment_max(row, segment, segments)

        def step(ids: Tensor, segment: Tensor, _: Tensor) -> tuple[Tensor, ...]:
            pairs = ids[:-1] * self._size + ids[1:]
            inside = segment[1:] == segment[:-1]
            rank = tf.where(inside, self._ranks.lookup(pairs), -1)
            count = tf.size(rank, tf.int64)
            # Orders by rank, then from the left.
            order = tf.where(
                rank >= 0, rank * count + tf.range(count), tf.int64.max
            )
            best = tf.math.unsorted_segment_min(order, segment[:-1], segments)
            chosen = (rank >= 0) & (order == tf.gather(best, segment[:-1]))
            merged = tf.gather(self._merged, tf.maximum(rank, 0))
            left = tf.concat([chosen, tf.zeros_like(ids[:1], tf.bool)], axis=0)
            ids = tf.where(
                left, tf.concat([merged, tf.zeros_like(ids[:1])], axis=0), ids
            )
            keep = tf.concat([tf.ones_like(ids[:1], tf.bool), ~chosen], axis=0)
            return (
                tf.boolean_mask(ids, keep),
                tf.boolean_mask(segment, keep),
                tf.reduce_any(chosen),
            )

        shape = tf.TensorShape([None])
        ids, segment, _ = tf.while_loop(
            lambda ids, segment, more: more,
            step,
            (ids, segment, tf.size(ids) > 1),
            shape_invariants=(shape, shape, tf.TensorShape([])),
        )
        return ids, tf.gather(row_of_segment, segment)


def _valid(text: Tensor) -> Tensor:
    """UTF-8 with U+FFFD in place of what is none."""
    return tf.strings.unicode_transcode(text, "UTF-8", "UTF-8", "replace")


def _table(entries: dict[Any, int], dtype: Any) -> tf.lookup.StaticHashTable:
    """A table to int64 that answers -1 for what it does not hold."""
    if not entries:  # TensorFlow refuses an empty table
        entries = {"" if dtype == tf.string else -1: -1}
    initializer = tf.lookup.KeyValueTensorInitializer(
        list(entries), list(entries.values()), dtype, tf.int64
    )
    return tf.lookup.StaticHashTable(initializer, default_value=-1)
