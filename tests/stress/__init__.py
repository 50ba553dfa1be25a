"""Stress tests: commands that take minutes to hours, are no part of `pytest`, and write `results/stress_NAME.json`."""
