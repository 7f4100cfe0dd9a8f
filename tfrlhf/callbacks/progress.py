"""One line that tells how far a training is."""

from typing import Any

import keras
import rich.console
import rich.progress


class Progress(keras.callbacks.Callback):
    """Shows a bar with the latest metrics; works on a plain log, too.

    Args:
        title: what is being done.
        metrics: names of the logs to show, with the short name to show.
        console: a rich console; None is the standard output.

    Example:
        >>> sft.fit(x, callbacks=[Progress("SFT", {"loss": "loss"})], verbose=0)
    """

    def __init__(
        self,
        title: str,
        metrics: dict[str, str],
        console: rich.console.Console | None = None,
    ) -> None:
        super().__init__()
        self.shown = metrics
        self.progress = rich.progress.Progress(
            rich.progress.TextColumn("  {task.description}"),
            rich.progress.BarColumn(bar_width=24),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TextColumn("{task.fields[latest]}"),
            console=console,
        )
        self.task = self.progress.add_task(title, total=None, latest="")

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Starts the line."""
        epochs, steps = self.params["epochs"], self.params["steps"]
        self.progress.reset(self.task, total=epochs * steps if steps else None)
        self.progress.start()

    def on_train_batch_end(
        self, batch: int, logs: dict[str, Any] | None = None
    ) -> None:
        """Moves the bar and shows the latest metrics."""
        logs = logs or {}
        latest = "  ".join(
            f"{short} {float(logs[name]):.3g}"
            for name, short in self.shown.items()
            if name in logs
        )
        self.progress.update(self.task, advance=1, latest=latest)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves the finished line."""
        self.progress.stop()
