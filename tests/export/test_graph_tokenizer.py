import json
import random
import subprocess
import sys
import time

import pytest
import tensorflow as tf
import tokenizers
from tensorflow.core.protobuf import saved_model_pb2

from tests.texts import ADVERSARIAL
from tests.texts import BILINGUAL
from tfrlhf.export.graph_tokenizer import GraphTokenizer
from tfrlhf.export.graph_tokenizer import UnsupportedTokenizer
from tfrlhf.export.tokenizer_rules import LAST_SPACE
from tfrlhf.export.tokenizer_rules import WORD
from tfrlhf.models.tokenizer import Tokenizer

KINDS = ["gpt2", "stories", "minimind", "trained"]


def changed(tokenizer, **parts):
    """The tokenizer with parts of its JSON replaced."""
    spec = json.loads(tokenizer.to_json()) | parts
    return Tokenizer(
        tokenizers.Tokenizer.from_str(json.dumps(spec)),
        bos_id=tokenizer.bos_id,
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )


def added(index, content, **options):
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    token = {"id": index, "content": content} | dict.fromkeys(flags, False)
    return token | options


@pytest.fixture(scope="module")
def gpt2(gpt2_directory):
    return Tokenizer.from_directory(gpt2_directory)


@pytest.fixture(scope="module")
def stories(stories_directory):
    return Tokenizer.from_directory(stories_directory)


@pytest.fixture(scope="module")
def minimind(shared_data, tmp_path_factory):
    directory = tmp_path_factory.mktemp("minimind")
    source = shared_data / "tokenizers" / "minimind_tokenizer.json"
    (directory / "tokenizer.json").write_bytes(source.read_bytes())
    return Tokenizer.from_directory(directory)


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(BILINGUAL, 300)


def random_texts(tokenizer, count):
    """Short random strings, rich in whatever meets badly."""
    draw = random.Random(0)
    specials = json.loads(tokenizer.to_json())["added_tokens"]
    atoms = list("abcdest'.,!?012 \n\t\r\u2581<>|") + [
        *("  ", "\n\n", "\u00a0", "\u3000", "\u200b", "\x85", "\x1c", "\x00"),
        *("你", "天气", "，", "😁", "\u200d", "\u0301", "é", "½", "\U0002ec00"),
        *("'s", "'re", " the", "<0x41>", "time"),
        *(token["content"] for token in specials[:4]),
    ]
    return [
        "".join(draw.choices(atoms, k=draw.randrange(20))) for _ in range(count)
    ]


def assert_same_ids(tokenizer, texts):
    encode = tf.function(
        GraphTokenizer(tokenizer).encode,
        input_signature=[tf.TensorSpec([None], tf.string)],
    )
    rows = encode(tf.constant(texts)).to_list()
    for text, row in zip(texts, rows, strict=True):
        assert row == tokenizer.encode(text), repr(text)


@pytest.mark.parametrize("name", KINDS)
def test_ids_are_those_of_the_host(name, request):
    tokenizer = request.getfixturevalue(name)
    assert_same_ids(tokenizer, ADVERSARIAL + random_texts(tokenizer, 1000))


@pytest.mark.parametrize("scheme", ["first", "never", "always"])
def test_spaces_in_front_follow_the_metaspace_scheme(stories, scheme):
    splitter = json.loads(stories.to_json())["pre_tokenizer"]
    splitter["prepend_scheme"] = scheme
    tokenizer = changed(stories, pre_tokenizer=splitter)
    assert_same_ids(tokenizer, ADVERSARIAL + random_texts(stories, 300))


