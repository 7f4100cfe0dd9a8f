"""The policy: log-probabilities, text in and out, loading and saving."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from safetensors.numpy import load_file

from tests import references
from tests import references_models
from tests import small
from tests.models.tables import TableModel
from tests.models.tables import successor_table
from tfrlhf import Policy
from tfrlhf import Sampler
from tfrlhf import frozen_copy
from tfrlhf.types import Prompts

ROWS = [
    [5, 6, 7, 8, 9, 10],
    [1, 2],
    [40, 41, 42, 43],
    [200],
]
NEW_TOKENS = 8
HALF_COLD = Sampler(temperature=0.7, max_new_tokens=NEW_TOKENS)


def padded(rows, width=None, fill=0):
    width = width or max(len(row) for row in rows)
    token_ids = np.full([len(rows), width], fill, np.int32)
    padding_mask = np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        padding_mask[index, : len(row)] = 1
    return Prompts(token_ids, padding_mask)


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def policy(request):
    if request.param == "gpt2":
        return small.gpt2_policy(sharpness=6.0)
    return small.llama_policy(sharpness=6.0)


@pytest.fixture(scope="module")
def completions(policy):
    return policy.generate(padded(ROWS), sampler=HALF_COLD, seed=3)


@pytest.fixture(scope="module")
def speaker():
    """Answers any prompt with " trees." and EOS."""
    tokenizer = small.tokenizer()
    answer = [*tokenizer.encode(" trees."), tokenizer.eos_id]
    assert len(set(answer)) == len(answer)
    size = tokenizer.vocabulary_size
    following = dict.fromkeys(range(size), answer[0])
    following |= dict(zip(answer[:-1], answer[1:], strict=True))
    model = TableModel(successor_table(following, size))
    return Policy(model, tokenizer, context_length=48)


def greedy(limit=None, **settings):
    return Sampler(temperature=0, max_new_tokens=limit, **settings)


# What a policy says of tokens.


def test_statistics_are_those_of_the_logits_one_position_before(policy):
    assert_statistics(policy)


def test_statistics_of_another_head_are_too():
    rng = np.random.default_rng(0)
    table = rng.normal(size=(256, 256)).astype(np.float32)
    assert_statistics(Policy(TableModel(table)))


def assert_statistics(policy):
    batch = padded(ROWS)
    logits = policy(*batch).numpy()
    statistics = policy.token_statistics(*batch, temperature=0.7)
    expected = references.token_log_probs(
        logits[:, :-1], batch.token_ids[:, 1:], 0.7
    )
    np.testing.assert_allclose(
        statistics.log_probs[:, 1:], expected, rtol=0, atol=1e-5
    )
    np.testing.assert_allclose(
        statistics.entropy[:, 1:],
        references.entropy(logits[:, :-1], 0.7),
        rtol=0,
        atol=1e-5,
    )
    np.testing.assert_array_equal(
        statistics.most_likely[:, 1:],
        logits[:, :-1].argmax(-1) == batch.token_ids[:, 1:],
    )
    learnt = policy.token_statistics(
        *batch, temperature=0.7, entropy_has_gradient=True
    )
    np.testing.assert_allclose(learnt.entropy, statistics.entropy, atol=1e-5)
    for field in statistics:
        assert not field.numpy()[:, 0].any()
    np.testing.assert_array_equal(
        policy.log_probs(*batch, 0.7), statistics.log_probs
    )


def test_log_probs_do_not_depend_on_padding_or_batch(policy):
    row = ROWS[2]
    alone = policy.log_probs(*padded([row])).numpy()[0]
    others = [[9] * 12, row, [3]]
    together = policy.log_probs(*padded(others, width=14, fill=77)).numpy()
    np.testing.assert_allclose(together[1, : len(row)], alone, atol=1e-5)


def test_statistics_of_some_tokens_are_those_of_all(policy):
    batch = padded(ROWS)
    where = np.array(batch.padding_mask)
    where[0, :2] = where[1] = 0
    everywhere = policy.token_statistics(*batch, temperature=0.7)
    some = policy.token_statistics(*batch, temperature=0.7, where=where)
    where[:, 0] = 0
    assert where.any()
    for received, expected in zip(some, everywhere, strict=True):
        np.testing.assert_allclose(
            received.numpy()[where > 0], expected.numpy()[where > 0], atol=1e-5
        )
        assert not received.numpy()[where == 0].any()


def test_hidden_states_are_what_the_head_takes(policy):
    batch = padded(ROWS)
    hidden = policy.hidden_states(*batch)
    logits = policy.model.backbone.token_embedding(hidden, reverse=True)
    np.testing.assert_allclose(logits, policy(*batch), rtol=0, atol=1e-5)


def test_hidden_states_need_a_known_head(speaker):
    with pytest.raises(ValueError, match="TableModel.*share_trunk=False"):
        speaker.hidden_states(*padded(ROWS))


# What it samples.


def test_greedy_is_the_argmax_of_full_passes(policy):
    out = policy.generate(padded(ROWS), sampler=greedy(NEW_TOKENS), seed=0)
    lengths = tf.reduce_sum(out.padding_mask, axis=1).numpy()
    for row, prompt in enumerate(ROWS):
        ids = out.token_ids[row : row + 1, : lengths[row]].numpy()
        np.testing.assert_array_equal(ids[0, : len(prompt)], prompt)
        best = policy(ids, np.ones_like(ids)).numpy()[0].argmax(-1)
        np.testing.assert_array_equal(
            ids[0, len(prompt) :], best[len(prompt) - 1 : -1]
        )
        stopped = out.finished[row] == 1
        assert stopped or lengths[row] == len(prompt) + NEW_TOKENS


def test_the_sampler_and_the_policy_agree_about_log_probs(policy, completions):
    learned = policy.log_probs(
        completions.token_ids, completions.padding_mask, HALF_COLD.temperature
    )
    np.testing.assert_allclose(
        completions.sampler_log_probs,
        np.where(completions.response_mask == 1, learned, 0.0),
        rtol=0,
        atol=1e-5,
    )


def test_a_seed_decides(policy, completions):
    again = policy.generate(padded(ROWS), sampler=HALF_COLD, seed=3)
    for one, other in zip(completions, again, strict=True):
        np.testing.assert_array_equal(one, other)
    other = policy.generate(padded(ROWS), sampler=HALF_COLD, seed=4)
    assert not np.array_equal(completions.token_ids, other.token_ids)


def test_without_a_seed_each_call_draws_anew(policy):
    first, second = (
        policy.generate(padded(ROWS), sampler=HALF_COLD) for _ in range(2)
    )
    assert not np.array_equal(first.token_ids, second.token_ids)


def test_samples_do_not_depend_on_the_other_rows(policy, completions):
    others = [ROWS[0], [9, 9, 9], [8], ROWS[3]]
    beside = policy.generate(padded(others), sampler=HALF_COLD, seed=3)
    for row in (0, 3):
        np.testing.assert_array_equal(
            completions.token_ids[row], beside.token_ids[row]
        )
    # Fewer rows and more padding.
    fewer = policy.generate(padded(ROWS[:2], 10), sampler=HALF_COLD, seed=3)
    for row in (0, 1):
        np.testing.assert_array_equal(
            completions.token_ids[row], fewer.token_ids[row, :14]
        )


def test_one_trace_for_all_batches_of_a_shape(policy, completions):
    function = policy._decoders[HALF_COLD].stage
    before = function.experimental_get_tracing_count()
    policy.generate(padded([[4], [5], [6], ROWS[0]]), sampler=HALF_COLD)
    equal = Sampler(temperature=0.7, max_new_tokens=NEW_TOKENS)
    policy.generate(padded(ROWS), sampler=equal, seed=11)
    assert function.experimental_get_tracing_count() == before


def test_completions_hold_together(completions):
    ids, padding, response, finished, _ = (x.numpy() for x in completions)
    lengths = padding.sum(axis=1)
    np.testing.assert_array_equal(
        padding, np.arange(ids.shape[1]) < lengths[:, None]
    )
    for row, prompt in enumerate(ROWS):
        np.testing.assert_array_equal(ids[row, : len(prompt)], prompt)
        np.testing.assert_array_equal(
            response[row], padding[row] * (np.arange(14) >= len(prompt))
        )
        assert (ids[row, lengths[row] :] == 0).all()
        assert (ids[row, lengths[row] - 1] == 0) == finished[row]


# Text.


def test_strings_in_strings_out(speaker):
    sampler = greedy(6)
    texts = ["The park is", "今天天气"]
    assert speaker.generate(texts, sampler=sampler) == [" trees."] * 2
    assert speaker.generate(texts[0], sampler=sampler) == " trees."
    assert speaker.generate(texts[:1], sampler=sampler) == [" trees."]


def test_the_eos_stops(speaker):
    prompts = speaker.encode_prompts(["The park is"], 8)
    out = speaker.generate(prompts, sampler=greedy(8))
    answer = [*speaker.tokenizer.encode(" trees."), speaker.tokenizer.eos_id]
    response = out.token_ids[out.response_mask == 1]
    np.testing.assert_array_equal(response, answer)
    assert out.finished.numpy() == [1]


def test_a_stop_token_of_the_sampler_replaces_the_eos(speaker):
    answer = speaker.tokenizer.encode(" trees.")
    sampler = greedy(8, stop_token_ids=answer[:1])
    prompts = speaker.encode_prompts(["The park is"], 8)
    out = speaker.generate(prompts, sampler=sampler)
    np.testing.assert_array_equal(
        out.token_ids[out.response_mask == 1], answer[:1]
    )
    assert out.finished.numpy() == [1]


def test_the_argument_wins_over_the_sampler(speaker):
    prompts = speaker.encode_prompts(["The park is"], 8)
    out = speaker.generate(prompts, max_new_tokens=2, sampler=greedy(8))
    assert tf.reduce_sum(out.response_mask) == 2
    assert out.finished.numpy() == [0]


def test_prompts_leave_room_for_the_response(speaker):
    prompts = speaker.encode_prompts(["a", "the trees"], 8)
    assert prompts.token_ids.shape == (2, 32)
    for text, ids, mask in zip(["a", "the trees"], *prompts, strict=True):
        assert ids[mask == 1].tolist() == speaker.tokenizer.encode(text)


# What it refuses.


def test_a_length_is_needed(speaker):
    with pytest.raises(ValueError, match="`max_new_tokens`"):
        speaker.generate("The park")


@pytest.mark.parametrize("limit", [0, -2])
def test_a_length_is_positive(speaker, limit):
    with pytest.raises(ValueError, match=f"`max_new_tokens`.*{limit}"):
        speaker.generate("The park", max_new_tokens=limit, sampler=greedy(4))


def test_a_prompt_must_fit(speaker):
    with pytest.raises(ValueError, match="prompt 1"):
        speaker.generate(["a", "park " * 60], max_new_tokens=8)
    with pytest.raises(ValueError, match="41 tokens.*=8.*48 tokens"):
        speaker.generate(padded([[1] * 41]), max_new_tokens=8)
    with pytest.raises(ValueError, match="48"):
        speaker.generate("a", max_new_tokens=48)


def test_a_prompt_must_not_be_empty(speaker):
    with pytest.raises(ValueError, match="prompt 1"):
        speaker.generate(["a", ""], max_new_tokens=8)
    with pytest.raises(ValueError, match="row 1"):
        speaker.generate(padded([[1], [], [2]]), max_new_tokens=8)


def test_there_must_be_a_prompt(speaker):
    with pytest.raises(ValueError, match="prompt"):
        speaker.generate([], max_new_tokens=8)


def test_text_needs_a_tokenizer(speaker):
    with pytest.raises(ValueError, match="no tokenizer"):
        Policy(speaker.model).generate("The park", max_new_tokens=8)


# Files.


def test_save_and_load(policy, tmp_path):
    policy.save_to_preset(tmp_path / "new" / "directory")
    loaded = Policy.from_preset(tmp_path / "new" / "directory")
    batch = padded(ROWS)
    np.testing.assert_array_equal(loaded(*batch), policy(*batch))
    assert type(loaded.model) is type(policy.model)
    assert loaded.context_length == small.CONTEXT
    text = "The park, 公园。\n\n12"
    assert loaded.tokenizer.encode(text) == policy.tokenizer.encode(text)
    assert loaded.tokenizer.eos_id == policy.tokenizer.eos_id
    assert len(loaded.weights) == len(policy.weights)


def test_save_and_load_without_a_tokenizer(tmp_path):
    policy = Policy(small.gpt2_policy().model)
    policy.save_to_preset(tmp_path)
    loaded = Policy.from_preset(str(tmp_path))
    assert loaded.tokenizer is None
    assert loaded.context_length == small.CONTEXT


def test_save_and_load_a_plain_keras_model(tmp_path):
    family = small.gpt2_policy(sharpness=6.0)
    size = family.tokenizer.vocabulary_size
    ids = keras.Input([None], dtype="int32", name="token_ids")
    mask = keras.Input([None], dtype="int32", name="padding_mask")
    hidden = keras.layers.Embedding(size, 8)(ids)
    hidden = keras.layers.LSTM(8, return_sequences=True)(hidden, mask=mask > 0)
    inputs = {"token_ids": ids, "padding_mask": mask}
    model = keras.Model(inputs, keras.layers.Dense(size)(hidden))
    policy = Policy(model, family.tokenizer, small.CONTEXT)
    policy.save_to_preset(tmp_path / "lstm")
    loaded = Policy.from_preset(tmp_path / "lstm")
    batch = padded(ROWS)
    np.testing.assert_array_equal(loaded(*batch), policy(*batch))
    assert loaded.context_length == small.CONTEXT
    text = "The park, 公园。"
    assert loaded.tokenizer.encode(text) == policy.tokenizer.encode(text)
    assert len(loaded.trainable_weights) == len(policy.trainable_weights)
    # A copy for reference, too.
    np.testing.assert_array_equal(frozen_copy(loaded)(*batch), policy(*batch))


def test_a_hugging_face_directory(stories_directory):
    policy = Policy.from_preset(stories_directory)
    assert policy.context_length == 512
    prompt = policy.tokenizer.encode("Once upon a time")
    out = policy.generate("Once upon a time", sampler=greedy(6))
    config = json.loads((stories_directory / "config.json").read_text())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]
    tensors = load_file(stories_directory / "model.safetensors")
    ids = list(prompt)
    for _ in range(6):
        logits = references_models.llama_logits(tensors, config, ids)
        ids.append(int(logits[-1].argmax()))
    assert out == policy.tokenizer.decode_response(prompt, ids[len(prompt) :])
    assert out.startswith(", there was")


@pytest.mark.parametrize("kind", [str, lambda path: path])
def test_a_missing_directory(tmp_path, kind):
    missing = tmp_path / "missing"
    with pytest.raises(ValueError, match=f"no directory '{missing}'"):
        Policy.from_preset(kind(missing))


def test_a_directory_that_is_no_model(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match=str(tmp_path)):
        Policy.from_preset(tmp_path)


def test_the_context_of_a_model():
    policy = small.gpt2_policy()
    assert Policy(policy.model).context_length == small.CONTEXT
    assert Policy(policy.model, context_length=9).context_length == 9
    plain = keras.Model(policy.model.input, policy.model.output)
    assert Policy(plain).context_length > 10**6
