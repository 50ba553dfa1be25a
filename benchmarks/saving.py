"""What it costs to be able to go on: an epoch that is saved, beside one that is not, in the same fit.

    python -m benchmarks.saving                              # some four minutes on two cores
    python -m benchmarks.saving --examples 5000 --rounds 2   # a trial

The fit is the article's: 512 ReLU units, 2 latents, a label, batches of 50; a checkpoint has 10 MB. Every other epoch
is saved as with `--save-every 1`. Its time is from the end of its training to the end of the next, with what is written
in the background on disk by then: a little more than a run pays, which does not wait for that. Each is compared with
the mean of the two around it that are not saved, in seconds of the wall and of the processors; neighbours, because a
shared machine drifts by more than saving costs. The ratio is the median over rounds, beside its quartiles and the
standard error of the mean.

As that is still blurred, a save is also measured alone, after the fit: the seconds for which training would wait, and
those of the processors until all is on disk, as shares of an epoch that is not saved.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median, quantiles, stdev
from typing import TYPE_CHECKING, Any, NamedTuple

import cvae
from benchmarks.epoch import load_average, load_examples
from cvae import checks
from experiments import command

if TYPE_CHECKING:
    from cvae.training import Progress

ALONE = 20  # saves
CLOCKS = {"wall": time.perf_counter, "processors": time.process_time}


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch"""
    rounds: int = 45
    """epochs that are saved and counted, after two that are not"""
    out: Path = Path("results/benchmark_saving.json")
    """JSON file to write"""


def is_saved(epoch: int) -> bool:
    """Whether it is one of those that are saved; epochs are counted from 1, and the first two are left out."""
    return epoch % 2 == 0


class Measured(NamedTuple):
    """What was measured, in seconds, by every clock."""

    epochs: list[dict[str, float]]
    alone: list[dict[str, float]]
    data: str


def measure(settings: Settings, folder: Path) -> Measured:
    """A fit of which every other epoch is saved, then saves alone."""
    import jax

    examples, data = load_examples(settings.examples)
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.jit(model.init)(jax.random.key(0))
    training = cvae.Training(epochs=2 * settings.rounds + 4)
    keeper = cvae.runs.Keeper(folder, "cvae", params, training, {}, save_every=1)
    marks: list[dict[str, float]] = []
    newest: list[Progress] = []

    def on_epoch(progress: Progress) -> None:
        keeper.saver.series.wait()
        marks.append(now())
        newest[:] = [progress]
        if is_saved(len(progress.history)):
            keeper.after(progress)

    train = examples.x, {"label": examples.label}
    cvae.fit(model, params, jax.random.key(1), *train, training, on_epoch=on_epoch, name="saving and not saving")
    keeper.saver.series.wait()
    alone = [save_alone(keeper, newest[0], epoch=len(marks) + n) for n in range(1, ALONE + 1)]
    keeper.saver.series.close()
    pairs = zip(marks[1:], marks[:-1], strict=True)
    epochs = [{name: after[name] - before[name] for name in CLOCKS} for after, before in pairs]
    return Measured(epochs, alone, data)


def save_alone(keeper: cvae.runs.Keeper, progress: Progress, epoch: int) -> dict[str, float]:
    """Save as if that epoch had just ended: seconds until the call returns, of the processors until all is on disk."""
    history = [*progress.history, progress.history[-1]._replace(epoch=epoch)]
    began = now()
    keeper.after(progress._replace(history=history))
    returned = now()
    keeper.saver.series.wait()
    return {"wall": returned["wall"] - began["wall"], "processors": now()["processors"] - began["processors"]}


def now() -> dict[str, float]:
    """What every clock says."""
    return {name: clock() for name, clock in CLOCKS.items()}


def neighbours(seconds: list[float]) -> tuple[list[float], list[float]]:
    """Seconds of every epoch that is saved, and the mean of the two around it; without the first two epochs."""
    counted = range(3, len(seconds) - 1, 2)
    return [seconds[n] for n in counted], [(seconds[n - 1] + seconds[n + 1]) / 2 for n in counted]


def compare(saved: list[float], unsaved: list[float]) -> dict[str, Any]:
    """Ratios of the two: median, quartiles, mean and its standard error."""
    ratios = [ours / theirs for ours, theirs in zip(saved, unsaved, strict=True)]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    error = stdev(ratios) / len(ratios) ** 0.5
    return {"ratio": median(ratios), "quartiles": (low, high), "mean": mean(ratios), "standard_error": error}


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    checks.whole_number("--examples", settings.examples)
    checks.whole_number("--rounds", settings.rounds, least=2)
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    load, provenance = load_average(), cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as folder:
        epochs, alone, data = measure(settings, Path(folder))
    results: dict[str, Any] = {}
    print("| seconds an epoch | saved | not saved | ratio (quartiles) | mean ratio | a save alone |")
    print(f"|---|{'---:|' * 5}")
    for clock in CLOCKS:
        saved, unsaved = neighbours([epoch[clock] for epoch in epochs])
        compared = compare(saved, unsaved)
        costs = [save[clock] for save in alone]
        share = median(costs) / median(unsaved)
        results[clock] = {"saved": saved, "unsaved": unsaved} | compared | {"alone": costs, "share": share}
        low, high = compared["quartiles"]
        cells = [
            f"{median(saved):.3f}",
            f"{median(unsaved):.3f}",
            f"{compared['ratio']:.3f} ({low:.3f} - {high:.3f})",
            f"{compared['mean']:.3f} ± {compared['standard_error']:.3f}",
            f"{median(costs):.3f}, {share:.1%}",
        ]
        print(f"| {clock} | {' | '.join(cells)} |")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    config = {"data": data, "examples": settings.examples, "rounds": settings.rounds}
    record = {"benchmark": "saving", "config": config, "load_average": load, "results": results}
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
