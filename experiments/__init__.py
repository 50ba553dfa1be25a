"""Experiments: commands that train, measure and draw. `python -m experiments` lists them.

Importing JAX and matplotlib takes seconds, so a command says at once that it is starting, and Ctrl-C during that time
ends it without a traceback.
"""

import os
import signal
import sys

if sys.argv[:1] == ["-m"]:  # as `python -m experiments.NAME` imports this package, before the command itself
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    if sys.stderr.isatty():
        print("loading JAX ...", end="\r", file=sys.stderr, flush=True)
