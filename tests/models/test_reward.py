"""The reward model: its score, its scale, and learning from judgements."""

import keras
import keras_hub
import numpy as np
import pytest
import tensorflow as tf

from tests import references
from tests import small
from tests.models.tables import counting
from tfrlhf import Policy
from tfrlhf import RewardModel
from tfrlhf import data
from tfrlhf import losses
from tfrlhf.types import Preferences

ROWS = [[5, 6, 7, 8], [1, 2], [40, 41, 42, 43, 44, 45]]
PROMPTS = ["The park", "今天", "The trees are", "Let us go"]
RESPONSES = [" is large.", "天气真好。", " old", ""]


def padded(rows, width, fill=0):
    token_ids = np.full([len(rows), width], fill, np.int32)
    padding_mask = np.zeros_like(token_ids)
    for index, row in enumerate(rows):
        token_ids[index, : len(row)] = row
        padding_mask[index, : len(row)] = 1
    return token_ids, padding_mask


def pairs(count, better=" fine", worse=" old"):
    """Comparisons that one word decides."""
    return [
        {
            "prompt": f"The park {index}",
            "chosen": f"{better} {index % 3}",
            "rejected": f"{worse} {index % 3}",
        }
        for index in range(count)
    ]


def adam():
    return keras.optimizers.Adam(5e-3)


@pytest.fixture(scope="module")
def reward():
    """Not to be changed."""
    return small.reward_model(sharpness=6.0)


@pytest.fixture(scope="module")
def trained():
    """Learned from pairs, with the history of its training."""
    model = small.reward_model(sharpness=3.0)
    model.compile(adam(), loss=losses.PairwiseRanking())
    history = model.fit(pairs(16), batch_size=16, epochs=15, verbose=0)
    return model, history.history


# The score.


def test_a_score_does_not_depend_on_padding_or_batch(reward):
    together = reward.score(*padded(ROWS, 9, fill=77))
    assert together.dtype == "float32" and together.shape == (3,)
    for row, score in zip(ROWS, together.numpy(), strict=True):
        alone = reward.score(*padded([row], len(row)))
        np.testing.assert_allclose(score, alone[0], rtol=0, atol=1e-5)


def test_a_score_reads_the_last_token():
    model = small.reward_model(sharpness=6.0)
    model.head.bias.assign([0.25])
    model.gain.assign(3.0)
    model.bias.assign(-0.5)
    token_ids, padding_mask = padded(ROWS, 7)
    hidden = np.asarray(
        model.backbone({"token_ids": token_ids, "padding_mask": padding_mask})
    )
    kernel = np.asarray(model.head.kernel)[:, 0]
    expected = [
        3.0 * (hidden[row, len(ids) - 1] @ kernel + 0.25) - 0.5
        for row, ids in enumerate(ROWS)
    ]
    np.testing.assert_allclose(
        model(token_ids, padding_mask), expected, rtol=0, atol=1e-5
    )


def test_the_head_starts_at_one_over_the_root_of_its_inputs():
    backbone = keras_hub.models.GPT2Backbone(10, 1, 1, 1024, 8)
    keras.utils.set_random_seed(0)
    model = RewardModel(backbone)
    kernel = np.asarray(model.head.kernel)
    assert kernel.std() == pytest.approx(1025**-0.5, rel=0.06)
    assert abs(kernel.mean()) < 3 / 1024**0.5 * 1025**-0.5
    assert np.asarray(model.head.bias) == [0.0]
    assert (float(model.gain), float(model.bias)) == (1.0, 0.0)


def test_text_is_scored_as_its_ids_with_eos(reward):
    tokenizer = reward.tokenizer
    rows = [
        [*sum(tokenizer.encode_pair(prompt, response)[:2], []), 0]
        for prompt, response in zip(PROMPTS, RESPONSES, strict=True)
    ]
    assert tokenizer.eos_id == 0
    scores = reward.score(PROMPTS, RESPONSES, batch_size=3)
    assert scores.shape == (4,) and scores.dtype == np.float32
    np.testing.assert_allclose(
        scores, reward.score(*padded(rows, 32)), rtol=0, atol=1e-5
    )


