"""What it costs to be able to go on: seconds of a fit that is saved while it trains, beside the same fit unsaved.

    python -m benchmarks.saving                                          # some five minutes on two cores
    python -m benchmarks.saving --examples 5000 --epochs 2 --rounds 1    # a trial

The fit is the article's: 512 ReLU units, 2 latents, a label, batches of 50. Compared are

    unsaved    `cvae.fit` and nothing else
    usual      as the experiments call it: a line of metrics every epoch, a checkpoint every ten seconds
    every      the same with `--save-every 1`: a checkpoint every epoch, of 10 MB

All in one process, after an epoch that compiles. In every round each trains while the others wait, the first of them
another in every round; seconds are of the fit with what it has to wait for at its end, ratios are taken within a round,
and their median is over rounds.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np

import cvae
from benchmarks.epoch import load_average, load_examples
from cvae import checks
from experiments import command

if TYPE_CHECKING:
    from collections.abc import Callable

SAVED = {"unsaved": False, "usual": None, "every": 1}  # the contenders, and their --save-every


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch"""
    epochs: int = 5
    """epochs a fit"""
    rounds: int = 5
    """counted fits of each, after one epoch that is not"""
    out: Path = Path("results/benchmark_saving.json")
    """JSON file to write"""


def contest(settings: Settings, folder: Path) -> tuple[Callable[[str, int], float], str]:
    """A function from a contender and a number of epochs to seconds, and what the data are."""
    import jax

    examples, data = load_examples(settings.examples)
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.jit(model.init)(jax.random.key(0))
    train = examples.x, {"label": examples.label}

    def seconds(name: str, epochs: int) -> float:
        training = cvae.Training(epochs=epochs)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        began = time.perf_counter()
        keeper = None
        if SAVED[name] is not False:
            keeper = cvae.runs.Keeper(folder, "cvae", params, training, {}, save_every=SAVED[name])
        on_epoch = None if keeper is None else keeper.after
        fitted = cvae.fit(model, params, jax.random.key(1), *train, training, on_epoch=on_epoch, progress=False)
        jax.tree.map(np.asarray, fitted.params)  # waits for the device
        if keeper is not None:
            keeper.close()
        return time.perf_counter() - began

    return seconds, data


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    for option in ("examples", "epochs", "rounds"):
        checks.whole_number(f"--{option}", getattr(settings, option))
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    load, provenance = load_average(), cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as folder:
        seconds, data = contest(settings, Path(folder) / "run")
        rows: dict[str, dict[str, Any]] = {name: {"seconds": []} for name in SAVED}
        for name in SAVED:  # compiles, and imports what saves
            seconds(name, 1)
        for number in range(settings.rounds):
            first = number % len(SAVED)
            for name in [*SAVED][first:] + [*SAVED][:first]:
                rows[name]["seconds"].append(seconds(name, settings.epochs))
            line = ", ".join(f"{name} {row['seconds'][-1]:.2f} s" for name, row in rows.items())
            print(f"round {number + 1} of {settings.rounds}: {line}", flush=True)
    print("\n| fit | seconds (min - max) | times unsaved |\n|---|---:|---:|")
    for name, row in rows.items():
        row["median"] = median(row["seconds"])
        pairs = zip(row["seconds"], rows["unsaved"]["seconds"], strict=True)
        row["over_unsaved"] = float(median(ours / theirs for ours, theirs in pairs))
        spread = f"{row['median']:.2f} ({min(row['seconds']):.2f} - {max(row['seconds']):.2f})"
        print(f"| {name} | {spread} | {row['over_unsaved']:.3f} |")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    config = {"data": data, "examples": settings.examples, "epochs": settings.epochs, "rounds": settings.rounds}
    record = {"benchmark": "saving", "config": config, "load_average": load, "results": rows}
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
