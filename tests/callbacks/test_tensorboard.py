import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing import event_accumulator

import tfrlhf
from tests import small

EXAMPLES = [{"prompt": "The park", "response": " is large."}] * 4
PROMPTS = ["The park", "公园\n", "The | trees", "a<b & c"]


def read(directory):
    """What TensorBoard shows of a directory: tag to step to value."""
    events = event_accumulator.EventAccumulator(
        str(directory), size_guidance={"tensors": 0}
    )
    events.Reload()
    return {
        tag: {
            event.step: tf.make_ndarray(event.tensor_proto)
            for event in events.Tensors(tag)
        }
        for tag in events.Tags()["tensors"]
    }


class WhileItRuns(keras.callbacks.Callback):
    """Reads the log after every step."""

    def __init__(self, directory):
        super().__init__()
        self.directory = directory
        self.logs, self.seen = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.logs.append(dict(logs))
        self.seen.append(read(self.directory))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three iterations of PPO, a table and histograms every second one."""
    directory = tmp_path_factory.mktemp("ppo")

    def length_of_the_prompt(prompts, responses):
        return [float(len(prompt)) for prompt in prompts]

    def rewards_themselves(rewards, values, mask):
        return rewards, rewards

    ppo = tfrlhf.PPO(small.gpt2_policy(), length_of_the_prompt)
    ppo.compile(
        keras.optimizers.Adam(1e-2),
        sampler=tfrlhf.Sampler(max_new_tokens=6),
        advantage=rewards_themselves,
        jit_compile=False,
    )
    watch = WhileItRuns(directory)
    ppo.fit(
        PROMPTS,
        batch_size=4,
        epochs=3,
        callbacks=[tfrlhf.callbacks.TensorBoard(directory, every=2), watch],
        verbose=0,
    )
    return ppo, watch, read(directory)


def test_scalars_have_the_names_and_values_of_the_logs(run):
    _, watch, shown = run
    scalars = set(watch.logs[0])
    assert {"objective/scores", "objective/kl", "loss/policy"} <= scalars
    assert set(shown) == scalars | {
        "samples",
        "histograms/scores",
        "histograms/ratio",
    }
    for step, logs in enumerate(watch.logs):
        for name, value in logs.items():
            assert shown[name][step] == pytest.approx(value, abs=1e-6), name


def test_the_log_can_be_read_while_it_grows(run):
    for step, seen in enumerate(run[1].seen):
        assert list(seen["objective/scores"]) == list(range(step + 1))
        assert 0 in seen["samples"]


def test_tables_and_histograms_come_every_second_step(run):
    shown = run[2]
    for tag in ("samples", "histograms/scores", "histograms/ratio"):
        assert list(shown[tag]) == [0, 2]


def test_the_table_shows_prompts_responses_and_scores(run):
    ppo, _, shown = run
    head, line, *rows = shown["samples"][2].item().decode().split("\n")
    assert head == "| prompt | response | score |"
    assert line == "|---|---|---|"
    assert len(rows) == len(PROMPTS)
    prompts = {row.split(" | ")[0]: row for row in rows}
    assert set(prompts) == {
        "| The park",
        "| 公园<br>",
        "| The \\| trees",
        "| a&lt;b &amp; c",
    }
    assert prompts["| The park"].endswith("| 8.000 |")
    assert ppo.last_iteration.prompts != PROMPTS


def test_the_histograms_hold_every_score_and_token(run):
    ppo, _, shown = run
    rollout = ppo.last_iteration.rollout
    # Buckets of [left, right, count].
    scores, ratios = (
        shown[f"histograms/{name}"][2] for name in ("scores", "ratio")
    )
    assert scores[:, 2].sum() == len(PROMPTS)
    assert (scores[0, 0], scores[-1, 1]) == (3.0, 11.0)
    assert ratios[:, 2].sum() == np.sum(rollout.response_mask)
    assert ratios[0, 0] < 1.0 < ratios[-1, 1]


def test_a_second_fit_goes_on_in_the_log(run, tmp_path):
    ppo = run[0]
    iteration = int(ppo.state.iteration.numpy())
    board = tfrlhf.callbacks.TensorBoard(tmp_path)
    ppo.fit(PROMPTS, batch_size=4, callbacks=[board], verbose=0)
    assert list(read(tmp_path)["objective/kl"]) == [iteration]


def test_supervised_training(tmp_path):
    sft = tfrlhf.SFT(small.gpt2_policy())
    sft.compile("adam", jit_compile=False)
    watch = WhileItRuns(tmp_path)
    config = {"name": "试", "seed": 3}
    sft.fit(
        EXAMPLES,
        batch_size=2,
        epochs=2,
        validation_data=EXAMPLES,
        callbacks=[
            tfrlhf.callbacks.TensorBoard(tmp_path, config=config),
            watch,
        ],
        verbose=0,
    )
    shown = read(tmp_path)
    assert set(shown) == {
        "config",
        "loss",
        "accuracy",
        "gradient_norm",
        "val_loss",
        "val_accuracy",
    }
    for step, logs in enumerate(watch.logs):
        assert shown["loss"][step] == pytest.approx(logs["loss"])
        assert list(watch.seen[step]["loss"]) == list(range(step + 1))
    assert list(shown["val_loss"]) == [2, 4]
    text = shown["config"][0].item().decode()
    assert json.loads(text.strip("`\n")) == config