def test_the_callable_on_text(reward):
    function = reward.as_function()
    scores = function(PROMPTS, RESPONSES, source=["a"] * 4)
    assert [type(score) for score in scores] == [float] * 4
    np.testing.assert_array_equal(scores, reward.score(PROMPTS, RESPONSES))


def test_text_needs_a_tokenizer(reward):
    without = RewardModel(reward.backbone)
    with pytest.raises(ValueError, match="no tokenizer"):
        without.score(PROMPTS, RESPONSES)


def test_a_text_too_long_is_refused(reward):
    with pytest.raises(ValueError, match="response 1.*64"):
        reward.score(["a", "b"], ["c", " park" * 80])


# Its scale.


def test_normalize_gives_mean_0_and_deviation_1():
    model = small.reward_model(sharpness=3.0)
    before = model.score(PROMPTS, RESPONSES)
    for _ in range(2):
        model.normalize(PROMPTS, RESPONSES)
        after = model.score(PROMPTS, RESPONSES)
        np.testing.assert_allclose(
            after, (before - before.mean()) / before.std(), atol=1e-5
        )
    # Over other texts once more, from this state.
    model.normalize(PROMPTS[::-1], RESPONSES)
    assert model.score(PROMPTS[::-1], RESPONSES).std() == pytest.approx(1, 1e-5)


@pytest.mark.parametrize("rows", [1, 2])
def test_normalize_needs_different_scores(reward, rows):
    before = float(reward.gain), float(reward.bias)
    with pytest.raises(ValueError, match=f"all {rows} score .* is 0"):
        reward.normalize(["The park"] * rows, [" is large."] * rows)
    assert (float(reward.gain), float(reward.bias)) == before


# Learning.


def test_pairs_are_learned(trained):
    model, history = trained
    assert history["loss"][-1] < 0.1 < 0.5 < history["loss"][0]
    assert history["accuracy"][-1] == 1.0
    held_out = [pair | {"prompt": "今天天气"} for pair in pairs(6)]
    assert model.evaluate(held_out)["accuracy"] == 1.0


def test_normalize_keeps_the_order_of_a_trained_model(trained):
    model, _ = trained
    words = [" fine 1", " old 1", " fine", " old", " park"]
    before = model.score(["The park"] * 5, words)
    model.normalize(["The park"] * 5, words)
    after = model.score(["The park"] * 5, words)
    np.testing.assert_array_equal(np.argsort(before), np.argsort(after))


def test_evaluate_measures_what_score_says(reward):
    model = RewardModel(reward.backbone, reward.tokenizer, small.CONTEXT)
    model.compile(loss=losses.PairwiseRanking())
    records = pairs(5)
    for record, weight in zip(records, [1.0, 2.0, 0.5, 0.0, 1.0], strict=True):
        record["weight"] = weight
    measured = model.evaluate(records, batch_size=2)
    chosen, rejected = (
        model.score([r["prompt"] for r in records], [r[key] for r in records])
        for key in ("chosen", "rejected")
    )
    weight = np.array([r["weight"] for r in records])
    margin = chosen - rejected
    expected = {
        "loss": np.log1p(np.exp(-margin)),
        "accuracy": margin > 0,
        "margin": margin,
    }
    assert set(expected) <= set(measured)
    for name, values in expected.items():
        assert isinstance(measured[name], float)
        assert measured[name] == pytest.approx(
            np.average(values, weights=weight), abs=1e-5
        )


