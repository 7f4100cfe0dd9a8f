import keras
import numpy as np
import pytest
import tensorflow as tf

import tfrlhf
from tests import small
from tests.trainers.conftest import letters
from tfrlhf.models import compilation

PROMPTS = ["The weather", "The park.", "let us go", "The trees"]


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def clock(monkeypatch):
    """A clock that only runs when `clock.seconds` are added."""

    class Clock:
        seconds = 0.0

        def perf_counter(self):
            return self.seconds

    clock = Clock()
    monkeypatch.setattr(compilation, "time", clock)
    return clock


def timed_runs(clock, seconds):
    """`compiled` of runs that take so long, but for longer first ones."""
    made = []

    def compiled(xla):
        made.append(xla)
        left = [100.0]

        def run():
            clock.seconds += left.pop() if left else seconds[xla]
            return tf.constant(0.0)

        return run

    return made, compiled


@pytest.mark.parametrize(
    ("seconds", "faster"),
    [({False: 2.0, True: 1.0}, True), ({False: 1.0, True: 2.0}, False)],
)
def test_the_faster_is_chosen_and_remembered(clock, seconds, faster):
    made, compiled = timed_runs(clock, seconds)
    assert compilation.faster_by_xla(compiled, "step") is faster
    assert made == [False, True]
    assert compilation.faster_by_xla(compiled, "step") is faster
    assert made == [False, True]
    # Of anything else nothing is known.
    compilation.faster_by_xla(compiled, "another")
    assert made == [False, True, False, True]


def test_what_was_kept_may_be_broken_or_gone(clock, cache):
    made, compiled = timed_runs(clock, {False: 2.0, True: 1.0})
    for content in ("", "{", "{}", None):
        compilation.faster_by_xla(compiled, "step")
        (file,) = cache.rglob("*.json")
        file.unlink() if content is None else file.write_text(content)
        made.clear()
        assert compilation.faster_by_xla(compiled, "step")
        assert made == [False, True]


def test_nothing_is_kept_where_it_cannot_be(clock, cache, monkeypatch):
    (cache / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache / "file"))
    _, compiled = timed_runs(clock, {False: 2.0, True: 1.0})
    assert compilation.faster_by_xla(compiled, "step")


def test_an_answer_that_cannot_be_written_is_no_error(clock, cache):
    _, compiled = timed_runs(clock, {False: 2.0, True: 1.0})
    assert compilation.faster_by_xla(compiled, "step")
    (file,) = cache.rglob("*.json")
    file.unlink()
    file.mkdir()
    assert compilation.faster_by_xla(compiled, "step")


@pytest.mark.parametrize("changed", ["micro_batches", "dtype"])
def test_what_was_measured_of_another_setting_is_not_taken(
    cache, monkeypatch, changed
):
    monkeypatch.setattr(compilation, "_seconds", lambda run: 1.0)
    for step in (1, 2):
        policy = small.gpt2_policy(sharpness=4.0)
        if changed == "dtype" and step == 2:
            for layer in policy.model._flatten_layers():
                layer.dtype_policy = keras.DTypePolicy("mixed_bfloat16")
        sft = tfrlhf.SFT(policy)
        parts = step if changed == "micro_batches" else 1
        sft.compile("sgd", jit_compile="measure", micro_batches=parts)
        batch = sft.as_carrier([{"prompt": "The", "response": " park."}])
        sft.choose_update_compiler(batch, tf.constant(1.0))
        assert len(list(cache.rglob("*.json"))) == step


def test_what_xla_cannot_compile_it_does_not():
    def of_text(xla):
        function = tf.function(tf.strings.length, jit_compile=xla)
        return lambda: function(tf.constant("text"))

    assert compilation.faster_by_xla(of_text, "text") is False


@pytest.mark.parametrize(
    ("given", "update", "rollout"),
    [
        (True, True, True),
        (False, False, False),
        ("auto", False, True),
        ("measure", False, True),
        ({"update": True}, True, True),
        ({"rollout": False}, False, False),
    ],
)
def test_what_is_compiled_on_processors(given, update, rollout):
    found = compilation.resolve_jit(given)
    assert set(found) == set(compilation.PHASES)
    assert (found["update"], found["rollout"]) == (update, rollout)


@pytest.mark.parametrize("given", ["always", {"learn": True}, None, 1.5])
def test_what_cannot_be_decided_is_refused(given):
    with pytest.raises(ValueError, match="rollout, score, collect, update"):
        compilation.resolve_jit(given)


def make(jit_compile):
    policy = small.gpt2_policy(sharpness=4.0)
    ppo = tfrlhf.PPO(policy, letters, tfrlhf.ValueModel.from_policy(policy))
    ppo.compile(
        keras.optimizers.Adam(1e-3),
        sampler=tfrlhf.Sampler(temperature=0.7, max_new_tokens=6),
        update_epochs=1,
        jit_compile=jit_compile,
    )
    return ppo


def test_every_phase_is_measured_once_and_learns_the_same(monkeypatch):
    asked = []

    def xla_for_some(compiled, what):
        phase = what[0]
        asked.append(phase)
        # The other one last: what stays is what the answer says.
        compiled(phase != "update")()
        return phase == "update"

    module = "tfrlhf.models.compilation.faster_by_xla"
    monkeypatch.setattr(module, xla_for_some)
    measured, plain = make("measure"), make(False)
    logs = [
        ppo.fit(PROMPTS * 2, batch_size=4, verbose=0).history
        for ppo in (measured, plain)
    ]
    assert asked == ["rollout", "collect", "update"]
    assert measured.compilers["update"]
    assert not measured.compilers["rollout"]
    assert measured._gradient_function._jit_compile
    assert not measured._decoder.stage._jit_compile
    assert set(logs[0]) == set(logs[1])
    for name, values in logs[0].items():
        np.testing.assert_allclose(
            values, logs[1][name], rtol=1e-4, atol=1e-5, err_msg=name
        )


@pytest.mark.parametrize("kind", ["SFT", "DPO"])
def test_a_step_is_measured_before_it_is_made(kind, cache, monkeypatch):
    monkeypatch.setattr(compilation, "_seconds", lambda run: run() and 1.0)
    policy = small.gpt2_policy(sharpness=4.0)
    trainer = getattr(tfrlhf, kind)(policy)
    trainer.compile("sgd", jit_compile="measure")
    start = [v.numpy().copy() for v in policy.trainable_variables]
    records = [
        {"prompt": "The", "response": " park."},
        {"prompt": "let", "response": " us"},
    ]
    if kind == "DPO":
        records = [
            {
                "prompt": r["prompt"],
                "chosen": r["response"],
                "rejected": " trees",
            }
            for r in records
        ]

    class Looks(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            # Measuring moved nothing.
            for at_first, now in zip(
                start, policy.trainable_variables, strict=True
            ):
                np.testing.assert_array_equal(at_first, now)

    trainer.fit(records, batch_size=2, callbacks=[Looks()], verbose=0)
    assert len(list(cache.rglob("*.json"))) == 1
    assert not trainer.compilers["update"]
