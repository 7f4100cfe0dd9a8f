import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tfrlhf.data import DataError
from tfrlhf.data import examples
from tfrlhf.data import load
from tfrlhf.data import preferences
from tfrlhf.data import ratings
from tfrlhf.data import stream
from tfrlhf.types import Examples
from tfrlhf.types import Preferences
from tfrlhf.types import Ratings

# The first character tells the record, the length is drawn.
LENGTHS = np.random.default_rng(1).integers(1, 40, 100).tolist()
RECORDS = [
    {"prompt": chr(0x4E00 + i), "response": "x" * length}
    for i, length in enumerate(LENGTHS)
]


def order(batches):
    return [
        int(row[0]) - 0x4E00
        for batch in batches
        for row in np.asarray(batch.token_ids)
    ]


def shuffled(tokenizer, **arguments):
    arguments = {"batch_size": 4, "buffer": 16} | arguments
    return stream(RECORDS, tokenizer, 64, **arguments)


def test_without_shuffling_the_rows_are_those_of_examples(tokenizer):
    made = shuffled(tokenizer, shuffle=False, batch_size=7)
    whole = examples(RECORDS, tokenizer, 64)
    start = 0
    for batch in made.epoch(3):
        assert isinstance(batch, Examples)
        width = batch.token_ids.shape[1]
        stop = start + len(batch.token_ids)
        for got, expected in zip(batch, whole, strict=True):
            assert (got == expected[start:stop, :width]).all()
            assert not expected[start:stop, width:].any()
        start = stop
    assert start == 100


def test_orders_depend_on_seed_and_epoch_alone(tokenizer):
    made = shuffled(tokenizer)
    first = order(made.epoch(0))
    assert sorted(first) == list(range(100))
    assert first != list(range(100))
    second = order(made.epoch(1))
    assert sorted(second) == list(range(100))
    assert second != first
    again = shuffled(tokenizer)
    assert order(again.epoch(1)) == second
    assert order(again.epoch(0)) == first
    assert order(shuffled(tokenizer, seed=1).epoch(0)) != first


ORDER = """
import sys
from tests.data.conftest import CharacterTokenizer
from tests.data.test_stream import order, shuffled
print(order(shuffled(CharacterTokenizer(), seed=5).epoch(2)))
"""


def test_the_order_is_that_of_another_process(tokenizer):
    result = subprocess.run(
        [sys.executable, "-c", ORDER],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONHASHSEED": "7"},
    )
    expected = order(shuffled(tokenizer, seed=5).epoch(2))
    assert result.stdout.strip() == str(expected)


def test_a_record_is_drawn_among_the_buffer(tokenizer):
    made = stream(RECORDS, tokenizer, 64, buffer=5, batch_size=1)
    runs = order(made.epoch(0))
    # Runs of 8 batches are put in any order as well.
    assert max(i - place for place, i in enumerate(runs)) <= 5 + 8


def test_rows_of_like_length_share_a_batch(tokenizer):
    made = shuffled(tokenizer, buffer=100, bucket=1)
    padding = rows = 0
    for batch in made.epoch(0):
        padding += (batch.padding_mask == 0).sum()
        rows += batch.padding_mask.size
    plain = shuffled(tokenizer, shuffle=False, bucket=1)
    wasted = sum((b.padding_mask == 0).sum() for b in plain.epoch(0))
    assert padding < wasted / 2


def test_a_dataset_has_the_order_of_its_epoch(tokenizer):
    made = shuffled(tokenizer)
    dataset = made.dataset()
    assert dataset.element_spec.token_ids.shape.as_list() == [None, None]
    assert dataset.cardinality() == 25
    for epoch in (0, 4):
        made.set_epoch(epoch)
        for _ in range(2):
            taken = list(dataset)
            assert isinstance(taken[0], Examples)
            assert taken[0].loss_mask.dtype == tf.int32
            assert order(taken) == order(made.epoch(epoch))


def test_the_callback_sets_the_epoch(tokenizer):
    made = shuffled(tokenizer)
    dataset = made.dataset()
    made.follow_epochs().on_epoch_begin(4)
    assert order(dataset) == order(made.epoch(4))


def test_preferences(tokenizer):
    records = [
        {"prompt": "p", "responses": ["a" * i, "b", "c"][: 2 + i % 2]}
        for i in range(1, 6)
    ]
    made = stream(
        records, tokenizer, 32, kind="preferences", batch_size=2, shuffle=False
    )
    whole = preferences(records, tokenizer, 32)
    (first, *_) = made.dataset()
    assert isinstance(first, Preferences)
    np.testing.assert_array_equal(first.token_ids, whole.token_ids[:2])
    np.testing.assert_array_equal(first.ranks, whole.ranks[:2])
    assert first.weight.dtype == tf.float32


def test_ratings(tokenizer):
    records = [
        {"prompt": "p", "response": "r" * i, "rating": i} for i in (1, 2, 3)
    ]
    made = stream(records, tokenizer, 32, kind="ratings", batch_size=2)
    whole = ratings(records, tokenizer, 32)
    taken = list(made.dataset())
    assert isinstance(taken[0], Ratings)
    rows = {
        float(rating): row.numpy().tolist()
        for batch in taken
        for rating, row in zip(batch.rating, batch.token_ids, strict=True)
    }
    assert rows == {
        rating: row.tolist()
        for rating, row in zip(whole.rating, whole.token_ids, strict=True)
    }