def test_older_llama_files_put_the_space_in_the_normalizer(stories):
    steps = [
        {"type": "Prepend", "prepend": "\u2581"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
    ]
    normalizer = {"type": "Sequence", "normalizers": steps}
    tokenizer = changed(stories, normalizer=normalizer, pre_tokenizer=None)
    assert tokenizer.encode(" a") != stories.encode(" a")
    assert_same_ids(tokenizer, ADVERSARIAL + random_texts(stories, 300))


def test_byte_level_space_in_front(trained):
    splitter = json.loads(trained.to_json())["pre_tokenizer"]
    splitter["add_prefix_space"] = True
    tokenizer = changed(trained, pre_tokenizer=splitter)
    assert tokenizer.encode("park") == trained.encode(" park")
    assert_same_ids(tokenizer, ADVERSARIAL + random_texts(trained, 300))


def test_longest_added_token_wins_and_normalized_ones_come_second(trained):
    tokenizer = changed(
        trained,
        added_tokens=[
            added(0, "<|endoftext|>", special=True),
            added(300, "foo", normalized=True),
            added(301, "foobar", normalized=True),
            added(302, "text|>foo bar", normalized=True),
        ],
    )
    texts = ["foo foobar foob", "<|endoftext|>foo bar", "text|>foo bar"]
    assert tokenizer.encode(texts[0])[0] == 300
    assert_same_ids(tokenizer, texts)


def test_merges_that_are_out_of_order_are_merged_by_rank(trained):
    model = json.loads(trained.to_json())["model"]
    model["merges"] = model["merges"][::-1]
    tokenizer = changed(trained, model=model)
    assert_same_ids(tokenizer, BILINGUAL + random_texts(trained, 300))


def test_a_vocabulary_without_merges():
    assert_same_ids(Tokenizer.train(["a"], 257), ["", "park", "公园"])


def test_empty_batch_and_invalid_utf8(trained, stories):
    for tokenizer in (trained, stories):
        graph = GraphTokenizer(tokenizer)
        assert graph.encode(tf.constant([], tf.string)).to_list() == []
        broken = graph.encode(tf.constant([b"a\xff\xe4\xbdb"])).to_list()
        assert broken == [tokenizer.encode("a\ufffd\ufffdb")]


def test_splitting_agrees_on_every_character():
    """RE2 and `tokenizers` know Unicode in different versions."""
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    # Planes 4 to 13 are empty, 15 and 16 private.
    points = [*range(0xD800), *range(0xE000, 0x33800), *range(0xE0000, 0xE0800)]
    texts = ["a{0}1{0}!{0}  {0} ".format(chr(point)) for point in points]
    marked = tf.strings.regex_replace(texts, LAST_SPACE, b"\\1\xff\\2")
    marked = tf.strings.regex_replace(marked, WORD, b"\\0\xff")
    for text, words in zip(texts, marked.numpy(), strict=True):
        spans = [span for _, span in splitter.pre_tokenize_str(text)]
        parts = [part.decode() for part in words.split(b"\xff") if part]
        assert parts == [text[a:b] for a, b in spans], ascii(text)


def random_rows(tokenizer, draw, count, length):
    """Ids that mostly write broken bytes, some outside the vocabulary."""
    top = tokenizer.vocabulary_size + 2
    return [
        [draw.choice([draw.randrange(-1, top), draw.randrange(300)]) for _ in x]
        for x in [range(length)] * count
    ]


@pytest.mark.parametrize("name", KINDS)
def test_text_is_that_of_the_host(name, request):
    tokenizer = request.getfixturevalue(name)
    graph, draw = GraphTokenizer(tokenizer), random.Random(0)
    rows = random_rows(tokenizer, draw, 500, 10)
    cuts = [draw.randrange(11) for _ in rows]
    prompt = tf.sequence_mask(cuts, 10, tf.int32)
    texts = graph.decode(tf.constant(rows), tf.ones_like(prompt)).numpy()
    responses = graph.decode_response(tf.constant(rows), prompt, 1 - prompt)
    for row, cut, text, response in zip(
        rows, cuts, texts, responses.numpy(), strict=True
    ):
        assert text.decode() == tokenizer.decode(row)
        expected = tokenizer.decode_response(row[:cut], row[cut:])
        assert response.decode() == expected


def test_masked_ids_are_not_read(stories):
    graph = GraphTokenizer(stories)
    ids = tf.constant([[1, 403, 407, 261, 378]])
    mask = tf.constant([[1, 1, 1, 0, 0]])
    assert graph.decode(ids, mask).numpy() == [b"Once upon"]
    response = graph.decode_response(ids, mask, 1 - mask)
    assert response.numpy() == [b" a time"]


def test_hundred_words_take_well_under_a_second(gpt2):
    encode = tf.function(GraphTokenizer(gpt2).encode)
    text = tf.constant(["The lazy dog jumps over extraordinary foxes. " * 15])
    encode(text)
    start = time.perf_counter()
    encode(text)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("parts", "named"),
    [
        ({"normalizer": {"type": "NFC"}}, "NFC"),
        ({"pre_tokenizer": None}, "pre-tokenizer null"),
        ({"decoder": None}, "decoder null"),
    ],
)
def test_other_parts_are_refused_by_name(trained, parts, named):
    with pytest.raises(UnsupportedTokenizer, match=named):
        GraphTokenizer(changed(trained, **parts))


