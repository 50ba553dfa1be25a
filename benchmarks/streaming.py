"""An epoch of examples on disk against one of the same examples in memory.

    python -m benchmarks.streaming                              # about two minutes on two cores
    python -m benchmarks.streaming --examples 5000 --rounds 2   # a short trial

The model is the article's: 512 ReLU units, 2 latents, a label; batches of 512. The arrays on disk are two `.npy` files,
which the system may hold in its own cache: what is measured is the cost of reading ahead beside the training, not the
speed of a disk. Both fits are of one process, and end at the same loss.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

import cvae
from benchmarks import rounds
from cvae import checks
from cvae.loop import Progress
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 55_000
    """training examples per epoch"""
    batch_size: Count = 512
    """examples per step"""
    rounds: Count = 5
    """counted epochs of each, after one that is not"""
    out: Path = Path("results/benchmark_streaming.json")
    """JSON file to write"""


def epochs(x: Any, label: Any, batch_size: int, count: int) -> Iterator[Progress]:
    """The fit of the article's model, epoch by epoch."""
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.jit(model.init)(jax.random.key(0))
    training = cvae.Training(epochs=count, batch_size=batch_size)
    return cvae.epochs(model, params, jax.random.key(1), x, {"label": label}, training)


def timed(fit: Iterator[Progress]) -> rounds.Row:
    """The seconds of the next epoch, and its loss."""
    began = time.perf_counter()
    loss = next(fit).history[-1].train.loss
    return {"seconds": time.perf_counter() - began, "loss": loss}


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "streaming") as record, tempfile.TemporaryDirectory() as folder:
        examples, data = rounds.load_examples(settings.examples)
        for name, values in examples._asdict().items():
            np.save(Path(folder) / f"{name}.npy", values)
        on_disk, count = cvae.data.stream(folder), settings.rounds + 1
        fits = {
            "memory": epochs(examples.x, examples.label, settings.batch_size, count),
            "disk": epochs(on_disk["x"], on_disk["label"], settings.batch_size, count),
        }
        contenders = {name: partial(timed, fit) for name, fit in fits.items()}
        for contender in contenders.values():
            contender()
        rows = rounds.interleave(contenders, settings.rounds, "streaming")
        losses = {name: each[-1]["loss"] for name, each in rows.items()}
        checks.require(losses["disk"] == losses["memory"], "losses", "be the same", losses)
        seconds = {name: rounds.seconds_of(each) for name, each in rows.items()}
        ratio = rounds.ratio(seconds["disk"], seconds["memory"])
        body = [[name, rounds.spread(each)] for name, each in seconds.items()]
        print(render(["seconds per epoch", "median (min - max)"], body), f"\ndisk over memory: {ratio:.3f}")
        config = {"data": data, "examples": settings.examples, "batch_size": settings.batch_size}
        record["config"] = config | {"rounds": settings.rounds}
        record["results"] = {name: {"seconds": each} for name, each in seconds.items()} | {"ratio": ratio}


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
