import pytest

from tfrlhf.rollout import as_columns
from tfrlhf.trainers.prompt_batches import PromptBatches

LETTERS = list("abcdefg")


def flat(batches):
    return [record["prompt"] for batch in batches for record in batch]


def test_an_epoch_has_every_prompt_once_and_a_short_last_batch():
    batches = PromptBatches(LETTERS, batch_size=3, seed=0)
    epoch = list(batches.epoch(0))
    assert [len(batch) for batch in epoch] == [3, 3, 1]
    assert len(batches) == 3
    assert sorted(flat(epoch)) == LETTERS


def test_the_order_follows_from_seed_and_epoch_alone():
    orders = {
        (seed, epoch): flat(PromptBatches(LETTERS, 3, seed).epoch(epoch))
        for seed in (0, 1)
        for epoch in (0, 1)
    }
    assert len({tuple(order) for order in orders.values()}) == 4
    again = PromptBatches(LETTERS, batch_size=2, seed=1)
    list(again.epoch(0))
    assert flat(again.epoch(1)) == orders[1, 1]


def test_columns_keep_the_order_of_the_rows():
    records = [
        {"prompt": "a", "n": 1, "_where": "x:1", "some": 0},
        {"prompt": "b", "n": None, "_where": "x:2"},
    ]
    prompts, columns = as_columns(records)
    assert prompts == ["a", "b"]
    assert columns == {"n": [1, None]}


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([], "`prompts` is empty"),
        ("one", "must be a list"),
        (["a", ""], "Prompt 1 is empty"),
        (["a", " \n"], "Prompt 1 is empty"),
        (["a", "b", {"text": "c"}], "Prompt 2 must be a string, a list"),
        ([{"prompt": 3}], "Prompt 0 must be a string, a list"),
        ([None], "Prompt 0 must be a string, a list"),
    ],
)
def test_bad_prompts(prompts, message):
    with pytest.raises(ValueError, match=message):
        PromptBatches(prompts, batch_size=2, seed=0)


def test_a_batch_holds_at_least_one_prompt():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1"):
        PromptBatches(["a"], batch_size=0, seed=0)
