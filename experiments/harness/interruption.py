"""SIGTERM and Ctrl-C while a model is trained: the progress is saved first; a second Ctrl-C stops at once."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(Exception):  # noqa: N818
    """A fit was stopped by a signal, and its progress is saved."""

    def __init__(self, number: int, message: str):
        super().__init__(message)
        self.signal = number


@contextmanager
def deferred() -> Iterator[Callable[[], int | None]]:
    """Note a signal instead of stopping; yields a function that returns its number, or None if none has come.

    An epoch may be one call of compiled code, during which Python runs no signal handler. The number is therefore read
    from a socket by a thread, which can respond at once.

    Raises:
        Stopped: at the end, for a signal that came too late for the body to respond to.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one can handle signals
        yield lambda: None
        return
    import socket

    received: list[int] = []
    reader, writer = socket.socketpair()  # which every system's signal module can write to
    writer.setblocking(False)

    def listen() -> None:
        while number := reader.recv(1):
            if number[0] == signal.SIGINT and received:
                print("\nstopped", file=sys.stderr, flush=True)
                os._exit(128 + signal.SIGINT)
            if number[0] in SIGNALS:
                received.append(number[0])
                print("\nstopping, once the progress is saved; Ctrl-C stops at once", file=sys.stderr, flush=True)

    handlers = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
        yield lambda: received[0] if received else None
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        writer.close()  # ends the thread
        thread.join()
        reader.close()
    if received:
        raise Stopped(received[0], "stopped after the last epoch, which is saved")
