"""Experiments: thin modules with a command line. The library never imports them."""
