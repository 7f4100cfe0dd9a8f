"""Examples imitated beside policy optimisation (PTX)."""

import keras
import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.conformance import support
from tests.learning import tables
from tests.trainers import test_critic_free as loops
from tfrlhf.trainers.example_mixing import ExampleBatches
from tfrlhf.types import Examples
from tfrlhf.types import Experience

WEIGHT = 0.7
# Ragged; one row has a gap, one starts with a token that has no context.
ROWS = [
    ("始我你爱。", [0, 1, 1, 1, 1]),
    ("始爱", [0, 1]),
    ("你我爱你。", [0, 0, 1, 0, 1]),
    ("我爱", [1, 1]),
    ("始。", [0, 0]),
]
RECORDS = [
    {"prompt": "The park", "response": " is large."},
    {"prompt": "12", "response": " trees today"},
    {"prompt": "公园", "response": "很大。"},
]


def examples():
    ids, padding, learnt = (np.zeros([len(ROWS), 6], np.int32) for _ in "123")
    for row, (text, mask) in enumerate(ROWS):
        ids[row, : len(text)] = tables.ids(text)
        padding[row, : len(text)] = 1
        learnt[row, : len(text)] = mask
    return Examples(ids, padding, learnt)


def imitated(table, chosen):
    """Σ cross-entropy, its gradient, and the tokens, by loops."""
    total, tokens, gradient = 0.0, 0, np.zeros_like(table)
    for text, mask in (ROWS[i] for i in chosen):
        ids = tables.ids(text)
        for t in range(1, len(ids)):
            if mask[t]:
                every = loops.log_softmax(table[ids[t - 1]])
                total -= every[ids[t]]
                tokens += 1
                gradient[ids[t - 1]] += np.exp(every)
                gradient[ids[t - 1], ids[t]] -= 1.0
    return total, gradient, tokens


def beside(trainer):
    """The gradient of the examples that the steps of an iteration have."""

    def gradient(table, step):
        chosen = trainer.examples.rows(0, step, 24)
        _, found, tokens = imitated(table, chosen)
        return WEIGHT * found / tokens

    return gradient


MIXED = {"examples": examples(), "sft_weight": WEIGHT}


@pytest.mark.parametrize("name", ["GRPO", "RLOO", "GSPO"])
def test_two_steps_are_those_of_the_loops(name):
    variant = loops.VARIANTS[name]
    trainer = loops.trained(variant, MIXED)
    expected = loops.expected_table(variant, trainer, beside(trainer))
    received = tables.table_of(trainer.policy)
    np.testing.assert_allclose(received, expected, atol=2e-5)
    without = loops.expected_table(variant, trainer)
    assert np.abs(expected - without).max() > 0.02


def test_micro_batches_do_not_change_it():
    variant = loops.VARIANTS["GRPO"]
    whole = loops.trained(variant, MIXED)
    parts = loops.trained(variant, MIXED, micro_batches=5)
    np.testing.assert_allclose(
        tables.table_of(parts.policy), tables.table_of(whole.policy), atol=1e-6
    )
    for name in ("loss/sft", "loss/total"):
        logged = [t.history.history[name][0] for t in (whole, parts)]
        assert logged[0] == pytest.approx(logged[1], rel=1e-5)


def test_what_is_logged():
    variant = loops.VARIANTS["GRPO"]
    mixed = loops.trained(variant, MIXED, update_epochs=1)
    plain = loops.trained(variant, update_epochs=1)
    total, _, tokens = imitated(
        tables.start_table(), mixed.examples.rows(0, 0, 24)
    )
    logs = mixed.history.history
    assert logs["loss/sft"][0] == pytest.approx(total / tokens, rel=1e-5)
    assert logs["loss/total"][0] == pytest.approx(
        plain.history.history["loss/total"][0] + WEIGHT * total / tokens,
        rel=1e-5,
    )
    assert "loss/sft" not in plain.history.history


def test_a_weight_of_0_only_measures():
    variant = loops.VARIANTS["RLOO"]
    plain = loops.trained(variant)
    measured = loops.trained(variant, MIXED | {"sft_weight": 0.0})
    np.testing.assert_array_equal(
        tables.table_of(measured.policy), tables.table_of(plain.policy)
    )
    assert measured.history.history["loss/sft"][0] > 0.1


def test_the_next_fit_is_without():
    trainer = loops.trained(loops.VARIANTS["RLOO"], MIXED)
    history = trainer.fit([tables.START] * 6, batch_size=24, verbose=0)
    assert "loss/sft" not in history.history
    assert trainer.examples is None


