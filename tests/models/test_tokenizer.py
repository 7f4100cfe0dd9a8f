import json

import numpy as np
import pytest
import tokenizers

from tests.texts import ADVERSARIAL
from tests.texts import BILINGUAL
from tfrlhf.models.tokenizer import Tokenizer

STORIES = "checkpoints/stories260K/tokenizer.model"


@pytest.fixture(scope="module")
def gpt2(gpt2_directory):
    return Tokenizer.from_directory(gpt2_directory)


@pytest.fixture(scope="module")
def stories(stories_directory):
    return Tokenizer.from_directory(stories_directory)


@pytest.fixture(scope="module")
def trained():
    return Tokenizer.train(BILINGUAL, 300)


def auto_ids(directory, texts):
    from transformers import AutoTokenizer

    auto = AutoTokenizer.from_pretrained(directory)
    return [auto(text)["input_ids"] for text in texts]


def host_ids(tokenizer, texts):
    return [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize("name", ["gpt2_directory", "stories_directory"])
def test_ids_are_those_of_auto_tokenizer(name, request):
    directory = request.getfixturevalue(name)
    ids = host_ids(Tokenizer.from_directory(directory), ADVERSARIAL)
    assert ids == auto_ids(directory, ADVERSARIAL)


def test_golden_ids_of_gpt2(gpt2, shared_data):
    path = shared_data / "tokenizers" / "golden_ids.json"
    golden = json.loads(path.read_text())["gpt2"]
    assert host_ids(gpt2, golden) == list(golden.values())
    assert gpt2.vocabulary_size == 50257


def test_golden_ids_of_a_bare_tokenizer_json(shared_data, tmp_path):
    source = shared_data / "tokenizers"
    (tmp_path / "tokenizer.json").write_bytes(
        (source / "minimind_tokenizer.json").read_bytes()
    )
    golden = json.loads((source / "golden_ids.json").read_text())["minimind"]
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert host_ids(tokenizer, golden) == list(golden.values())
    assert (tokenizer.bos_id, tokenizer.eos_id) == (None, None)


def test_tokenizer_config_adds_what_tokenizer_json_lacks(trained, tmp_path):
    (tmp_path / "tokenizer.json").write_text(trained.to_json())
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|endoftext|>",
        "pad_token": "<pad>",
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer.from_directory(tmp_path)
    ids = host_ids(tokenizer, ADVERSARIAL)
    assert ids == auto_ids(tmp_path, ADVERSARIAL)
    assert tokenizer.pad_id == trained.vocabulary_size
    assert tokenizer.vocabulary_size == trained.vocabulary_size + 1
    assert tokenizer.eos_id == 0


def test_bare_vocabulary_and_merges_are_gpt2(gpt2, gpt2_directory, tmp_path):
    for name in ("vocab.json", "merges.txt"):
        (tmp_path / name).write_bytes((gpt2_directory / name).read_bytes())
    bare = Tokenizer.from_directory(tmp_path)
    assert host_ids(bare, ADVERSARIAL) == host_ids(gpt2, ADVERSARIAL)
    assert bare.eos_id == bare.bos_id == bare.pad_id == 50256


def test_bare_sentencepiece_file_is_llama(stories, shared_data, tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(
        (shared_data / STORIES).read_bytes()
    )
    bare = Tokenizer.from_directory(tmp_path)
    texts = [text for text in ADVERSARIAL if "<" not in text]
    assert host_ids(bare, texts) == host_ids(stories, texts)


def test_special_ids(gpt2, stories):
    assert (gpt2.bos_id, gpt2.eos_id, gpt2.pad_id) == (50256, 50256, 50256)
    assert gpt2.special_ids == {50256}
    # stories260K names its pad id in config.json alone.
    assert (stories.bos_id, stories.eos_id, stories.pad_id) == (1, 2, 0)
    assert stories.special_ids == {0, 1, 2}


def test_pad_is_eos_or_else_zero(trained, tmp_path):
    (tmp_path / "tokenizer.json").write_text(trained.to_json())
    config = tmp_path / "config.json"
    settings = tmp_path / "tokenizer_config.json"
    settings.write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    config.write_text('{"eos_token_id": [5, 7], "pad_token_id": -1}')
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (5, 5)
    config.write_text("{}")
    tokenizer = Tokenizer.from_directory(tmp_path)
    assert (tokenizer.eos_id, tokenizer.pad_id) == (None, 0)


def test_bos_only_where_the_checkpoint_adds_one_and_never_eos(trained):
    backend = tokenizers.Tokenizer.from_str(trained.to_json())
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>",
        special_tokens=[("<|endoftext|>", 0)],
    )
    both = Tokenizer(backend, bos_id=0, eos_id=0, pad_id=0)
    assert both.encode("tree") == [0, *trained.encode("tree")]
    assert both.encode("") == [0]


def test_truncation_and_padding_of_the_file_are_off(trained):
    backend = tokenizers.Tokenizer.from_str(trained.to_json())
    backend.enable_truncation(2)
    backend.enable_padding(length=9)
    tokenizer = Tokenizer(backend, bos_id=None, eos_id=0, pad_id=0)
    assert tokenizer.encode("the park") == trained.encode("the park")


def test_pair_is_cut_where_the_prompt_ends(stories):
    prompt, response, is_prefix = stories.encode_pair("Once upon", " a time")
    assert (prompt, response, is_prefix) == ([1, 403, 407], [261, 378], True)


def test_pair_that_merges_over_the_cut_is_tokenised_apart(gpt2):
    prompt, response, is_prefix = gpt2.encode_pair("Hello wor", "ld")
    assert not is_prefix
    assert prompt == gpt2.encode("Hello wor")
    assert response == gpt2.encode("ld")


def test_response_apart_has_no_bos(stories):
    prompt, response, is_prefix = stories.encode_pair("Once upon ", "a")
    assert not is_prefix
    assert prompt[0] == 1
    assert 1 not in response


@pytest.mark.parametrize("name", ["gpt2", "stories", "trained"])
def test_text_survives_encoding(name, request):
    tokenizer = request.getfixturevalue(name)
    for text in ADVERSARIAL:
        if "<" in text or "\u2581" in text:
            continue
        shown = text
        if name == "stories":
            # HF puts no space in front where one is, but takes one away.
            shown = text.removeprefix(" ")
        assert tokenizer.decode(tokenizer.encode(text)) == shown


@pytest.mark.parametrize("name", ["gpt2", "stories", "trained"])
def test_decode_is_that_of_the_library_on_valid_text(name, request):
    tokenizer = request.getfixturevalue(name)
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    for text in ADVERSARIAL:
        ids = tokenizer.encode(text)
        assert tokenizer.decode(ids) == backend.decode(ids)


@pytest.mark.parametrize("name", ["gpt2", "stories", "trained"])
def test_response_text_adds_to_the_prompt_at_every_cut(name, request):
    tokenizer = request.getfixturevalue(name)
    for text in ("  two  spaces here", "公园 park 😁!", "Once upon a time"):
        ids = tokenizer.encode(text)
        whole = tokenizer.decode(ids)
        for cut in range(len(ids) + 1):
            before = tokenizer.decode(ids[:cut])
            after = tokenizer.decode_response(ids[:cut], ids[cut:])
            if not after:
                assert cut == len(ids) or before.endswith("\ufffd")
            # A character cut in two counts to the response.
            assert before.rstrip("\ufffd") + after == whole or (
                before + after == whole
            )


def test_response_keeps_its_leading_space(stories):
    prompt = stories.encode("Once upon")
    assert stories.decode_response(prompt, [261, 378]) == " a time"
    assert stories.decode([1, 261, 378]) == "a time"
    # Without a prompt the space is the one SentencePiece put there.
    assert stories.decode_response([1], [261, 378]) == "a time"


def test_response_completes_a_character(gpt2):
    ids = gpt2.encode("今")
    assert len(ids) == 2
    assert gpt2.decode(ids[:1]) == "\ufffd"
    assert gpt2.decode_response(ids[:1], ids[1:]) == "今"
    assert gpt2.decode_response([*gpt2.encode("a"), ids[0]], []) == ""


def test_broken_bytes_do_not_reach_back_into_the_prompt(stories):
    prompt = stories.encode("公园")
    unfinished = prompt[-3]
    assert stories.decode_response(prompt, [unfinished]) == "\ufffd"


def test_decode_leaves_out_special_and_unknown_ids(stories, gpt2):
    ids = np.array([1, 261, 2, 0, 378, 99999, -1])
    assert stories.decode(ids) == "a time"
    assert gpt2.decode([50256, *gpt2.encode("hi"), 50256]) == "hi"


def test_other_decoders_are_left_to_the_library():
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"a": 0, "b": 1, "[E]": 2}, "a")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = Tokenizer(backend, bos_id=None, eos_id=2, pad_id=0)
    assert tokenizer.token_bytes is None
    assert tokenizer.decode([0, 1, 2]) == "a b"
    assert tokenizer.decode_response([0], [1, 2]) == " b"