@pytest.mark.parametrize(
    ("option", "value"), [("ignore_merges", True), ("dropout", 0.1)]
)
def test_model_options_are_refused_by_name(trained, option, value):
    model = json.loads(trained.to_json())["model"] | {option: value}
    with pytest.raises(UnsupportedTokenizer, match=f"{option}={value}"):
        GraphTokenizer(changed(trained, model=model))


def test_characters_need_byte_fallback(stories):
    model = json.loads(stories.to_json())["model"] | {"byte_fallback": False}
    with pytest.raises(UnsupportedTokenizer, match="byte_fallback=False"):
        GraphTokenizer(changed(stories, model=model))


def test_unigram_is_refused(trained):
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["a", 0.0]]}
    tokenizer = changed(trained, model=model, added_tokens=[])
    with pytest.raises(UnsupportedTokenizer, match="model Unigram"):
        GraphTokenizer(tokenizer)


def test_added_tokens_that_eat_spaces_are_refused(trained):
    tokens = [added(0, "<|endoftext|>", special=True, lstrip=True)]
    with pytest.raises(UnsupportedTokenizer, match="with lstrip=true"):
        GraphTokenizer(changed(trained, added_tokens=tokens))


class Served(tf.Module):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = GraphTokenizer(tokenizer)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def serve(self, texts):
        rows = self.tokenizer.encode(texts)
        ids = rows.to_tensor()
        mask = tf.sequence_mask(rows.row_lengths(), tf.shape(ids)[1], tf.int32)
        first = tf.sequence_mask(tf.ones_like(ids[:, 0]), tf.shape(ids)[1])
        prompt = tf.cast(first, tf.int32)
        return {
            "ids": ids,
            "lengths": rows.row_lengths(),
            "texts": self.tokenizer.decode(ids, mask),
            "responses": self.tokenizer.decode_response(
                ids, prompt, mask * (1 - prompt)
            ),
        }


CLIENT = """
import json, sys
import tensorflow as tf

texts = json.loads(sys.stdin.read())
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    graph = tf.compat.v1.saved_model.load(session, ["serve"], sys.argv[1])
    signature = graph.signature_def["serving_default"]
    feed = {signature.inputs["texts"].name: texts}
    fetch = {key: info.name for key, info in signature.outputs.items()}
    answer = session.run(fetch, feed)
rows = zip(answer["ids"].tolist(), answer["lengths"].tolist())
packages = {"tensorflow_text", "keras_hub", "tfrlhf"}
print(json.dumps({
    "ids": [row[:length] for row, length in rows],
    "texts": [text.decode() for text in answer["texts"]],
    "responses": [text.decode() for text in answer["responses"]],
    "packages": sorted(packages & set(sys.modules)),
}))
"""


@pytest.fixture(scope="module", params=["stories", "trained"])
def served(request, tmp_path_factory):
    """A tokenizer and the directory of its SavedModel."""
    tokenizer = request.getfixturevalue(request.param)
    directory = tmp_path_factory.mktemp("saved_model")
    module = Served(tokenizer)
    signatures = module.serve.get_concrete_function()
    tf.saved_model.save(module, str(directory), signatures)
    return tokenizer, directory


def test_served_in_a_session_of_a_process_with_tensorflow_alone(served):
    tokenizer, directory = served
    result = subprocess.run(
        [sys.executable, "-c", CLIENT, str(directory)],
        input=json.dumps(ADVERSARIAL),
        capture_output=True,
        check=True,
        cwd=directory,
        text=True,
    )
    answer = json.loads(result.stdout)
    ids = [tokenizer.encode(text) for text in ADVERSARIAL]
    assert answer["ids"] == ids
    assert answer["texts"] == [tokenizer.decode(row) for row in ids]
    assert answer["responses"] == [
        tokenizer.decode_response(row[:1], row[1:]) for row in ids
    ]
    # An op of tensorflow_text could not have been loaded without it.
    assert answer["packages"] == []


def test_served_graph_holds_neither_python_nor_xla_ops(served):
    _, directory = served
    saved = saved_model_pb2.SavedModel.FromString(
        (directory / "saved_model.pb").read_bytes()
    )
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node}
    for function in graph.library.function:
        ops |= {node.op for node in function.node_def}
    assert "LookupTableFindV2" in ops
    assert not [op for op in ops if "PyFunc" in op or op.startswith("Xla")]
