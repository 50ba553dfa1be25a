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
from itertools import pairwise
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import Annotated, Any, NamedTuple

import jax
from pydantic import Field

import cvae
from benchmarks import rounds
from cvae.checkpoints import Checkpointer
from cvae.fitting import Progress
from cvae.runs import history_to_json
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

ALONE = 20  # saves
CLOCKS = {"wall": time.perf_counter, "processors": time.process_time}

Times = dict[str, float]  # seconds by clock


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 55_000
    """training examples per epoch"""
    rounds: Annotated[Count, Field(ge=2)] = 45
    """epochs that are saved and counted; the first two epochs are not"""
    out: Path = Path("results/benchmark_saving.json")
    """JSON file to write"""


class Measured(NamedTuple):
    """Seconds by every clock."""

    epochs: list[Times]  # from the end of one epoch to the end of the next
    alone: list[Times]
    data: str


def is_saved(epoch: int) -> bool:
    """Whether an epoch is saved; epochs are counted from 1."""
    return epoch % 2 == 0


def now() -> Times:
    """The time on every clock."""
    return {name: clock() for name, clock in CLOCKS.items()}


def elapsed(before: Times, after: Times) -> Times:
    """Seconds by every clock."""
    return {name: after[name] - before[name] for name in CLOCKS}


def save(checkpointer: Checkpointer, step: int, progress: Progress) -> None:
    """Save as a run does."""
    record = {"history": history_to_json(progress.history)}
    tree = {"state": progress.state, "best": progress.best}
    checkpointer.save(step, tree, record, progress.history[-1].train.loss)


def measure(settings: Settings, folder: Path) -> Measured:
    """A fit of which every second epoch is saved, then saves alone."""
    examples, data = rounds.load_examples(settings.examples)
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
            alone.append({"wall": elapsed(began, returned)["wall"], "processors": elapsed(began, now())["processors"]})
    return Measured([elapsed(*pair) for pair in pairwise(marks)], alone, data)


def neighbors(seconds: list[float]) -> tuple[list[float], list[float]]:
    """Seconds of each saved epoch, and the mean of the two around it; without the first two epochs."""
    counted = range(3, len(seconds) - 1, 2)
    return [seconds[n] for n in counted], [(seconds[n - 1] + seconds[n + 1]) / 2 for n in counted]


def compare(saved: list[float], unsaved: list[float]) -> dict[str, Any]:
    """Ratios of the two: median, quartiles, mean and its standard error."""
    ratios = [ours / theirs for ours, theirs in zip(saved, unsaved, strict=True)]
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    error = stdev(ratios) / len(ratios) ** 0.5
    return {"ratio": middle, "quartiles": (low, high), "mean": mean(ratios), "standard_error": error}


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    rounds.check_out(settings.out)
    load, provenance = rounds.load_average(), cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as folder:
        epochs, alone, data = measure(settings, Path(folder))
    results, body = {}, []
    for clock in CLOCKS:
        saved, unsaved = neighbors([epoch[clock] for epoch in epochs])
        costs, compared = [each[clock] for each in alone], compare(saved, unsaved)
        share = median(costs) / median(unsaved)
        results[clock] = {"saved": saved, "unsaved": unsaved} | compared | {"alone": costs, "share": share}
        ratio = "{:.3f} ({:.3f} - {:.3f})".format(compared["ratio"], *compared["quartiles"])
        average = f"{compared['mean']:.3f} ± {compared['standard_error']:.3f}"
        medians = [f"{median(each):.3f}" for each in (saved, unsaved)]
        body.append([clock, *medians, ratio, average, f"{median(costs):.3f}, {share:.1%}"])
    head = ["seconds per epoch", "saved", "not saved", "ratio (quartiles)", "mean ratio", "a save alone"]
    print(render(head, body))
    config = {"data": data, "examples": settings.examples, "rounds": settings.rounds}
    rounds.write(settings.out, "saving", config, results, provenance, load_average=load)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
