"""Experiments: thin modules with a command line. Nothing imports them but the tests."""
