"""Seconds per training epoch of the article's CVAE, in this library, PyTorch and Keras.

    pip install -e '.[bench]'
    python -m benchmarks.epoch                               # about two minutes on two cores
    python -m benchmarks.epoch --examples 5000 --rounds 2    # a short trial

The model: 784 pixels + 10 label features -> 512 ReLU -> 2 latents; 2 + 10 -> 512 ReLU -> 784 logits. The loss is
cross-entropy plus KL, with one sample of z; Glorot initialisation, Adam at 1e-3, a new order of the examples in every
epoch. The contenders are

    cvae      this library: one compiled scan over uint8 pixels on the device
    pytorch   a module, a DataLoader and a loop over its batches, eager; `pytorch_fused` has Adam's fused update,
              which is not the default
    keras     Keras 3 on JAX: `model.fit`
    floor     no model: an epoch's matrix products, at the rate JAX reaches on a large one in the same round

Each runs in its own process; compilation and a first epoch are not counted. Timings need an otherwise idle machine: on
a busy one PyTorch's threads, which wait for each other many times per step, lose more time than the others. The loss of
the last epoch shows whether the contenders fit the same model.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, get_args

from pydantic import Field

import cvae
from benchmarks import rounds
from benchmarks.contenders import epoch_flops
from benchmarks.rounds import Row
from benchmarks.workers import Command, Crew, command_of
from cvae import checks
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

Name = Literal["cvae", "pytorch", "pytorch_fused", "keras", "floor"]
PEERS = {"pytorch": "torch", "pytorch_fused": "torch", "keras": "keras"}  # and the package of each
REMEDY = "not installed: pip install -e '.[bench]'"
SAME_LOSS = 0.05  # relative difference of losses above which a warning is printed


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 55_000
    """training examples per epoch; every batch size must divide it"""
    batch_sizes: tuple[Count, ...] = ()
    """examples per step, one or more; by default 50, and on a GPU 50 500 5000"""
    rounds: Count = 5
    """counted epochs of each contender, after one that is not"""
    contenders: Annotated[tuple[Name, ...], Field(min_length=1)] = get_args(Name)
    """what is measured; ratios need cvae and floor among them"""
    out: Path = Path("results/benchmark_epoch.json")
    """JSON file to write"""


def check(settings: Settings, batch_sizes: tuple[int, ...]) -> None:
    """Refuse settings that cannot be measured."""
    once = len(set(settings.contenders)) == len(settings.contenders)
    checks.require(once, "--contenders", "be names, each once", " ".join(settings.contenders))
    for size in batch_sizes:
        # PyTorch and Keras train on a short last batch and this library leaves it out, so there must be none.
        checks.require(settings.examples % size == 0, "--batch-sizes", f"divide {settings.examples} examples", size)


def measure(crew: Crew, batch_size: int, count: int) -> dict[str, list[Row]]:
    """Compile and warm up every contender, then time one epoch of each per round."""
    title = f"batch {batch_size}"
    for name in list(crew.workers):
        if answer := crew.answer(name, batch_size=batch_size):
            print(f"{title}, warm-up: {name} {answer['seconds']:.2f} s", file=sys.stderr)
    contenders = {name: (lambda name=name: crew.answer(name, epoch=True)) for name in crew.workers}
    return rounds.interleave(contenders, count, title)


def summarize(rows: dict[str, list[Row]]) -> dict[str, Row]:
    """Medians over rounds: of the seconds, and of the ratios within each round."""
    seconds = {name: rounds.seconds_of(answers) for name, answers in rows.items()}
    summary: dict[str, Row] = {}
    for name, answers in rows.items():
        row: Row = {"seconds": seconds[name], "median": median(seconds[name])}
        for other in ("cvae", "floor"):
            row[f"over_{other}"] = rounds.ratio(seconds[name], seconds[other]) if other in seconds else None
        if name == "floor":
            row["gflops"] = [answer["flops"] / 1e9 for answer in answers]  # per second
        else:
            row["loss"] = answers[-1]["loss"]
        summary[name] = row
    return summary


def report(results: dict[int, dict[str, Row]]) -> None:
    """Print the table, and a warning where the losses of the contenders differ."""
    body = []
    for batch_size, summary in results.items():
        for name, row in summary.items():
            ratios = [row["over_cvae"], row["over_floor"]]
            cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
            loss = f"{row['loss']:.1f}" if "loss" in row else "-"
            body.append([str(batch_size), name, rounds.spread(row["seconds"]), *cells, loss])
    head = ["batch", "contender", "seconds per epoch, median (min - max)", "over cvae", "over floor", "loss, nats"]
    print("\n" + render(head, body, text_columns=2))
    for batch_size, summary in results.items():
        losses = [row["loss"] for row in summary.values() if "loss" in row]
        if losses and max(losses) > (1 + SAME_LOSS) * min(losses):
            print(f"\nbatch {batch_size}: the losses differ by more than {SAME_LOSS:.0%}: is it the same model?")


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    check(settings, settings.batch_sizes)
    with rounds.record(settings.out, "epoch") as record:
        examples, data = rounds.load_examples(settings.examples)
        missing = {n: REMEDY for n in settings.contenders if n in PEERS and importlib.util.find_spec(PEERS[n]) is None}
        commands: dict[str, Command] = {n: command_of(n) for n in settings.contenders if n not in missing}
        with Crew(commands, examples) as crew:
            batch_sizes = settings.batch_sizes or ((50, 500, 5000) if crew.has_gpu else (50,))
            check(settings, batch_sizes)
            results = {size: summarize(measure(crew, size, settings.rounds)) for size in batch_sizes}
        report(results)
        record["config"] = {
            "data": data,
            "examples": settings.examples,
            "batch_sizes": list(batch_sizes),
            "rounds": settings.rounds,
            "contenders": list(settings.contenders),
            "flops": epoch_flops(settings.examples),
        }
        record["results"], record["left_out"] = results, missing | crew.left_out
        measured = {name for summary in results.values() for name in summary}
        record["versions"] = {PEERS[name]: metadata.version(PEERS[name]) for name in sorted(measured & PEERS.keys())}
    for name, reason in record["left_out"].items():
        print(f"{name}: {reason}")
    if crew.left_out:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
