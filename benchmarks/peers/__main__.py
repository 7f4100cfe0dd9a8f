"""A worker: `python -m benchmarks.peers`, started by the driver."""

from benchmarks.turns import serve

serve("benchmarks.peers")
