import operator
import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.trainers.conftest import BATCH
from tests.trainers.conftest import PROMPTS
from tests.trainers.conftest import every_variable
from tests.trainers.conftest import letters
from tests.trainers.conftest import variables
from tfrlhf import losses
from tfrlhf.rollout import RewardError
from tfrlhf.types import Experience

SAMPLER = tfrlhf.Sampler(temperature=0.7, max_new_tokens=6)


class Record(keras.callbacks.Callback):
    """Keeps the logs of every iteration."""

    def __init__(self):
        super().__init__()
        self.logs = []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))


def fit(ppo, prompts=PROMPTS, batch_size=BATCH, **arguments):
    record = Record()
    ppo.fit(
        prompts,
        batch_size=batch_size,
        callbacks=[record],
        verbose=0,
        **arguments,
    )
    return record.logs


def assert_all_equal(received, expected):
    for now, wanted in zip(received, expected, strict=True):
        np.testing.assert_array_equal(now, wanted)


@pytest.fixture(scope="module")
def learned():
    """A run that learns, on prompts that do not fill the last batch."""
    policy = small.gpt2_policy()
    ppo = tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))
    reference = small.weights(ppo.reference)
    ppo.compile(
        keras.optimizers.Adam(1e-2),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=8),
        kl=tfrlhf.FixedKL(0.002),
        jit_compile=False,
    )
    logs = fit(ppo, PROMPTS[:3] * 8, batch_size=16, epochs=12)
    return ppo, logs, reference


def test_it_learns(learned):
    _, logs, _ = learned
    scores = [log["objective/scores"] for log in logs]
    assert len(scores) == 24
    assert np.mean(scores[:2]) < 0.4
    assert np.mean(scores[-3:]) > 0.8
    assert logs[-1]["objective/kl"] > 1.0


def test_the_reference_stays(learned):
    ppo, logs, reference = learned
    assert_all_equal(small.weights(ppo.reference), reference)
    assert not ppo.reference.trainable_variables
    assert logs[0]["objective/kl"] == pytest.approx(0.0, abs=1e-6)


def test_the_state_counts(learned):
    state = learned[0].state
    counts = (state.iteration, state.epoch, state.position, state.seed)
    assert [int(count.numpy()) for count in counts] == [24, 11, 1, 0]
    assert float(state.kl_weight.numpy()) == pytest.approx(0.002)


@pytest.mark.parametrize(
    "function",
    [
        "_decoder.stage",
        "_collect_function",
        "_experience_function",
        "_gradient_function",
    ],
)
def test_a_short_last_batch_compiles_nothing_anew(learned, function):
    function = operator.attrgetter(function)(learned[0])
    assert function.experimental_get_tracing_count() == 1


def test_a_short_batch_is_not_told_by_its_padding(ppo, eagerly):
    start = variables(ppo)
    logs, after = [], []
    for batch_size in (BATCH, 3):
        for variable, value in zip(every_variable(ppo), start, strict=True):
            variable.assign(value)
        logs += fit(ppo, PROMPTS[:3], batch_size, seed=2)
        after.append(variables(ppo))
    assert logs[0] == pytest.approx(logs[1], rel=1e-4, abs=1e-5)
    for padded, plain in zip(*after, strict=True):
        np.testing.assert_allclose(padded, plain, atol=1e-5)


def assert_the_first_minibatch_has_ratio_1(policy, jit):
    ppo = tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile("adam", sampler=SAMPLER, update_epochs=1, jit_compile=jit)
    (logs,) = fit(ppo, PROMPTS, len(PROMPTS))
    # Tokens differ in their log-probability, or 1 would be no news.
    assert np.std(ppo.last_iteration.rollout.log_probs) > 0.5
    assert logs["sampler/log_prob_gap"] < 1e-4
    # Half the mean square of 48 tokens: no ratio is off by 1e-5.
    assert logs["policy/approx_kl"] < 1e-12
    assert logs["policy/clipfrac"] == 0.0
    assert abs(logs["objective/kl"]) < 1e-5
    # Whitened advantages have mean 0.
    assert abs(logs["loss/policy"]) < 1e-5
    again = ppo.response_ratios(ppo.last_iteration.rollout)
    assert float(tf.reduce_max(tf.abs(again - 1.0))) > 1e-4


def test_ratio_1_compiled_by_xla():
    policy = small.llama_policy(sharpness=8.0)
    assert_the_first_minibatch_has_ratio_1(policy, jit=True)


def test_ratio_1_with_dropout(eagerly):
    policy = small.gpt2_policy(dropout=0.5, sharpness=8.0)
    assert_the_first_minibatch_has_ratio_1(policy, jit=False)


def test_the_same_state_and_seed_give_the_same_run(ppo):
    start = variables(ppo)
    runs = []
    for seed in (3, 3, 4):
        for variable, value in zip(every_variable(ppo), start, strict=True):
            variable.assign(value)
        np.random.seed(len(runs))
        logs = fit(ppo, seed=seed)
        runs.append((logs, variables(ppo), ppo.last_iteration.responses))
    (logs, weights, responses), again, other = runs
    assert logs == again[0]
    assert_all_equal(weights, again[1])
    assert responses == again[2]
    assert responses != other[2]


