"""TensorBoard: scalars, samples, histograms and the settings of a run."""

import json
import pathlib
from typing import Any

import keras
import tensorflow as tf

from tfrlhf.trainers import PPO

ROWS = 8


class TensorBoard(keras.callbacks.Callback):
    """Writes the metrics of every step, readable while the run goes on.

    For `PPO` also a table of prompts, responses and scores and histograms of
    scores and ratios. Tags are the names of docs/metrics.md; a step is an
    optimizer step of `SFT` or `RewardModel`, an iteration of `PPO`.

    Args:
        log_dir: where to; give each training a directory of its own.
        every: iterations between two tables and histograms.
        config: settings to show as text.

    Example:
        >>> ppo.fit(prompts, callbacks=[TensorBoard("logs/ppo")])
    """

    def __init__(
        self,
        log_dir: str | pathlib.Path,
        every: int = 5,
        config: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.log_dir = str(log_dir)
        self.every = every
        self.config = config
        self.step = 0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the log and writes the settings."""
        self.writer = tf.summary.create_file_writer(self.log_dir)
        if isinstance(self.model, PPO):
            self.step = int(self.model.state.iteration.numpy())
        if self.config is not None:
            text = json.dumps(self.config, indent=2, ensure_ascii=False)
            with self.writer.as_default(step=self.step):
                tf.summary.text("config", f"```\n{text}\n```")
            self.writer.flush()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Writes the metrics of a step."""
        with self.writer.as_default(step=self.step):
            for name, value in (logs or {}).items():
                tf.summary.scalar(name, float(value))
            if isinstance(self.model, PPO) and self.step % self.every == 0:
                self._write_samples(self.model)
        self.writer.flush()
        self.step += 1

    def on_epoch_end(
        self, epoch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Writes what was measured on validation data."""
        with self.writer.as_default(step=self.step):
            for name, value in (logs or {}).items():
                if name.startswith("val_"):
                    tf.summary.scalar(name, float(value))
        self.writer.flush()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Closes the log."""
        self.writer.close()

    @staticmethod
    def _write_samples(ppo: PPO) -> None:
        last = ppo.last_iteration
        if last is None:
            return
        scores = last.rollout.scores
        tf.summary.histogram("histograms/scores", scores)
        tf.summary.histogram(
            "histograms/ratio", ppo.response_ratios(last.rollout)
        )
        rows = zip(
            last.prompts[:ROWS],
            last.responses[:ROWS],
            scores.numpy()[:ROWS],
            strict=True,
        )
        lines = ["| prompt | response | score |", "|---|---|---|"]
        lines += [f"| {_cell(p)} | {_cell(r)} | {s:.3f} |" for p, r, s in rows]
        tf.summary.text("samples", "\n".join(lines))


def _cell(text: str) -> str:
    escaped = text.replace("&", "&amp;").replace("<", "&lt;")
    return escaped.replace("|", "\\|").replace("\n", "<br>")
