"""Benchmarks: ratios to peers and to limits, measured in turns in one run."""