def test_the_kl_weight_follows_the_measured_kl(ppo):
    weight = float(ppo.state.kl_weight.numpy())
    for log in fit(ppo):
        assert log["objective/kl_weight"] == pytest.approx(weight, rel=1e-6)
        weight = ppo.kl.next_weight(weight, log["objective/kl"], BATCH)
    assert float(ppo.state.kl_weight.numpy()) == pytest.approx(weight)
    assert ppo.kl.initial != pytest.approx(weight)


def test_columns_reach_the_reward_in_the_order_of_the_rows(ppo, monkeypatch):
    seen = []

    def reward(prompts, responses, number):
        assert len(prompts) == len(responses) == len(number)
        assert all(isinstance(r, str) for r in responses)
        seen.extend(zip(prompts, number, strict=True))
        return [0.0] * len(prompts)

    monkeypatch.setattr(ppo, "reward", reward)
    records = [
        {"prompt": p, "number": i, "_where": f"x:{i}"}
        for i, p in enumerate(PROMPTS)
    ]
    fit(ppo, records)
    assert sorted(seen) == sorted((r["prompt"], r["number"]) for r in records)
    assert [number for _, number in seen] != list(range(len(PROMPTS)))


def test_a_broken_reward_stops_the_run_and_changes_nothing(ppo, monkeypatch):
    before = variables(ppo)
    monkeypatch.setattr(ppo, "reward", lambda p, r: [float("nan")] * len(p))
    with pytest.raises(RewardError, match="returned nan"):
        fit(ppo)
    ppo.state.position.assign(1)
    assert_all_equal(variables(ppo), before)


def test_validation_data_is_measured_after_every_epoch(ppo):
    history = ppo.fit(
        PROMPTS[:BATCH],
        batch_size=BATCH,
        epochs=2,
        validation_data=PROMPTS[BATCH:],
        verbose=0,
    ).history
    assert len(history["val_objective/scores"]) == 2
    assert len(history["objective/scores"]) == 2


def test_initial_epoch_goes_on_where_epochs_ended(ppo):
    start = variables(ppo)
    fit(ppo, epochs=2)
    whole = variables(ppo)
    for variable, value in zip(every_variable(ppo), start, strict=True):
        variable.assign(value)
    fit(ppo, epochs=1)
    assert len(fit(ppo, epochs=2, initial_epoch=1)) == 2
    assert_all_equal(variables(ppo), whole)


def test_a_callback_stops_the_run(ppo):
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    start = int(ppo.state.iteration.numpy())
    ppo.fit(PROMPTS, batch_size=BATCH, epochs=3, callbacks=[Stop()], verbose=0)
    assert int(ppo.state.iteration.numpy()) == start + 1


def test_a_pass_takes_every_row_once_in_an_order_of_its_own(ppo, monkeypatch):
    rows = tf.range(BATCH)[:, None]
    empty = [tf.zeros([BATCH, 1])] * 5
    experience = Experience(rows, rows + 1, tf.ones_like(rows), *empty)
    batches = []

    def record(iterator):
        batches.append(next(iterator))
        return {}

    monkeypatch.setattr(ppo, "train_function", record)
    monkeypatch.setattr(ppo, "make_train_function", lambda: None)
    monkeypatch.setattr(ppo, "minibatches", 2)
    monkeypatch.setattr(ppo, "update_epochs", 3)
    ppo.update(experience)
    orders = np.array([b.token_ids[:, 0] for b in batches]).reshape(3, BATCH)
    assert [len(b.token_ids) for b in batches] == [2] * 6
    assert (np.sort(orders) == np.arange(BATCH)).all()
    assert len({tuple(order) for order in orders}) > 1
    for batch in batches:
        np.testing.assert_array_equal(batch.padding_mask, batch.token_ids + 1)


def compiled(policy, value, **settings):
    ppo = tfrlhf.PPO(policy, letters, value)
    settings = {
        "optimizer": keras.optimizers.SGD(0.1),
        "sampler": SAMPLER,
        "update_epochs": 1,
        "jit_compile": False,
    } | settings
    ppo.compile(settings.pop("optimizer"), **settings)
    return ppo


def test_the_value_optimizer_trains_the_value_model_alone(eagerly):
    policy = small.gpt2_policy()
    value = tfrlhf.ValueModel.from_policy(policy)
    before = small.weights(policy), small.weights(value)
    ppo = compiled(
        policy,
        value,
        optimizer=keras.optimizers.SGD(0.0),
        value_optimizer=keras.optimizers.SGD(0.1),
    )
    fit(ppo, PROMPTS[:BATCH])
    assert_all_equal(small.weights(policy), before[0])
    head = np.asarray(value.head.kernel)
    assert np.abs(head).max() > 0.0
    ppo.optimizer.learning_rate = 0.1
    ppo.value_optimizer.learning_rate = 0.0
    before = small.weights(policy), small.weights(value)
    fit(ppo, PROMPTS[:BATCH])
    assert_all_equal(small.weights(value), before[1])
    assert any(
        (a != b).any()
        for a, b in zip(small.weights(policy), before[0], strict=True)
    )