def test_training_is_deterministic(trained):
    for _ in range(5):
        assert Tokenizer.train(BILINGUAL, 300).to_json() == trained.to_json()


def test_trained_tokenizer_ends_with_endoftext(trained):
    assert trained.vocabulary_size == 300
    assert (trained.bos_id, trained.eos_id, trained.pad_id) == (None, 0, 0)
    assert trained.encode("<|endoftext|>") == [0]


def test_training_refuses_what_cannot_work():
    with pytest.raises(ValueError, match="at least 257.*Received: 256"):
        Tokenizer.train(["a"], 256)
    with pytest.raises(ValueError, match="list of strings"):
        Tokenizer.train("a", 300)


@pytest.mark.parametrize("name", ["gpt2", "stories", "trained"])
def test_saved_tokenizer_comes_back(name, request, tmp_path):
    tokenizer = request.getfixturevalue(name)
    tokenizer.save(tmp_path / "new")
    again = Tokenizer.from_directory(tmp_path / "new")
    assert again.to_json() == tokenizer.to_json()
    for field in ("bos_id", "eos_id", "pad_id", "special_ids"):
        assert vars(again)[field] == vars(tokenizer)[field]
    ids = host_ids(tokenizer, ADVERSARIAL)
    assert ids == host_ids(again, ADVERSARIAL)
    assert ids == auto_ids(tmp_path / "new", ADVERSARIAL)


