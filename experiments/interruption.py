"""SIGTERM and Ctrl-C while a model is trained: the epoch is finished and saved first; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cvae

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Note what asks to stop instead of stopping; yields a function that says which signal came, None if none has.

    An epoch is one call of compiled code, during which Python hears no signal. Its number is therefore read from a pipe
    by a thread, which can answer at once.

    Raises:
        Stopped: at the end, of a signal that came too late for the body to ask.
    """
    if threading.current_thread() is not threading.main_thread():  # only that may listen, and only it is interrupted
        yield lambda: None
        return
    received: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def listen() -> None:
        while number := os.read(reader, 1):
            if number[0] == signal.SIGINT and received:
                print("\nstopped", file=sys.stderr, flush=True)
                os._exit(128 + signal.SIGINT)
            if number[0] in SIGNALS:
                received.append(number[0])
                print("\nstopping after this epoch; Ctrl-C stops at once", file=sys.stderr, flush=True)

    before = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    pipe_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield lambda: received[0] if received else None
    finally:
        signal.set_wakeup_fd(pipe_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)  # ends the thread
        thread.join()
        os.close(reader)
    if received:
        raise cvae.runs.Stopped(received[0], "stopped after the last epoch, which is saved")