def test_a_shared_trunk_is_trained_once_for_both_heads(eagerly):
    policy = small.gpt2_policy(sharpness=4.0)
    value = tfrlhf.ValueModel.from_policy(policy, share_trunk=True)
    ppo = compiled(policy, value)
    names = [id(v) for v in ppo.learner_variables()]
    assert len(set(names)) == len(names) == len(policy.trainable_variables) + 2
    (logs,) = fit(ppo, PROMPTS[:BATCH])
    assert logs["policy/approx_kl"] < 1e-10
    assert logs["loss/value"] > 0.0
    assert np.abs(np.asarray(value.head.kernel)).max() > 0.0
    ids = ppo.last_iteration.rollout.token_ids
    mask = ppo.last_iteration.rollout.padding_mask
    hidden = policy.hidden_states(ids, mask)
    np.testing.assert_allclose(
        value.from_hidden(hidden), value.call(ids, mask), atol=1e-6
    )


@pytest.mark.parametrize("loss", [None, losses.PPOLoss(clip=0.1)])
def test_an_estimator_without_a_value_model(loss, eagerly):
    def rewards_to_go(rewards, values, mask):
        assert values is None
        returns = tfrlhf.ops.discounted_returns(rewards, mask)
        return returns, returns

    ppo = compiled(
        small.gpt2_policy(), None, loss=loss, advantage=rewards_to_go
    )
    (logs,) = fit(ppo, PROMPTS[:BATCH])
    assert not [name for name in logs if "value" in name]
    assert logs["loss/total"] == pytest.approx(logs["loss/policy"])


def test_gae_without_a_value_model(eagerly):
    ppo = compiled(small.gpt2_policy(), None)
    with pytest.raises(ValueError, match="GAE needs a value model"):
        fit(ppo, PROMPTS[:BATCH])


@pytest.fixture(scope="module")
def bare():
    """A PPO that no test compiles to the end."""
    policy = small.gpt2_policy()
    return tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampler": tfrlhf.Sampler()}, r"max_new_tokens=\.\.\."),
        (
            {"sampler": tfrlhf.Sampler(temperature=0, max_new_tokens=4)},
            "`temperature` must be positive",
        ),
        ({"minibatches": 0}, "`minibatches` must be at least 1"),
        ({"update_epochs": 0}, "`update_epochs` must be at least 1"),
        ({"micro_batches": 0}, "`micro_batches` must be at least 1"),
        ({"clip_norm": 0.0}, "`clip_norm` must be positive or None"),
    ],
)
def test_settings_that_cannot_be(bare, settings, message):
    with pytest.raises(ValueError, match=message):
        bare.compile("adam", **{"sampler": SAMPLER} | settings)


@pytest.mark.parametrize("which", ["optimizer", "value_optimizer"])
@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ({"clipnorm": 1.0}, "clip_norm"),
        ({"global_clipnorm": 1.0}, "clip_norm"),
        ({"clipvalue": 1.0}, "clip_norm"),
        ({"use_ema": True}, "no averaging"),
        ({"gradient_accumulation_steps": 2}, "micro_batches"),
    ],
)
def test_optimizer_settings_of_its_own(bare, which, setting, advice):
    adam = keras.optimizers.Adam(**setting)
    with pytest.raises(ValueError) as caught:
        bare.compile(**{"optimizer": "adam", which: adam}, sampler=SAMPLER)
    (name,) = setting
    assert f"`{name}`" in str(caught.value)
    assert advice in str(caught.value)


def test_a_value_optimizer_needs_a_trunk_of_its_own():
    policy = small.gpt2_policy()
    shared = tfrlhf.ValueModel.from_policy(policy, share_trunk=True)
    for value in (None, shared):
        with pytest.raises(ValueError, match="`value_optimizer` needs"):
            compiled(policy, value, value_optimizer="adam")


@pytest.mark.parametrize("cut", [{"top_k": 5}, {"top_p": 0.9}])
def test_cut_distributions_are_warned_of(bare, cut):
    sampler = tfrlhf.Sampler(max_new_tokens=4, **cut)
    with pytest.warns(UserWarning, match="`top_k` or `top_p`") as caught:
        bare.compile("adam", sampler=sampler)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bare.compile("adam", sampler=SAMPLER)


def test_fit_before_compile():
    with pytest.raises(ValueError, match="compile"):
        tfrlhf.PPO(small.gpt2_policy(), letters).fit(PROMPTS)


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([*PROMPTS, ""], "Prompt 8 is empty"),
        ([*PROMPTS, "trees " * 60], "(prompt|record) 8: .* tokens long"),
    ],
)
def test_bad_prompts_are_named_before_anything_is_trained(
    ppo, prompts, message
):
    before = variables(ppo)
    with pytest.raises(ValueError, match=message):
        fit(ppo, prompts)
    assert_all_equal(variables(ppo), before)
