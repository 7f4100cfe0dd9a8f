"""Text to ids and back on the host; the ids are the truth for every part.

Knows Hugging Face files and KerasHub vocabularies. It knows nothing of
tensors, padding, roles or models.
"""

import json
import os
import re
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any
from typing import Self

from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from tfrlhf.models import chat_template as templates
from tfrlhf.models.encoding import encode
from tfrlhf.models.encoding import opening_ids
from tfrlhf.models.tokenizer_files import END_OF_TEXT
from tfrlhf.models.tokenizer_files import SAVED
from tfrlhf.models.tokenizer_files import Backend
from tfrlhf.models.tokenizer_files import Json
from tfrlhf.models.tokenizer_files import byte_level
from tfrlhf.models.tokenizer_files import read_directory
from tfrlhf.models.tokenizer_files import read_keras_hub
from tfrlhf.models.word_ends import cut
from tfrlhf.models.word_ends import find_cuts
from tfrlhf.models.word_ends import find_word_ends

# How SentencePiece writes a space, and a byte of a character it lacks.
SPACE = "\u2581"
BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")

_STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
_SENTENCEPIECE_DECODERS = [
    {"type": "Replace", "pattern": {"String": SPACE}, "content": " "},
    {"type": "ByteFallback"},
    {"type": "Fuse"},
]


