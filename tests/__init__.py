"""Tests: one file a room, plus oracles that know the exact answer."""
