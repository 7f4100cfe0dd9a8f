import io

import keras
import pytest
import rich.console

from tfrlhf.callbacks import Progress


class Line(keras.Model):
    """Too small to wait for."""

    def __init__(self):
        super().__init__()
        self.slope = self.add_weight(shape=())

    def call(self, x):
        return x * self.slope


@pytest.fixture(scope="module")
def model():
    line = Line()
    line.compile("sgd", "mse", run_eagerly=True)
    return line


def shown(model, width=100, **metrics):
    """What a fit of 2 epochs of 3 steps writes to a file."""
    console = rich.console.Console(file=io.StringIO(), width=width)
    progress = Progress("the title", metrics, console)
    x = keras.ops.ones([6, 1])
    model.fit(x, x, 2, 2, callbacks=[progress], verbose=0)
    return console.file.getvalue()


def test_a_plain_log_has_one_finished_line(model):
    (line,) = shown(model, loss="nats").splitlines()
    assert line.split()[:2] == ["the", "title"]
    assert "6/6" in line
    assert line.split()[-2] == "nats"
    float(line.split()[-1])
    assert "\x1b" not in line


def test_metrics_that_are_not_logged_are_left_out(model):
    assert "accuracy" not in shown(model, accuracy="accuracy")


def test_a_second_fit_counts_from_the_start(model):
    console = rich.console.Console(file=io.StringIO(), width=100)
    progress = Progress("again", {}, console)
    x = keras.ops.ones([6, 1])
    for _ in range(2):
        model.fit(x, x, 2, callbacks=[progress], verbose=0)
    assert "3/3" in console.file.getvalue().splitlines()[-1]
