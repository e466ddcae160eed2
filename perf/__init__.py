"""Benchmarks of the hot paths: ratios to a peer or to a physical limit, measured in one run."""
