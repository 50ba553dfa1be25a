"""Tests: one file per module, and oracles that know the exact answer."""
