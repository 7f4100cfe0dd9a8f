import numpy as np
import pytest
import tensorflow as tf

from tests import small
from tests.texts import BILINGUAL
from tfrlhf import RewardModel
from tfrlhf import Tokenizer
from tfrlhf import rollout
from tfrlhf.types import Completions

PROMPTS = ["a", "b"]
RESPONSES = ["one", "two"]


def call(reward, columns=None):
    return rollout.call_reward(reward, PROMPTS, RESPONSES, columns or {})


def error_of(reward):
    with pytest.raises(rollout.RewardError) as caught:
        call(reward)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "scores",
    [
        [1, 2.5],
        (1.0, 2.5),
        np.array([1.0, 2.5]),
        tf.constant([1.0, 2.5]),
        [np.float64(1.0), True + 1.5],
    ],
)
def test_every_list_of_numbers_will_do(scores):
    values = call(lambda prompts, responses: scores)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, [1.0, 2.5])


def test_prompts_responses_and_columns_arrive_as_they_are():
    def reward(prompts, responses, answer, level):
        assert (prompts, responses) == (PROMPTS, RESPONSES)
        assert (answer, level) == (["x", None], [[1], [2]])
        return [0.0, 0.0]

    call(reward, {"answer": ["x", None], "level": [[1], [2]]})


def test_a_reward_that_raises():
    def broken(prompts, responses):
        raise KeyError("rating")

    message = error_of(broken)
    assert "broken` raised KeyError: 'rating'" in message
    assert "2 responses, the first: 'one'" in message


def test_a_reward_that_does_not_take_the_columns():
    with pytest.raises(rollout.RewardError, match=r"TypeError.*'answer'"):
        call(lambda prompts, responses: [0.0, 0.0], {"answer": ["x", "y"]})


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, 2.0, 3.0]])
def test_a_wrong_number_of_scores(scores):
    message = error_of(lambda prompts, responses: scores)
    assert f"each of the 2 responses. Received: {len(scores)} scores" in message


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_score_that_is_not_finite(bad):
    message = error_of(lambda prompts, responses: [0.0, bad])
    assert f"returned {bad} for the response 'two'" in message


@pytest.mark.parametrize("scores", [None, 1.0, ["good", "bad"], [None, 1.0]])
def test_what_is_no_list_of_numbers(scores):
    message = error_of(lambda prompts, responses: scores)
    assert f"a list of 2 numbers. Received: {scores!r}" in message


def test_a_long_result_is_shortened():
    message = error_of(lambda prompts, responses: ["x" * 1000])
    assert len(message) < 400


def test_an_object_is_named_by_its_type():
    class Judge:
        def __call__(self, prompts, responses):
            return []

    assert "of type `Judge`" in error_of(Judge())


def test_the_means_of_parts_are_over_responses_that_are_there():
    rows = np.zeros([3, 4], np.int32)
    rows[0, 1], rows[2, 1:3] = 1, 1
    batch = Completions(rows, rows, rows, rows[:, 0], rows)

    def reward(prompts, responses):
        return [0.0] * len(responses)

    assert rollout.part_metrics(reward, batch) == {}
    reward.parts = {"long": [1.0, 50.0, 2.0], "short": [0.5, 0.5, 0.5]}
    means = {"rewards/long": 1.5, "rewards/short": 0.5}
    assert rollout.part_metrics(reward, batch) == means
    nothing = batch._replace(response_mask=0 * rows)
    assert set(rollout.part_metrics(reward, nothing).values()) == {0.0}


def completions(finished):
    """A cut row with room, a finished one, one that fills its row."""
    return Completions(
        token_ids=tf.constant([[5, 6, 0, 0], [5, 9, 0, 0], [5, 6, 7, 8]]),
        padding_mask=tf.constant([[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1]]),
        response_mask=tf.constant([[0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 1]]),
        finished=tf.constant(finished),
        sampler_log_probs=tf.zeros([3, 4]),
    )


def test_only_cut_responses_are_given_an_end():
    token_ids, padding_mask = rollout.with_end(completions([0, 1, 0]), 9)
    np.testing.assert_array_equal(
        token_ids, [[5, 6, 9, 0, 0], [5, 9, 0, 0, 0], [5, 6, 7, 8, 9]]
    )
    np.testing.assert_array_equal(
        padding_mask, [[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [1, 1, 1, 1, 1]]
    )


def test_without_an_end_token_nothing_changes():
    given = completions([0, 1, 0])
    token_ids, padding_mask = rollout.with_end(given, None)
    np.testing.assert_array_equal(token_ids[:, :4], given.token_ids)
    np.testing.assert_array_equal(padding_mask[:, :4], given.padding_mask)
    np.testing.assert_array_equal(padding_mask[:, 4], [0, 0, 0])


def test_ids_are_scored_where_the_tokenizers_are_the_same():
    policy, reward = small.gpt2_policy(), small.reward_model()
    copy = Tokenizer.train(BILINGUAL, 300)
    other = Tokenizer.train(["Once upon a time."], 300)
    assert rollout.scores_ids(reward, policy)
    assert rollout.scores_ids(RewardModel(reward.backbone, copy), policy)
    assert not rollout.scores_ids(RewardModel(reward.backbone, other), policy)
    assert not rollout.scores_ids(RewardModel(reward.backbone), policy)
    assert not rollout.scores_ids(reward.as_function(), policy)
