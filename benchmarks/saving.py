"""What it costs to be able to go on: an epoch that is saved, beside one that is not, in the same fit.

    python -m benchmarks.saving                              # some four minutes on two cores
    python -m benchmarks.saving --examples 5000 --rounds 2   # a trial

The fit is the article's: 512 ReLU units, 2 latents, a label, batches of 50; a checkpoint has 10 MB. In turn, three
epochs are saved as with `--save-every 1`, and three are not. An epoch's time is from the end of its training to that of
the next: the call that saves, and the training during which the checkpoint is written in the background. Of three the
first is left out, which may hold what the three before it left to write. Ratios are taken between neighbours, seconds
of the wall and seconds of the processors, which say more on a machine that others use too; their medians are over
rounds.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import cvae
from benchmarks.epoch import load_average, load_examples
from cvae import checks
from experiments import command

if TYPE_CHECKING:
    from cvae.training import Progress

TURN = 3  # epochs
CLOCKS = {"wall": time.perf_counter, "processors": time.process_time}


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch"""
    rounds: int = 12
    """turns of each kind that are counted, after one that is not"""
    out: Path = Path("results/benchmark_saving.json")
    """JSON file to write"""


def is_saved(epoch: int) -> bool:
    """Whether it is the turn of those that are saved; epochs are counted from 1."""
    return (epoch - 1) // TURN % 2 == 0


def measure(settings: Settings, folder: Path) -> tuple[list[dict[str, float]], str]:
    """Seconds of every epoch by every clock, and what the data are."""
    import jax

    examples, data = load_examples(settings.examples)
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = jax.jit(model.init)(jax.random.key(0))
    training = cvae.Training(epochs=2 * TURN * (settings.rounds + 1) + 1)
    keeper = cvae.runs.Keeper(folder, "cvae", params, training, {}, save_every=1)
    marks: list[dict[str, float]] = []

    def on_epoch(progress: Progress) -> None:
        marks.append({name: clock() for name, clock in CLOCKS.items()})
        if is_saved(len(progress.history)):
            keeper.after(progress)

    train = examples.x, {"label": examples.label}
    cvae.fit(model, params, jax.random.key(1), *train, training, on_epoch=on_epoch, name="saving and not saving")
    keeper.close()
    pairs = zip(marks[1:], marks[:-1], strict=True)
    return [{name: after[name] - before[name] for name in CLOCKS} for after, before in pairs], data


def turns(seconds: list[float]) -> tuple[list[float], list[float]]:
    """Mean seconds of an epoch in every turn but the first two, saved and not; without the first epoch of a turn."""
    sums = [sum(seconds[first + 1 : first + TURN]) / (TURN - 1) for first in range(0, len(seconds), TURN)]
    return sums[2::2], sums[3::2]


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    for option in ("examples", "rounds"):
        checks.whole_number(f"--{option}", getattr(settings, option))
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    load, provenance = load_average(), cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as folder:
        epochs, data = measure(settings, Path(folder))
    results = {}
    print("| seconds an epoch | saved | not saved | ratio (least - most) |\n|---|---:|---:|---:|")
    for clock in CLOCKS:
        saved, unsaved = turns([epoch[clock] for epoch in epochs])
        ratios = [ours / theirs for ours, theirs in zip(saved, unsaved, strict=True)]
        results[clock] = {"saved": saved, "unsaved": unsaved, "ratio": median(ratios)}
        spread = f"{median(ratios):.3f} ({min(ratios):.3f} - {max(ratios):.3f})"
        print(f"| {clock} | {median(saved):.3f} | {median(unsaved):.3f} | {spread} |")
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    config = {"data": data, "examples": settings.examples, "rounds": settings.rounds}
    record = {"benchmark": "saving", "config": config, "load_average": load, "results": results}
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
