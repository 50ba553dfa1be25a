"""A process for each contender of `benchmarks.epoch`, so that thread pools and imports do not meet.

`python -m benchmarks.workers NAME FOLDER` is the worker, which answers a line of JSON with a line of JSON; `Crew` is
the parent's end of all of them.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks.contenders import EPOCH_OF, Examples, Train, accelerator, epoch_flops, matmul_rate

PEERS = {"pytorch": "torch", "pytorch_fused": "torch", "keras": "keras"}  # and the package each comes from
REMEDY = "not installed: pip install -e '.[bench]'"
ROOT = Path(__file__).resolve().parent.parent


def work(name: str, folder: Path) -> None:
    """Answer the parent, a line of JSON for a line of JSON, until it closes the pipe.

    The first line out names the accelerator. Then `{"batch_size": B}` makes a fresh model and trains its
    uncounted epoch, and a line without it trains one epoch more. The answer is the seconds of the epoch and its
    loss; the floor's, the seconds its products would take and the FLOP/s it measured.
    """
    # What frameworks print belongs to stderr; the line to the parent is ours alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    examples = Examples(np.load(folder / "x.npy"), np.load(folder / "label.npy"))
    answer(accelerator=accelerator(name))
    train: Train | None = None
    for line in sys.stdin:
        question = json.loads(line)
        if name == "floor":
            rate = matmul_rate()
            answer(seconds=epoch_flops(len(examples.x)) / rate, flops=rate)
            continue
        if "batch_size" in question:
            train = EPOCH_OF[name](examples, question["batch_size"])
        assert train is not None
        began = time.perf_counter()
        loss = train()
        answer(seconds=time.perf_counter() - began, loss=loss)


class WorkerDiedError(Exception):
    """A worker ended without an answer; the message is how, and the last lines it wrote to stderr."""


class Worker:
    """The parent's end of a worker."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        # JAX would reserve most of a GPU's memory for the first process that comes.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.workers", name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            cwd=ROOT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
        )

    def ask(self, **question: Any) -> None:
        """Send a question, unless the worker is gone: then `answer` says so."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(question) + "\n")

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer.

        Raises:
            WorkerDiedError: there will be none.
        """
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return dict(json.loads(line))
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()[-8:]
        raise WorkerDiedError("\n    ".join([f"died with exit status {status}", *lines]))

    def kill(self) -> None:
        """End the process now; harmless when it has ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


class Crew:
    """The workers that are alive, and why the others are not."""

    def __init__(self, contenders: tuple[str, ...], folder: Path) -> None:
        self.left_out: dict[str, str] = {}
        self.died = False
        self.workers: dict[str, Worker] = {}
        for name in contenders:
            if name in PEERS and importlib.util.find_spec(PEERS[name]) is None:
                self.left_out[name] = REMEDY
                print(f"{name}: {REMEDY}", file=sys.stderr)
            else:
                self.workers[name] = Worker(name, folder)

    def answer(self, name: str, **question: Any) -> dict[str, Any] | None:
        """Ask a worker, if there is a question, and wait for its answer; None if it died, and then it is gone."""
        worker = self.workers[name]
        try:
            if question:
                worker.ask(**question)
            return worker.answer()
        except WorkerDiedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            self.left_out[name], self.died = str(error).splitlines()[0], True  # the rest names folders
            self.workers.pop(name).kill()
            return None

    def close(self) -> None:
        """End everybody."""
        for worker in self.workers.values():
            worker.kill()


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
