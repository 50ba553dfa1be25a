"""Benchmarks of speed; each compares in interleaved rounds and writes `results/benchmark_NAME.json`."""