@pytest.mark.parametrize(
    ("loss", "reference"),
    [
        (losses.PairwiseRanking(margin=0.25), "pairs"),
        (losses.ListwiseRanking(), "lists"),
    ],
)
def test_a_record_may_ask_for_a_margin(reward, loss, reference):
    model = RewardModel(reward.backbone, reward.tokenizer, small.CONTEXT)
    model.compile(loss=loss)
    records = pairs(3) if reference == "pairs" else rankings()
    margins = [0.0, 0.5, 2.0]
    asking = [
        record | {"margin": margin}
        for record, margin in zip(records, margins, strict=True)
    ]
    encoded = data.preferences(asking, model.tokenizer, small.CONTEXT)
    assert encoded.margin.tolist() == margins
    flat = encoded.ranks.size
    scores = np.float64(
        model.score(
            encoded.token_ids.reshape(flat, -1),
            encoded.padding_mask.reshape(flat, -1),
        )
    ).reshape(encoded.ranks.shape)
    if reference == "pairs":
        lead = scores[:, 0] - scores[:, 1] - 0.25 - margins
        expected = np.log1p(np.exp(-lead)).mean()
    else:
        ahead = scores + np.maximum(encoded.ranks, 0) * np.c_[margins]
        expected = references.listwise_ranking_loss(ahead, encoded.ranks).mean()
    measured, plain = model.evaluate(asking), model.evaluate(records)
    assert measured["loss"] == pytest.approx(expected, abs=1e-5)
    assert measured["loss"] > plain["loss"]
    # The metrics are those of the scores.
    assert measured["margin"] == plain["margin"]


def test_equal_scores_are_half_right(reward):
    model = RewardModel(reward.backbone, reward.tokenizer, small.CONTEXT)
    model.head.kernel.assign(model.head.kernel * 0)
    model.compile()
    measured = model.evaluate(pairs(3))
    assert (measured["accuracy"], measured["margin"]) == (0.5, 0.0)
    assert measured["loss"] == pytest.approx(np.log(2))


def rankings():
    """Two orders of three, and one pair: a third candidate is absent."""
    orders = [
        {
            "prompt": f"The {place}",
            "responses": [" fine park", " park", " old park"],
        }
        for place in ("weather", "trees")
    ]
    return [*orders, *pairs(1)]


def test_rankings_are_learned():
    model = small.reward_model(sharpness=3.0)
    model.compile(adam(), loss=losses.ListwiseRanking())
    encoded = data.preferences(rankings(), model.tokenizer, small.CONTEXT)
    assert encoded.ranks.tolist() == [[0, 1, 2], [0, 1, 2], [0, 1, -1]]
    before = model.evaluate(encoded)
    flat = encoded.token_ids.reshape(9, -1), encoded.padding_mask.reshape(9, -1)
    scores = model.score(*flat).numpy().reshape(3, 3).astype(np.float64)
    expected = references.listwise_ranking_loss(scores, encoded.ranks).mean()
    assert before["loss"] == pytest.approx(expected, abs=1e-5)

    absent = encoded.ranks[:, :, None] < 0
    other = encoded._replace(
        token_ids=np.where(absent, 9, encoded.token_ids),
        padding_mask=np.where(absent, 1, encoded.padding_mask),
    )
    assert model.evaluate(other) == pytest.approx(before, abs=1e-6)

    model.fit(encoded, epochs=20, verbose=0)
    after = model.evaluate(rankings())
    assert after["accuracy"] == 1.0 and after["loss"] < 0.2 * before["loss"]


def test_the_best_of_several_is_learned():
    model = small.reward_model(sharpness=3.0)
    model.compile(adam(), loss=losses.BestOfN())
    records = [
        {"prompt": f"The {place}", "responses": responses, "ranks": [1, 0, 1]}
        for place in ("weather", "trees", "park")
        for responses in ([" old", " fine", " park"], [" park", " fine", " 1"])
    ]
    before = model.evaluate(records)
    encoded = data.preferences(records, model.tokenizer, small.CONTEXT)
    model.fit(data.batches(encoded, 6).repeat(20), verbose=0)
    after = model.evaluate(records)
    assert after["accuracy"] == 1.0 and after["loss"] < 0.2 * before["loss"]


def test_chances_are_learned():
    chances = {" old": 0.0, " fine": 1.0, " park": 0.25}
    records = [
        {"prompt": f"The {n}", "response": word, "rating": chance}
        for word, chance in chances.items()
        for n in range(3)
    ]
    model = small.reward_model(sharpness=3.0)
    model.compile(adam(), loss=losses.ScoreCrossEntropy())
    encoded = data.ratings(records, model.tokenizer, small.CONTEXT)
    model.fit(data.batches(encoded, 9).repeat(30), verbose=0)
    scores = model.score(["The 9"] * 3, list(chances))
    learned = 1 / (1 + np.exp(-scores))
    np.testing.assert_allclose(learned, list(chances.values()), atol=0.15)


