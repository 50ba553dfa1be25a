"""What a checkpoint after every epoch costs: epochs that are saved, between epochs that are not, in the same fit.

    python -m benchmarks.saving                              # about four minutes on two cores
    python -m benchmarks.saving --examples 5000 --rounds 2   # a short trial

The fit is the article's: 512 ReLU units, 2 latents, a label, batches of 50; a checkpoint has 10 MB. Every second epoch
is saved. Its time is from the end of its training to the end of the next epoch, with what is written in the background
on disk by then: slightly more than a run pays, which does not wait for that. Each is compared with the mean of the two
unsaved epochs around it, in wall-clock and in processor time. The ratio is the median over rounds, with its quartiles
and the standard error of the mean.

As the noise of that is larger than the cost, a save is also measured alone, after the fit: the seconds for which
training would wait, and the processor time until all is on disk, as shares of an unsaved epoch.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import mean, median, stdev
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

import cvae
from benchmarks import rounds
from cvae.checkpoints import Checkpointer
from cvae.loop import Progress
from cvae.runs import history_to_json
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

ALONE = 20  # saves
CLOCKS = ("wall", "processors")


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 55_000
    """training examples per epoch"""
    rounds: Annotated[Count, Field(ge=2)] = 45
    """epochs that are saved and counted; the first two epochs are not"""
    out: Path = Path("results/benchmark_saving.json")
    """JSON file to write"""


def is_saved(epoch: int) -> bool:
    """Whether an epoch is saved; epochs are counted from 1."""
    return epoch % 2 == 0


def now() -> np.ndarray:
    """The time in seconds on every clock, [2]."""
    return np.array([time.perf_counter(), time.process_time()])


def save(checkpointer: Checkpointer, step: int, progress: Progress) -> None:
    """Save as a run does."""
    record = {"history": history_to_json(progress.history)}
    tree = {"state": progress.state, "best": progress.best}
    checkpointer.save(step, tree, record, progress.history[-1].train.loss)


def measure(settings: Settings, examples: rounds.Examples, folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """A fit of which every second epoch is saved, then saves alone.

    Returns seconds by clock: from the end of one epoch to the end of the next [epochs - 1, 2], and of saves [ALONE, 2].
    """
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.jit(model.init)(jax.random.key(0))
    training = cvae.Training(epochs=2 * settings.rounds + 4)
    fit = cvae.epochs(model, params, jax.random.key(1), examples.x, {"label": examples.label}, training)
    marks, alone = [], []
    with Checkpointer(folder) as checkpointer:
        for progress in fit:
            checkpointer.wait()
            marks.append(now())
            if is_saved(len(progress.history)):
                save(checkpointer, len(progress.history), progress)
        checkpointer.wait()
        for step in range(len(marks) + 1, len(marks) + 1 + ALONE):
            began = now()
            save(checkpointer, step, progress)
            returned = now()
            checkpointer.wait()
            alone.append([returned[0] - began[0], now()[1] - began[1]])
    return np.diff(marks, axis=0), np.array(alone)


def neighbors(seconds: list[float]) -> tuple[list[float], list[float]]:
    """Seconds of each saved epoch, and the mean of the two around it; without the first two epochs."""
    counted = range(3, len(seconds) - 1, 2)
    return [seconds[n] for n in counted], [(seconds[n - 1] + seconds[n + 1]) / 2 for n in counted]


def compare(saved: list[float], unsaved: list[float]) -> dict[str, Any]:
    """Ratios of the two: median, quartiles, mean and its standard error."""
    ratios = [ours / theirs for ours, theirs in zip(saved, unsaved, strict=True)]
    return rounds.quartiles(ratios) | {"mean": mean(ratios), "standard_error": stdev(ratios) / len(ratios) ** 0.5}


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "saving") as record, tempfile.TemporaryDirectory() as folder:
        examples, data = rounds.load_examples(settings.examples)
        epochs, alone = measure(settings, examples, Path(folder))
        results, body = {}, []
        for clock, seconds, costs in zip(CLOCKS, epochs.T.tolist(), alone.T.tolist(), strict=True):
            saved, unsaved = neighbors(seconds)
            compared, share = compare(saved, unsaved), median(costs) / median(unsaved)
            results[clock] = {"saved": saved, "unsaved": unsaved} | compared | {"alone": costs, "share": share}
            medians = [f"{median(each):.3f}" for each in (saved, unsaved)]
            ratio = "{:.3f} ({:.3f} - {:.3f})".format(compared["ratio"], *compared["quartiles"])
            average = f"{compared['mean']:.3f} ± {compared['standard_error']:.3f}"
            body.append([clock, *medians, ratio, average, f"{median(costs):.3f}, {share:.1%}"])
        head = ["seconds per epoch", "saved", "not saved", "ratio (quartiles)", "mean ratio", "a save alone"]
        print(render(head, body))
        record["config"] = {"data": data, "examples": settings.examples, "rounds": settings.rounds}
        record["results"] = results


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
