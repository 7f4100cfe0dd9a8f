"""Rewards of single steps: learning, reading, and PPO on them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import references
from tests import small
from tfrlhf import data
from tfrlhf import rollout
from tfrlhf.models.start_check import SetupError
from tfrlhf.types import StepRatings


def process_model(seed=2, sharpness=3.0):
    backbone = small.gpt2_backbone(seed, sharpness=sharpness)
    return tfrlhf.ProcessRewardModel(backbone, small.tokenizer(), small.CONTEXT)


def records():
    """A step is right where it says fine; places and lengths vary."""
    kinds = {" fine": 1, " old": 0}
    return [
        {
            "prompt": f"The park {number}",
            "steps": [f"{number}{one}", f"{other}", f" {number % 4}{last}"],
            "labels": [kinds[one], kinds[other], kinds[last]],
        }
        for number, (one, other, last) in enumerate(
            (a, b, c) for a in kinds for b in kinds for c in kinds
        )
    ]


def test_steps_end_at_separators_and_eos():
    tokenizer = small.tokenizer()
    encoded = data.step_ratings(
        [
            {"prompt": "The park", "steps": ["a b", "c", "d"]}
            | {"labels": [1, 0.25, 3], "weight": 2},
            {"prompt": "\nQ\n", "steps": ["one"], "labels": [0.5]},
        ],
        tokenizer,
        small.CONTEXT,
    )
    assert isinstance(encoded, StepRatings)
    newline = tokenizer.encode("\n")
    for row, text in enumerate(["a b\nc\nd", "one"]):
        response = encoded.token_ids[row][encoded.response_mask[row] > 0]
        assert tokenizer.decode(response[:-1].tolist()) == text
        ends = encoded.token_ids[row][encoded.step_mask[row] > 0]
        assert ends.tolist() == newline * text.count("\n") + [0]
    # Separators of the prompt end nothing.
    assert encoded.step_mask.sum(axis=1).tolist() == [3, 1]
    of_steps = encoded.rating[encoded.step_mask > 0].tolist()
    assert of_steps == [1.0, 0.25, 3.0, 0.5]
    assert not encoded.rating[encoded.step_mask == 0].any()
    assert encoded.weight.tolist() == [2.0, 1.0]


def test_bad_steps_are_named():
    good = {"prompt": "Q", "steps": ["a", "b"], "labels": [1, 0]}
    for change, message in [
        ({"steps": []}, "record 0: `steps` must be a list of one or more"),
        ({"steps": ["a", "b\nc"]}, r"`steps\[1\]` holds the separator"),
        ({"steps": ["a", " "]}, r"`steps\[1\]` is blank"),
        ({"labels": [1]}, "`labels` must be a list of 2 numbers"),
        ({"labels": [1, "x"]}, r"`labels\[1\]` must be a finite number"),
        ({"prompt": " "}, "`prompt` is blank"),
    ]:
        with pytest.raises(data.DataError, match=message):
            data.step_ratings([good | change], small.tokenizer(), 64)
    with pytest.raises(ValueError, match="one token. Received: '<sep>'"):
        data.step_ratings([good], small.tokenizer(), 64, separator="<sep>")


def test_a_separator_that_joins_its_neighbours_is_refused():
    record = {"prompt": "Q", "steps": ["The", "park"], "labels": [1, 0]}
    # A space alone is one token, and so is " park".
    with pytest.raises(data.DataError, match="the 2 `steps` become 1 in"):
        data.step_ratings([record], small.tokenizer(), 64, separator=" ")


@pytest.fixture(scope="module")
def trained():
    model = process_model()
    model.compile(keras.optimizers.Adam(5e-3))
    first = model.evaluate(records())
    encoded = data.step_ratings(records(), model.tokenizer, small.CONTEXT)
    model.fit(data.batches(encoded, 8).repeat(30), verbose=0)
    return model, first


def test_evaluate_is_the_cross_entropy_of_the_steps():
    model = process_model()
    model.compile()
    weighed = [r | {"weight": float(i)} for i, r in enumerate(records())]
    measured = model.evaluate(weighed, batch_size=3)
    scores = model.score_steps(
        [r["prompt"] for r in weighed],
        ["\n".join(r["steps"]) for r in weighed],
    )
    flat = [
        (score, rating, record["weight"])
        for row, record in zip(scores, weighed, strict=True)
        for score, rating in zip(row, record["labels"], strict=True)
    ]
    assert len(flat) == 24
    each, rating, weight = np.array(flat).T
    losses = references.score_cross_entropy_loss(each, rating)
    assert measured["loss"] == pytest.approx(
        np.average(losses, weights=weight), abs=1e-5
    )
    right = (each > 0) == (rating > 0.5)
    assert measured["accuracy"] == pytest.approx(
        np.average(right, weights=weight), abs=1e-6
    )


def test_steps_are_learned(trained):
    model, first = trained
    last = model.evaluate(records())
    assert last["accuracy"] == 1.0 and last["loss"] < 0.3 * first["loss"]
    # The wrong step is found, not the response as a whole.
    (scores,) = model.score_steps(["The park 9"], ["9 fine\n old\n 1 fine"])
    assert [score > 0 for score in scores] == [True, False, True]


def test_the_score_is_that_of_the_last_step(trained):
    model, _ = trained
    prompts, responses = ["The park 9"] * 2, ["9 fine\n old", " old\n 1 fine"]
    steps = model.score_steps(prompts, responses)
    np.testing.assert_allclose(
        model.score(prompts, responses), [s[-1] for s in steps], atol=1e-5
    )


def test_a_step_sees_nothing_that_comes_later(trained):
    model, _ = trained
    longer = model.score_steps(["The park"], ["1 fine\n old\n 2 fine"])[0]
    shorter = model.score_steps(["The park"], ["1 fine\n fine"])[0]
    assert longer[0] == pytest.approx(shorter[0], abs=1e-5)


def test_a_backbone_that_sees_later_tokens_is_refused(monkeypatch):
    model = process_model()
    scores = model.token_scores

    def seeing(token_ids, padding_mask, training=False):
        return tf.roll(scores(token_ids, padding_mask, training), -1, axis=1)

    monkeypatch.setattr(model, "token_scores", seeing)
    model.compile(run_eagerly=True)
    with pytest.raises(SetupError, match="later tokens|padding"):
        model.fit(records(), batch_size=8, verbose=0)


def test_save_and_load(tmp_path, trained):
    model, _ = trained
    model.separator = " "
    model.save_to_preset(tmp_path)
    model.separator = "\n"
    loaded = tfrlhf.ProcessRewardModel.from_preset(tmp_path)
    assert loaded.separator == " " and loaded.context_length == small.CONTEXT
    loaded.separator = "\n"
    text = ["The park"], ["1 fine\n old"]
    assert loaded.score_steps(*text) == model.score_steps(*text)


@pytest.fixture
def eagerly():
    """Without tracing, where a function runs once."""
    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


def test_ppo_learns_from_rewards_of_steps(trained, eagerly):
    process, _ = trained
    policy = small.gpt2_policy(sharpness=4.0)
    before = small.weights(policy)
    ppo = tfrlhf.PPO(policy, process, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile(
        "adam",
        sampler=tfrlhf.Sampler(max_new_tokens=12),
        update_epochs=1,
        jit_compile=False,
    )
    completions = ppo.rollout(["The park 1\n"] * 32, seed=3)
    ids, mask, response = completions[:3]
    found = ppo.judge([{}] * 32, [""] * 32, completions, 32)
    steps = process.step_rewards(ids, mask, response)
    np.testing.assert_allclose(found.step_rewards, steps, atol=1e-5)
    seen = ppo.collect(completions, found.scores, 32, found.step_rewards)
    stops = [0, *small.tokenizer().encode("\n")]
    ends = np.isin(ids, stops) & (np.asarray(response) > 0)
    assert 0 < ends.sum() and not steps.numpy()[~ends].any()
    rewards = rollout.rollout_rewards(seen, 0.1)
    estimator = tfrlhf.GAE(whiten=False)
    experience = rollout.make_experience(seen, rewards, estimator)
    wanted, _ = references.gae(
        np.float64(rewards), np.float64(seen.values), np.asarray(response)
    )
    np.testing.assert_allclose(experience.advantages, wanted, atol=1e-4)
    logs = ppo.update(experience, 32, rewards)
    assert np.isfinite(float(logs["loss/policy"]))
    assert any(map(np.any, map(np.subtract, before, small.weights(policy))))