def ppo_step(sft_weight=None):
    """The weights of policy and value model after a step of PPO."""
    policy = support.policy()
    trainer = support.ppo(policy, value=support.value_model(policy))
    if sft_weight is not None:
        trainer.take_examples(RECORDS, sft_weight)
    support.iterate(trainer)
    return trainer, small.weights(policy), small.weights(trainer.value)


@pytest.mark.filterwarnings("ignore:Even though the `tf.config.experimental")
def test_it_is_the_step_of_sft_at_temperature_1(eagerly):
    _, before, values_before = ppo_step()
    trainer, after, values_after = ppo_step(sft_weight=0.5)
    policy = support.policy()
    start = small.weights(policy)
    chosen = trainer.examples.rows(0, 0, len(support.PROMPTS))
    assert len(set(chosen.tolist())) == len(RECORDS)
    sft = tfrlhf.SFT(policy)
    sft.compile(keras.optimizers.SGD(0.25), clip_norm=None, jit_compile=False)
    sft.fit([RECORDS[i] for i in chosen], batch_size=len(chosen), verbose=0)
    moved = [now - then for now, then in zip(after, before, strict=True)]
    expected = [
        now - then
        for now, then in zip(small.weights(policy), start, strict=True)
    ]
    assert max(np.abs(x).max() for x in expected) > 1e-2
    support.assert_close(moved, expected, 1e-6)
    support.assert_close(values_after, values_before, 0.0)


def test_every_pass_shows_every_example_once():
    batches = ExampleBatches(examples(), 1.0)
    rows = np.concatenate([batches.rows(3, step, 4) for step in range(10)])
    passes = rows.reshape(8, len(ROWS))
    assert (np.sort(passes, axis=1) == np.arange(len(ROWS))).all()
    assert len({tuple(x) for x in passes.tolist()}) > 1


def test_a_batch_follows_from_seed_and_step():
    first, again = (ExampleBatches(examples(), 1.0) for _ in "12")
    wanted = first.rows(3, 5, 7)
    np.testing.assert_array_equal(again.rows(3, 5, 7), wanted)
    assert len(wanted) == 7
    assert again.rows(4, 5, 7).tolist() != wanted.tolist()


def test_minibatches_and_iterations_have_examples_of_their_own(monkeypatch):
    steps = []
    rows = ExampleBatches.rows

    def noted(self, seed, step, count):
        steps.append((seed, step, count))
        return rows(self, seed, step, count)

    monkeypatch.setattr(ExampleBatches, "rows", noted)
    trainer = loops.trained(
        loops.VARIANTS["RLOO"], MIXED, minibatches=5, update_epochs=2
    )
    trainer.fit([tables.START] * 6, batch_size=24, seed=4, verbose=0, **MIXED)
    assert steps == [(0, i, 5) for i in range(10)] + [
        (4, i, 5) for i in range(10, 20)
    ]


def test_rows_without_a_minibatch_count_nowhere():
    batches = ExampleBatches(examples(), WEIGHT)
    ids = np.zeros([24, 4], np.int32)
    batch = Experience(ids, ids, ids, *[np.zeros([24, 4], np.float32)] * 5)
    for step in range(3):
        mixed = batches.mixed(batch, seed=0, step=step, count=3)
        assert mixed.examples.token_ids.shape == (24, 6)
        chosen = batches.rows(0, step, 3)
        np.testing.assert_array_equal(
            mixed.examples.loss_mask[:3], examples().loss_mask[chosen]
        )
        assert not np.any(mixed.examples.loss_mask[3:])
        tokens = imitated(tables.start_table(), chosen)[2]
        np.testing.assert_allclose(mixed.weight, np.full(24, WEIGHT / tokens))


def test_what_cannot_be_mixed_in():
    trainer = loops.trained(loops.VARIANTS["RLOO"])
    prompts = [tables.START] * 6
    with pytest.raises(ValueError, match="sft_weight"):
        trainer.fit(prompts, batch_size=24, **MIXED | {"sft_weight": -1.0})
    nothing = examples()._replace(loss_mask=np.zeros([5, 6], np.int32))
    with pytest.raises(ValueError, match="no token to learn"):
        trainer.fit(prompts, batch_size=24, examples=nothing)
    online = tfrlhf.OnlineDPO(tables.policy(), loops.graded)
    online.compile("sgd", sampler=tables.SAMPLER, jit_compile=False)
    with pytest.raises(ValueError, match="OnlineDPO imitates no `examples`"):
        online.fit(prompts, batch_size=24, **MIXED)