def test_bad_records(tokenizer, write_lines):
    good = {"prompt": "x", "response": "y"}
    path = write_lines(good, {"prompt": "x", "response": "y" * 99}, good)
    message = r"data\.jsonl:2: `prompt` and `response` are 101 tokens long"
    made = stream(load(path), tokenizer, 32)
    with pytest.raises(DataError, match=message):
        made.check()
    with pytest.raises(DataError, match=message):
        list(made.epoch(0))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        list(made.dataset(check=False))
    with pytest.raises(DataError, match=message):
        made.dataset()
    made = stream(load(path), tokenizer, 32, skip_bad=True)
    with pytest.warns(UserWarning, match="skipped 1 bad records of 3, the f"):
        assert made.check() == 2
    assert made.skipped == 1
    made = stream([{"prompt": "x"}], tokenizer, 32, skip_bad=True)
    with pytest.raises(DataError, match="all of the 1 records are bad"):
        made.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kind": "prompts"}, "`kind` must be one of 'examples', 'prefer"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, not 0"),
        ({"buffer": 0}, "`buffer` must be at least 1, not 0"),
    ],
)
def test_bad_arguments(tokenizer, arguments, message):
    with pytest.raises(ValueError, match=message):
        shuffled(tokenizer, **arguments)


def test_what_can_be_read_only_once(tokenizer):
    with pytest.raises(ValueError, match="can be read only once"):
        stream(iter(RECORDS), tokenizer, 64)


class Seen(keras.callbacks.Callback):
    """Keeps a copy of the weights after every epoch."""

    def __init__(self):
        super().__init__()
        self.after = []

    def on_epoch_end(self, epoch, logs=None):
        self.after.append(small.weights(self.model.policy))


def trained(first_epoch, epochs, start=None, by_hand=False):
    records = [
        {"prompt": f"{i}", "response": " text" * (1 + i % 3)} for i in range(12)
    ]
    made = stream(
        records, small.tokenizer(), small.CONTEXT, batch_size=4, bucket=64
    )
    policy = small.gpt2_policy()
    if start is not None:
        for variable, value in zip(policy.weights, start, strict=True):
            variable.assign(value)
    sft = tfrlhf.SFT(policy)
    # Without momentum an epoch depends on weights and order alone.
    sft.compile(keras.optimizers.SGD(0.1), jit_compile=False)
    seen = Seen()
    sft.fit(
        made.dataset() if by_hand else made,
        initial_epoch=first_epoch,
        epochs=epochs,
        callbacks=[made.follow_epochs(), seen] if by_hand else seen,
        verbose=0,
    )
    return seen.after


def test_training_goes_on_with_the_orders_it_would_have_seen():
    whole = trained(0, 3)
    resumed = trained(1, 3, start=whole[0])
    for expected, received in zip(whole[2], resumed[1], strict=True):
        np.testing.assert_array_equal(received, expected)
    by_hand = trained(1, 3, start=whole[0], by_hand=True)
    for expected, received in zip(whole[2], by_hand[1], strict=True):
        np.testing.assert_array_equal(received, expected)


def test_every_epoch_of_fit_has_an_order_of_its_own(monkeypatch):
    made = stream(RECORDS, small.tokenizer(), small.CONTEXT, batch_size=4)
    began = []
    epoch = made.epoch
    monkeypatch.setattr(made, "epoch", lambda n: began.append(n) or epoch(n))
    sft = tfrlhf.SFT(small.gpt2_policy())
    sft.compile("sgd", jit_compile=False)
    callbacks = keras.callbacks.CallbackList([Seen()], model=sft)
    sft.fit(
        made,
        epochs=4,
        initial_epoch=1,
        verbose=0,
        callbacks=callbacks.callbacks,
    )
    assert set(began) == {1, 2, 3}
    # Measured in one order, whatever epoch the training was at.
    first = sft.evaluate(made)
    assert sft.evaluate(made) == first


def test_a_reward_model_learns_from_a_stream():
    records = [
        {"prompt": "The park", "chosen": f" is {i}", "rejected": " x"}
        for i in range(6)
    ]
    arguments = {"kind": "preferences", "batch_size": 3}
    made = stream(records, small.tokenizer(), small.CONTEXT, **arguments)
    reward = small.reward_model()
    reward.compile(keras.optimizers.Adam(1e-2), jit_compile=False)
    before = reward.evaluate(made)["loss"]
    reward.fit(made, epochs=3, validation_data=made, verbose=0)
    assert reward.evaluate(made)["loss"] < before


def test_a_bad_record_stops_fit_before_a_step():
    records = [{"prompt": "a", "response": " b"}, {"prompt": "a"}]
    made = stream(records, small.tokenizer(), small.CONTEXT)
    sft = tfrlhf.SFT(small.gpt2_policy())
    sft.compile("sgd", jit_compile=False)
    before = small.weights(sft.policy)
    with pytest.raises(DataError, match="record 1: the field `response`"):
        sft.fit(made, verbose=0)
    for now, then in zip(small.weights(sft.policy), before, strict=True):
        np.testing.assert_array_equal(now, then)


MEMORY = """
import sys
from tests.data.conftest import CharacterTokenizer
from tfrlhf.data import load, stream

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6

made = stream(load(sys.argv[1]), CharacterTokenizer(), 2000, buffer=256)
dataset = made.dataset(check=False)
# The first batches pay for what TensorFlow sets up once.
sum(1 for _ in dataset.take(50))
before = peak = resident()
for _ in dataset:
    peak = max(peak, resident())
print(peak - before)
"""


def test_memory_is_bounded(tmp_path):
    path = tmp_path / "a.jsonl"
    with path.open("w") as file:
        line = '{"prompt": "p", "response": "%s"}\n' % ("word " * 200)
        file.writelines(line for _ in range(20_000))
    result = subprocess.run(
        [sys.executable, "-c", MEMORY, str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(result.stdout) < 40