class Tokenizer:
    """A `tokenizers.Tokenizer` that knows its special ids.

    Example:
    >>> tokenizer = Tokenizer.train(["low lower lowest"], 260)
    >>> tokenizer.decode(tokenizer.encode("low"))
    'low'

    Attributes:
        bos_id: Id of the token that opens a text, or None.
        eos_id: Id of the token that ends a response, or None.
        pad_id: Id that fills a batch.
        special_ids: Ids that are no text; `decode` leaves them out.
        vocabulary_size: One more than the largest id.
        chat_template: Jinja that writes messages as text, or None.
        chat_variables: What the template reads beside the messages, such as
            "bos_token"; options of a template may be added.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        bos_id: int | None,
        eos_id: int | None,
        pad_id: int,
        chat_template: str | None = None,
        chat_variables: Mapping[str, Any] | None = None,
    ) -> None:
        # A tokenizer.json may ask for truncation and padding.
        backend.no_truncation()
        backend.no_padding()
        self._backend = backend
        self.bos_id = bos_id
        self.eos_id = eos_id
        self.pad_id = pad_id
        self.chat_template = chat_template
        self.chat_variables = dict(chat_variables or {})
        added = backend.get_added_tokens_decoder().items()
        special = {index for index, token in added if token.special}
        named = {index for index in (bos_id, eos_id) if index is not None}
        self.special_ids = frozenset(special | named)
        self.vocabulary_size = 1 + max(backend.get_vocab().values())
        self._prefix = opening_ids(backend)
        self._word_ends = find_word_ends(backend)
        self._cuts = find_cuts(backend)

    @classmethod
    def from_directory(cls, directory: str | os.PathLike[str]) -> Self:
        """Reads a Hugging Face directory, with the ids of AutoTokenizer.

        Without tokenizer_config.json and config.json, tokenizer.json is taken
        as it is, tokenizer.model as Llama's, vocab.json + merges.txt as
        GPT-2's.

        Args:
            directory: Holds tokenizer.json, tokenizer.model, or vocab.json
                and merges.txt.

        Returns:
            The tokenizer; its pad id is the tokenizer's, else the one of
            config.json or generation_config.json, else EOS, else 0.

        Raises:
            ValueError: Where there is no tokenizer or it cannot be read.
        """
        backend, ids = read_directory(Path(directory))
        return cls(backend, **ids)

    @classmethod
    def from_keras_hub(cls, keras_tokenizer: Any) -> Self:
        """Builds the Hugging Face tokenizer of a KerasHub vocabulary.

        Args:
            keras_tokenizer: A `keras_hub` GPT2Tokenizer or LlamaTokenizer.

        Raises:
            ValueError: For any other family.
        """
        backend, ids = read_keras_hub(keras_tokenizer)
        return cls(backend, **ids)

    @classmethod
    def train(cls, texts: Iterable[str], vocabulary_size: int) -> Self:
        """Learns byte-level BPE with GPT-2 splitting; the same every time.

        Args:
            texts: What to learn from.
            vocabulary_size: Ids at most; at least 257, the bytes and
                `<|endoftext|>`, which is EOS and id 0.

        Raises:
            ValueError: For a single string or a smaller vocabulary.
        """
        if isinstance(texts, str):
            raise ValueError("`texts` must be a list of strings, not a string.")
        if vocabulary_size < 257:
            raise ValueError(
                "`vocabulary_size` must be at least 257 (256 bytes and "
                f"{END_OF_TEXT}). Received: {vocabulary_size}"
            )
        backend = byte_level(models.BPE())
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=[END_OF_TEXT],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(texts, trainer)
        return cls(backend, bos_id=None, eos_id=0, pad_id=0)

    def encode(self, text: str) -> list[int]:
        """Ids of a text, BOS in front where the checkpoint adds one, no EOS."""
        return self._prefix + self._plain_ids(text)

    def encode_many(
        self, texts: Sequence[str], opening: bool = True
    ) -> list[list[int]]:
        """Ids of many texts at once, several times as fast as one by one.

        Args:
            texts: What to tokenise.
            opening: Put BOS in front as `encode` does; False for texts of
                `render_chat`, whose template writes its own.
        """
        if not opening and self._cuts is not None:
            return self._conversation_ids(texts, self._cuts)
        ids = self._batch_ids(list(texts))
        if opening and self._prefix:
            return [self._prefix + part for part in ids]
        return ids

    def _conversation_ids(
        self, texts: Sequence[str], cuts: re.Pattern[str]
    ) -> list[list[int]]:
        """Ids of texts that repeat each other's turns, each turn once."""
        parts = [cut(text, cuts) for text in texts]
        different = list(dict.fromkeys(chain.from_iterable(parts)))
        ids = dict(zip(different, self._batch_ids(different), strict=True))
        return [
            list(chain.from_iterable(ids[part] for part in each))
            for each in parts
        ]

    def _batch_ids(self, texts: list[str]) -> list[list[int]]:
        try:
            encodings = self._backend.encode_batch_fast(
                texts, add_special_tokens=False
            )
        except Exception:
            # Says which of the texts cannot be taken.
            return [self._plain_ids(text) for text in texts]
        return [encoding.ids for encoding in encodings]

    def joins(self, prompt: str, response: str) -> bool:
        """Whether the ids of both, one after the other, are those of the whole.

        False where that is not certain without looking.
        """
        return self._word_ends.between(prompt, response)

    def render_chat(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
    ) -> str:
        """The text of a conversation, as `apply_chat_template` writes it.

        Args:
            messages: {"role", "content"} in their order.
            add_generation_prompt: End with the opening of an assistant's turn.

        Raises:
            ValueError: Where there is no template or it fails.
        """
        return templates.render(
            self.chat_template,
            messages,
            self.chat_variables,
            add_generation_prompt,
        )

    def encode_pair(
        self, prompt: str, response: str
    ) -> tuple[list[int], list[int], bool]:
        """Ids of a prompt and of the response that continues it.

        Returns:
            The prompt's ids, the response's ids, and whether the prompt's ids
            begin the ids of prompt + response. Where they do not, the parts
            are tokenised apart, the response without BOS.
        """
        prompt_ids = self.encode(prompt)
        ids = self.encode(prompt + response)
        if ids[: len(prompt_ids)] == prompt_ids:
            return prompt_ids, ids[len(prompt_ids) :], True
        return prompt_ids, self._plain_ids(response), False

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the ids; special and unknown ones are left out.

        A maximal run of bytes that are no UTF-8 becomes one U+FFFD.
        """
        if self.token_bytes is None:
            return self._backend.decode(self._text_ids(ids))
        text = self._join(ids).decode("utf-8", "replace")
        return text.removeprefix(" ") if self.strips_leading_space else text

    def decode_response(
        self, prompt_ids: Iterable[int], response_ids: Iterable[int]
    ) -> str:
        """What the response adds to the prompt's text.

        A leading space of SentencePiece is kept, and a character that the
        prompt begins and the response completes counts to the response.
        """
        prompt_ids = list(prompt_ids)
        response_ids = list(response_ids)
        if self.token_bytes is None:
            whole = self.decode(prompt_ids + response_ids)
            return whole.removeprefix(
                os.path.commonprefix([whole, self.decode(prompt_ids)])
            )
        before = self._join(prompt_ids)
        if not before:
            return self.decode(response_ids)
        whole = (before + self._join(response_ids)).decode("utf-8", "replace")
        prompt = before.decode("utf-8", "replace")
        if not whole.startswith(prompt):
            # Its last U+FFFD stood for the unfinished character.
            prompt = prompt[:-1]
        return whole.removeprefix(prompt)

    @cached_property
    def token_bytes(self) -> list[bytes] | None:
        """What each id writes, empty for special and missing ids.

        None where the tokenizer is neither byte-level nor SentencePiece BPE
        with byte fallback.
        """
        decoder = _state(self._backend.decoder)
        if decoder.get("type") == "ByteLevel":
            write = _byte_level_bytes
        elif _without_strip(decoder) == _SENTENCEPIECE_DECODERS:
            write = _sentencepiece_bytes
        else:
            return None
        table = [b""] * self.vocabulary_size
        for token, index in self._backend.get_vocab().items():
            if index not in self.special_ids:
                table[index] = write(token)
        return table

    @cached_property
    def strips_leading_space(self) -> bool:
        """Whether `decode` takes away the space SentencePiece put in front."""
        steps = _state(self._backend.decoder).get("decoders", [])
        return bool(steps) and steps[-1] == _STRIP

    def to_json(self) -> str:
        """The whole tokenizer in the format of tokenizer.json."""
        return self._backend.to_str()

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Writes tokenizer.json and tokenizer_config.json.

        `from_directory` restores the tokenizer from them, and `transformers`
        reads them too.
        """
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self._backend.save(str(directory / "tokenizer.json"))
        ids = {
            "bos_id": self.bos_id,
            "eos_id": self.eos_id,
            "pad_id": self.pad_id,
        }
        settings: Json = {"tokenizer_class": "TokenizersBackend"}
        for key, index in ids.items():
            # transformers makes every named token special, which an ordinary
            # token used as padding must not become.
            if index in self.special_ids:
                name = key.replace("_id", "_token")
                settings[name] = self._backend.id_to_token(index)
        if self.chat_template is not None:
            settings["chat_template"] = self.chat_template
        settings[SAVED] = ids | {"chat_variables": self.chat_variables}
        path = directory / "tokenizer_config.json"
        path.write_text(json.dumps(settings, indent=1), encoding="utf-8")

    def _plain_ids(self, text: str) -> list[int]:
        try:
            return encode(self._backend, text, False).ids
        except TypeError as error:
            raise ValueError(
                "A text to encode must be a string without lone surrogates "
                f"(half an emoji), received {text!r}; clean the text."
            ) from error

    def _text_ids(self, ids: Iterable[int]) -> list[int]:
        return [int(index) for index in ids if index not in self.special_ids]

    def _join(self, ids: Iterable[int]) -> bytes:
        table = self.token_bytes or []
        return b"".join(
            table[index]
            for index in self._text_ids(ids)
            if 0 <= index < len(table)
        )


def byte_characters() -> list[str]:
    """The character by which byte-level BPE writes each of the 256 bytes."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    others = iter(range(256, 512))
    return [
        chr(byte if byte in printable else next(others)) for byte in range(256)
    ]


_BYTES = {character: byte for byte, character in enumerate(byte_characters())}


def _byte_level_bytes(token: str) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:  # an added token holds its text itself
        return token.encode()


def _sentencepiece_bytes(token: str) -> bytes:
    if BYTE_TOKEN.fullmatch(token):
        return bytes.fromhex(token[3:5])
    return token.replace(SPACE, " ").encode()


def _state(component: Any) -> Json:
    """The JSON of a part of a backend, without writing the vocabulary."""
    return json.loads(component.__getstate__()) if component else {}


def _without_strip(decoder: Json) -> list[Json]:
    steps = decoder.get("decoders", [])
    return steps[:-1] if steps and steps[-1] == _STRIP else steps