def test_ratings_are_learned():
    words = [" old", " large", " park", " fine", " trees"]
    records = [
        {"prompt": f"The {n}", "response": word, "rating": rating, "weight": w}
        for rating, word in enumerate(words, start=1)
        for n, w in enumerate([0.5, 1.0, rating])
    ]
    model = small.reward_model(sharpness=3.0)
    model.compile(adam(), loss=losses.ScoreRegression())
    before = model.evaluate(records)
    error = np.abs(
        model.score(
            [r["prompt"] for r in records], [r["response"] for r in records]
        )
        - [r["rating"] for r in records]
    )
    weights = [r["weight"] for r in records]
    for name, values in (("error", error), ("loss", error**2)):
        expected = np.average(values, weights=weights)
        assert before[name] == pytest.approx(expected, rel=1e-5)
    history = model.fit(records, batch_size=15, epochs=40, verbose=0).history
    assert set(history) >= {"loss", "error", "gradient_norm"}
    scores = model.score(["The 9"] * 5, words)
    np.testing.assert_allclose(scores, [1, 2, 3, 4, 5], atol=0.5)


def test_rows_of_weight_0_do_not_matter():
    results = []
    for filler in (" park", " 公园很大，树很老"):
        records = pairs(2) + [
            {
                "prompt": "The park",
                "chosen": filler,
                "rejected": " old",
                "weight": 0.0,
            }
        ]
        model = small.reward_model()
        model.compile(
            keras.optimizers.SGD(0.1), clip_norm=None, run_eagerly=True
        )
        model.fit(records, verbose=0)
        results.append(small.weights(model))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_a_dataset_is_taken_as_it_is(reward):
    model = RewardModel(reward.backbone, reward.tokenizer, small.CONTEXT)
    model.compile()
    encoded = data.preferences(pairs(4), model.tokenizer, small.CONTEXT)
    dataset = data.batches(encoded, 3)
    assert isinstance(next(iter(dataset)), Preferences)
    assert model.evaluate(dataset) == model.evaluate(pairs(4), batch_size=3)


# Copies and files.


def test_from_policy_shares_no_variable():
    policy = small.gpt2_policy()
    model = RewardModel.from_policy(policy)
    assert model.tokenizer is policy.tokenizer
    assert model.context_length == small.CONTEXT
    for ours, theirs in zip(
        model.backbone.weights, policy.weights, strict=True
    ):
        assert ours is not theirs
        np.testing.assert_array_equal(ours, theirs)
    before = small.weights(policy)
    for variable in model.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    for one, other in zip(before, small.weights(policy), strict=True):
        np.testing.assert_array_equal(one, other)


def test_from_policy_needs_a_backbone():
    with pytest.raises(ValueError, match="TableModel.*no backbone"):
        RewardModel.from_policy(Policy(counting(9)))


def test_save_and_load(tmp_path):
    model = small.reward_model(sharpness=6.0)
    model.head.bias.assign([0.5])
    model.normalize(PROMPTS, RESPONSES)
    model.save_to_preset(tmp_path / "new" / "reward")
    loaded = RewardModel.from_preset(tmp_path / "new" / "reward")
    np.testing.assert_array_equal(
        loaded.score(PROMPTS, RESPONSES), model.score(PROMPTS, RESPONSES)
    )
    assert loaded.context_length == small.CONTEXT
    assert loaded.tokenizer.to_json() == model.tokenizer.to_json()


def test_save_and_load_a_tied_llama(tmp_path):
    model = RewardModel.from_policy(small.llama_policy(sharpness=6.0))
    model.save_to_preset(tmp_path)
    loaded = RewardModel.from_preset(str(tmp_path))
    batch = padded(ROWS, 7)
    np.testing.assert_array_equal(loaded(*batch), model(*batch))


def test_a_directory_that_is_no_reward_model(tmp_path):
    for directory in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=f"{directory}.*no reward model"):
            RewardModel.from_preset(directory)
