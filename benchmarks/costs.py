"""What an update of PPO spends its time on, by TensorFlow's profiler.

python -m benchmarks.costs            # the update of large, and the picture
python -m benchmarks.costs small

The trace lies in build/bench/profile, for `tensorboard --logdir` with the
profile plugin. Operations run beside each other: shares are of the time in
operations, not of the time that passes.
"""

import argparse
import collections
import shutil
from typing import Any

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from benchmarks import shapes
from benchmarks.driver import OUTPUT
from benchmarks.driver import ROOT
from benchmarks.ours import models
from benchmarks.ours.ppo import make

# Operations by their kinds; what is in none of them is "other".
KINDS = {
    "products of layers and head": ("MatMul", "FusedMatMul"),
    "products of attention": ("BatchMatMul",),
    "GELU, normalisation (XLA)": ("CpuExecutable::ExecuteAsyncOnStream",),
    "turning axes": ("Transpose",),
    "Adam, norm of gradients": ("ResourceApplyAdam", "L2Loss"),
    "sums, biases": ("BiasAddGrad", "Sum"),
    "softmax, entropy, masks": ("Softmax", "Max", "Mul", "Select"),
}
# An iteration after everything was compiled.
ITERATION = 3
LOGDIR = OUTPUT / "profile"


class Profiled(keras.callbacks.Callback):
    """Ends training after the iteration whose update was recorded."""

    def set_model(self, model: Any) -> None:
        """Puts the profiler around the update of that iteration."""
        super().set_model(model)
        self.updates = 0
        plain = model.update

        def update(*args: Any, **kwargs: Any) -> Any:
            self.updates += 1
            if self.updates < ITERATION:
                return plain(*args, **kwargs)
            tf.profiler.experimental.start(str(LOGDIR))
            found = plain(*args, **kwargs)
            for tensor in found.values():
                tensor.numpy()
            tf.profiler.experimental.stop()
            model.stop_training = True
            return found

        model.update = update


def main() -> None:
    """Prints the shares and draws them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shape", nargs="?", default="large")
    name = parser.parse_args().shape
    size = shapes.find(name, None)
    shutil.rmtree(LOGDIR, ignore_errors=True)
    make(size, "float32").fit(
        models.texts(size, 8 * size.batch, size.prompt),
        batch_size=size.batch,
        epochs=10**6,
        callbacks=[Profiled()],
        verbose=0,
    )
    shares = kinds(operations())
    for kind, part in shares.items():
        print(f"{part:4.0%}  {kind}")
    draw(name, shares)


def operations() -> collections.Counter[str]:
    """Reads the seconds that each type of operation took."""
    (path,) = LOGDIR.rglob("*.xplane.pb")
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    found: collections.Counter[str] = collections.Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # "name:type"; what is called ("name: function") holds others.
                kind = name if "::" in name else name.rpartition(":")[2]
                is_other = kind == name or kind.startswith(" ")
                if not is_other or name in KINDS["GELU, normalisation (XLA)"]:
                    found[kind] += event.duration_ps / 1e12
    return found


def kinds(seconds: collections.Counter[str]) -> dict[str, float]:
    """Returns the share of each of `KINDS` and "other", the largest first."""
    found: collections.Counter[str] = collections.Counter()
    for operation, taken in seconds.items():
        plain = operation.removeprefix("_Mkl").removeprefix("Native")
        for kind, names in KINDS.items():
            if plain.startswith(names):
                found[kind] += taken
                break
        else:
            found["other"] += taken
    total = found.total()
    return {kind: taken / total for kind, taken in found.most_common()}


def draw(name: str, shares: dict[str, float]) -> None:
    """Draws the shares into docs/performance_costs.png."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axis = pyplot.subplots(figsize=(8, 3.2))
    bars = axis.barh(list(shares), [100 * part for part in shares.values()])
    axis.bar_label(bars, fmt="%.0f %%", padding=3)
    axis.invert_yaxis()
    axis.set(xlabel=f"% of the time in operations, update of {name}")
    axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(ROOT / "docs" / "performance_costs.png", dpi=110)


if __name__ == "__main__":
    main()