def test_saving_keeps_an_ordinary_pad_ordinary(trained, tmp_path):
    backend = tokenizers.Tokenizer.from_str(trained.to_json())
    Tokenizer(backend, bos_id=None, eos_id=0, pad_id=65).save(tmp_path)
    again = Tokenizer.from_directory(tmp_path)
    assert again.pad_id == 65
    assert again.special_ids == {0}


def test_directory_errors_name_the_directory(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path}.*neither tokenizer.json"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ValueError, match=f"{tmp_path} cannot be read"):
        Tokenizer.from_directory(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("[")
    with pytest.raises(ValueError, match="tokenizer_config.json is no"):
        Tokenizer.from_directory(tmp_path)


def test_unigram_sentencepiece_is_refused(shared_data, tmp_path):
    source = shared_data / "tokenizers" / "torchtune_m.model"
    (tmp_path / "tokenizer.model").write_bytes(source.read_bytes())
    with pytest.raises(ValueError, match="SentencePiece UNIGRAM model"):
        Tokenizer.from_directory(tmp_path)


def test_half_an_emoji_is_refused(trained):
    with pytest.raises(ValueError, match="lone surrogates"):
        trained.encode("\ud83d")


def test_keras_hub_gpt2(gpt2, gpt2_directory):
    import keras_hub

    vocabulary = json.loads((gpt2_directory / "vocab.json").read_text())
    merges = (gpt2_directory / "merges.txt").read_text().splitlines()
    keras_tokenizer = keras_hub.tokenizers.GPT2Tokenizer(
        vocabulary=vocabulary, merges=merges
    )
    tokenizer = Tokenizer.from_keras_hub(keras_tokenizer)
    assert host_ids(tokenizer, ADVERSARIAL) == host_ids(gpt2, ADVERSARIAL)
    assert tokenizer.eos_id == tokenizer.pad_id == 50256


def test_keras_hub_llama(stories, shared_data):
    import keras_hub

    proto = (shared_data / STORIES).read_bytes()
    keras_tokenizer = keras_hub.tokenizers.LlamaTokenizer(proto=proto)
    tokenizer = Tokenizer.from_keras_hub(keras_tokenizer)
    texts = [text for text in ADVERSARIAL if "<" not in text]
    assert host_ids(tokenizer, texts) == host_ids(stories, texts)
    assert (tokenizer.bos_id, tokenizer.eos_id, tokenizer.pad_id) == (1, 2, 0)


def test_other_keras_hub_families_are_refused_by_name():
    import keras_hub

    other = keras_hub.tokenizers.ByteTokenizer()
    with pytest.raises(ValueError, match="received a ByteTokenizer"):
        Tokenizer.from_keras_hub(other)


def closed_vocabulary(words, bos=True):
    """One token a word, and none for others."""
    vocabulary = {word: i for i, word in enumerate(["<s>", "</s>", *words])}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    backend.add_special_tokens(["<s>", "</s>"])
    if bos:
        backend.post_processor = tokenizers.processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
        )
    return Tokenizer(backend, bos_id=0, eos_id=1, pad_id=1)


@pytest.mark.parametrize("bos", [True, False])
def test_words_without_an_unknown_token(bos):
    tokenizer = closed_vocabulary(["up", "down"], bos)
    opening = [0] if bos else []
    assert tokenizer.encode("up down") == [*opening, 2, 3]
    assert tokenizer.encode_many(["up", "down"]) == [
        [*opening, 2],
        [*opening, 3],
    ]
    for encode in (
        tokenizer.encode,
        lambda text: tokenizer.encode_many([text]),
    ):
        with pytest.raises(ValueError, match="'up left' cannot be") as caught:
            encode("up left")
        assert "`unk_token`" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_words_that_join_are_tokenised_apart_without_bos():
    tokenizer = closed_vocabulary(["up", "down", "updown"])
    assert tokenizer.encode_pair("up", "down") == ([0, 2], [3], False)
    assert tokenizer.encode_pair("up", " down") == ([0, 2], [3], True)


def test_a_tokenizer_that_takes_no_text():
    with pytest.raises(ValueError, match="cannot even encode its own words"):
        closed_vocabulary(["two words"])
