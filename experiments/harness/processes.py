"""Several processes that run one command, each with devices of its own: the first prints, writes and draws.

The others compute the same in step, silently, in a folder of their own that is thrown away. They need to read the data,
but no run folder: what the first one restores is sent to them.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from cvae import checks

T = TypeVar("T")
_errors: dict[str, Any] = {}  # the stream of a process that is silent otherwise, and what says that it has ended
HEARTBEAT = 30  # seconds without a sign of life after which a process counts as dead
ENDED = "error: a process of this run has ended; the same command in all of them goes on from the last checkpoint"
_WATCH = f"import sys; sys.stdin.read() or print({ENDED!r}, file=sys.stderr)"


def join(settings: Any) -> None:
    """Connect to the other processes, if the settings say so; all but the first fall silent.

    Raises:
        ValueError: options contradict each other, or the coordinator does not answer in time.
    """
    given = {name: getattr(settings, name) for name in ("coordinator", "num_processes", "process_id")}
    if not settings.distributed:
        for name, value in given.items():
            checks.require(value is None, name, "be left out without --distributed", value)
        return
    known = [name for name, value in given.items() if value is not None]
    checks.require(len(known) in (0, 3), "coordinator", "come with --num-processes and --process-id", known)
    if known:
        count, number = settings.num_processes, settings.process_id
        checks.require(number < count, "process_id", f"be below --num-processes, {count}", number)
    # Where a process does not connect in time, JAX would abort this one with a stack of C++ calls.
    timer = threading.Timer(settings.coordinator_timeout, _give_up, (settings,))
    timer.start()
    try:
        jax.distributed.initialize(
            settings.coordinator, settings.num_processes, settings.process_id,
            initialization_timeout=settings.coordinator_timeout + 60, heartbeat_timeout_seconds=HEARTBEAT,
        )  # fmt: skip
    except (RuntimeError, ValueError):
        rule = "be used under SLURM, Open MPI or Kubernetes, or with --coordinator"
        checks.require(False, "--distributed", rule, "no cluster" if not known else settings.coordinator)
    finally:
        timer.cancel()
    _watch()
    if not is_first():
        _fall_silent()


def _watch() -> None:
    """Have another program say why this one has ended, if it cannot: JAX aborts it where the first process is gone."""
    watcher = subprocess.Popen(
        [sys.executable, "-SE", "-c", _WATCH], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, start_new_session=True
    )
    _errors["watcher"] = watcher.stdin
    atexit.register(_dismiss)


def _dismiss() -> None:
    """This process ends by itself, and says what is to be said."""
    watcher = _errors.pop("watcher", None)
    if watcher is not None:
        watcher.write(b"well")
        watcher.close()


def _give_up(settings: Any) -> None:
    rule = f"be reached by all processes within --coordinator-timeout, {settings.coordinator_timeout} s"
    print(
        f"error: --coordinator must {rule}, got {settings.coordinator or 'some missing'}", file=sys.stderr, flush=True
    )
    os._exit(2)


def is_first() -> bool:
    """Whether this is the process that prints, writes and draws."""
    return jax.process_index() == 0


def _fall_silent() -> None:
    """Write nowhere, but for the traceback of a bug, and that a process of this run has ended."""
    errors = _errors.setdefault("stream", os.fdopen(os.dup(2), "w"))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for number in (1, 2):
        os.dup2(nowhere, number)

    def show(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        import traceback

        traceback.print_exception(kind, error, trace, file=errors)

    sys.excepthook = show


@contextmanager
def own_folder(out: Path) -> Iterator[Path]:
    """The run folder for the first process, one that is thrown away for the others."""
    if is_first():
        yield out
        return
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / out.name


def require_same(what: str, *parts: Any) -> None:
    """Refuse to go on if these values, as JSON, differ between the processes."""
    if jax.process_count() == 1:
        return
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).digest()
    found = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [number for number, each in enumerate(found) if (each != found[0]).any()]
    checks.require(not others, what, "be the same in every process", f"other ones in {others}")


def any_of(signal: int | None) -> int | None:
    """The signal that any of the processes has received."""
    if jax.process_count() == 1:
        return signal
    return int(multihost_utils.process_allgather(np.int32(signal or 0)).max()) or None


def from_first(value: T) -> T:
    """A value of plain data as the first process has it."""
    if jax.process_count() == 1:
        return value
    text = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    sent = multihost_utils.broadcast_one_to_all(np.resize(text, size))
    return json.loads(bytes(np.asarray(sent, np.uint8)))  # type: ignore[no-any-return]


def arrays_from_first(tree: Any, like: Any) -> Any:
    """A tree of arrays as the first process has it; in the others it may be None."""
    if jax.process_count() == 1:
        return tree
    if tree is None:
        tree = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), like)
    return multihost_utils.broadcast_one_to_all(jax.tree.map(np.asarray, tree))


def stop_alone() -> None:
    """End because another process has: with one sentence, and without waiting for it."""
    print(ENDED, file=_errors.get("stream", sys.stderr), flush=True)
    leave(1)


def leave(code: int) -> None:
    """End at once if there are other processes, for which the usual way out would wait."""
    if jax.distributed.is_initialized() and jax.process_count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        _dismiss()
        os._exit(code)
