"""Each part of a combined reward is a metric of PPO."""

import numpy as np
import pytest

import tfrlhf
from tests import small
from tests.callbacks.test_tensorboard import read
from tests.trainers.conftest import BATCH
from tests.trainers.conftest import PROMPTS
from tests.trainers.conftest import letters
from tfrlhf import rewards


def test_an_iteration_logs_every_part(ppo, monkeypatch, tmp_path):
    seen = []

    def numbers(prompts, responses, number):
        seen.append((prompts, responses, number))
        return number

    model = small.reward_model(sharpness=4.0)
    reward = rewards.combine(
        {
            "letters": (letters, 2.0),
            "numbers": (numbers, -0.5),
            "model": (model, 1.0),
        }
    )
    monkeypatch.setattr(ppo, "reward", reward)
    records = [{"prompt": p, "number": i} for i, p in enumerate(PROMPTS)]
    history = ppo.fit(
        records[:BATCH],
        batch_size=BATCH,
        callbacks=[tfrlhf.callbacks.TensorBoard(tmp_path)],
        validation_data=records[BATCH:],
        verbose=0,
    )
    logs = {name: values[-1] for name, values in history.history.items()}
    # The last call is the evaluation's.
    for prefix, (prompts, responses, number) in (
        ("val_", seen[-1]),
        ("", seen[0]),
    ):
        assert all(responses)
        expected = {
            "rewards/letters": np.mean(letters(prompts, responses)),
            "rewards/numbers": np.mean(number),
            "rewards/model": np.mean(model.score(prompts, responses)),
        }
        for name, value in expected.items():
            assert logs[prefix + name] == pytest.approx(value, rel=1e-5)
        assert logs[f"{prefix}objective/scores"] == pytest.approx(
            2.0 * expected["rewards/letters"]
            - 0.5 * expected["rewards/numbers"]
            + expected["rewards/model"],
            rel=1e-5,
        )
    assert seen[-1][2] != seen[0][2]
    shown = read(tmp_path)
    for name, value in expected.items():
        assert list(shown[name].values()) == [pytest.approx(value, rel=1e-5)]


def test_a_plain_reward_has_no_parts(ppo):
    logs = ppo.fit(PROMPTS[:BATCH], batch_size=BATCH, verbose=0).history
    assert not any(name.startswith("rewards/") for name in logs)
