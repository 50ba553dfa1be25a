"""Locks of folders between processes; the operating system releases them when a process ends, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import filelock

LOCK = ".lock"
HOLDER = ".lock.json"  # says who holds the lock; on Windows the lock itself cannot be read
METRICS = ".metrics.lock"  # held for the moment in which `metrics.jsonl` is written


@contextlib.contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Let no other process write to a run folder, which is made if it does not exist.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        ValueError: another process holds it; names its id and when it started.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(folder / LOCK, timeout=0)
    try:
        held.acquire()
    except filelock.Timeout:
        try:
            holder = "process {pid} since {since}".format(**json.loads((folder / HOLDER).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, KeyError):  # the holder has not written it yet
            holder = "another process"
        raise ValueError(f"run folder must be free, got {folder}, in use by {holder}") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        (folder / HOLDER).write_text(json.dumps({"pid": os.getpid(), "since": since}), encoding="utf-8")
        yield
    finally:
        held.release()


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[bool]:
    """Yield whether no other process holds the lock of a folder, and hold it if so."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock(folder))
        except ValueError:
            yield False
        else:
            yield True


def metrics(folder: Path) -> filelock.BaseFileLock:
    """The lock of the file of metrics of a run folder, for processes that work on the same sweep."""
    return filelock.FileLock(folder / METRICS)
