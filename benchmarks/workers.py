"""Worker processes, one per contender, so that thread pools and imports do not interfere.

`python -m benchmarks.workers NAME FOLDER` is a worker: it answers each line of JSON by a line of JSON. `Worker` and
`Crew` are the parent's side. The protocol is stable, so `benchmarks.against` can start the worker of another checkout.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from benchmarks import floor
from benchmarks.contenders import EPOCH_OF, SIZES, Train, accelerator
from benchmarks.rounds import Examples
from experiments.harness.compilation import use_eigen_convolutions

ROOT = Path(__file__).resolve().parent.parent
Command = tuple[list[str], Path]  # command line without the folder of the examples, and working directory


def work(name: str, folder: Path) -> None:
    """Answer the parent until it closes the pipe.

    The first line names the accelerator. Then `{"batch_size": B}` makes a new model and trains its first epoch, and a
    line without it trains one more epoch; `"size"` names the model, else the article's, and `"examples"` is how many
    of them an epoch has, else all. The answer is the seconds of the epoch and its loss; see `floor.measurement` for
    the floor's.
    """
    # What frameworks print goes to stderr; stdout is for answers alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**fields: Any) -> None:
        answers.write(json.dumps(fields) + "\n")

    if name in ("cvae", "floor"):
        use_eigen_convolutions()  # as commands do
    examples = Examples(np.load(folder / "x.npy"), np.load(folder / "label.npy"))
    answer(accelerator=accelerator(name))
    train: Train | None = None
    for line in sys.stdin:
        question = json.loads(line)
        if "batch_size" in question:
            size, batch_size = SIZES[question.get("size", "article")], question["batch_size"]
            count = question.get("examples", len(examples.x))
            if name == "floor":
                measure = floor.measurement(size.architecture, batch_size, count // batch_size)
            else:
                train = EPOCH_OF[name](size, Examples(*(array[:count] for array in examples)), batch_size)
        if name == "floor":
            answer(**measure())
            continue
        assert train is not None
        began = time.perf_counter()
        loss = train()
        answer(seconds=time.perf_counter() - began, loss=loss)


class WorkerDiedError(Exception):
    """A worker ended without an answer; the message holds its exit status and its last lines on stderr."""


class Worker:
    """The parent's side of a worker."""

    def __init__(self, command: list[str], cwd: Path) -> None:
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        # JAX would reserve most of a GPU's memory for the first process.
        environment = os.environ | {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            bufsize=1,
            cwd=cwd,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then ends its workers
        )

    def answer(self, **question: Any) -> dict[str, Any]:
        """Put a question, if there is one, and wait for the answer.

        Raises:
            WorkerDiedError: the worker ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        if question:
            with contextlib.suppress(BrokenPipeError):  # the worker has ended, as the answer will show
                self.process.stdin.write(json.dumps(question) + "\n")
        line = self.process.stdout.readline()
        if line.endswith("\n"):
            return dict(json.loads(line))
        status = self.process.wait()
        self.log.seek(0)
        lines = self.log.read().decode(errors="replace").strip().splitlines()[-8:]
        raise WorkerDiedError("\n    ".join([f"died with exit status {status}", *lines]))

    def kill(self) -> None:
        """End the process, if it has not ended."""
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.log):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()  # type: ignore[union-attr]


class Crew:
    """The workers that are alive, and why others are not: `with Crew(commands, examples) as crew`.

    Args:
        commands: command line and working directory of each worker, by name; the folder of the examples is appended.
        examples: what they train on.
    """

    def __init__(self, commands: Mapping[str, Command], examples: Examples) -> None:
        self.left_out: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory()
        for name, array in examples._asdict().items():
            np.save(Path(self._folder.name) / f"{name}.npy", array)
        self.workers = {name: Worker([*line, self._folder.name], cwd) for name, (line, cwd) in commands.items()}
        ready = [self.answer(name) for name in list(self.workers)]
        self.has_gpu = any(answer and answer["accelerator"] for answer in ready)

    def answer(self, name: str, **question: Any) -> dict[str, Any] | None:
        """Put a question to a worker, if there is one, and wait for the answer; None if it died."""
        try:
            return self.workers[name].answer(**question)
        except WorkerDiedError as error:
            print(f"{name}: {error}", file=sys.stderr)
            self.left_out[name] = str(error).splitlines()[0]  # the rest names folders
            self.workers.pop(name).kill()
            return None

    def __enter__(self) -> Crew:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers.values():
            worker.kill()
        self._folder.cleanup()


def command_of(name: str) -> Command:
    """Command line and working directory of a contender's worker."""
    return [sys.executable, "-m", "benchmarks.workers", name], ROOT


if __name__ == "__main__":
    work(sys.argv[1], Path(sys.argv[2]))
