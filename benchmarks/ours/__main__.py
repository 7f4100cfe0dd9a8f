"""A worker: `python -m benchmarks.ours`, started by the driver."""

from benchmarks.turns import serve

serve("benchmarks.ours")
