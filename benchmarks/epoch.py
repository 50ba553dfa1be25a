"""Milliseconds per training step of a CVAE of three sizes, in this library, PyTorch and Keras.

    pip install -e '.[bench]'
    python -m benchmarks.epoch                                     # about ten minutes on two cores
    python -m benchmarks.epoch --sizes article --steps 100         # a short trial of one model

The sizes; all with cross-entropy plus KL, one sample of z, Adam and a new order of the examples in every epoch:

    article          784 pixels + 10 label features -> 512 ReLU -> 2 latents; 2 + 10 -> 512 ReLU -> 784 logits; batch 50
    residual         the default network of `experiments.mnist_quadrants` given one quadrant: residual, four layers of
                     latents, learned prior; batch 200, without the experiment's augmentation and moving average
    convolutional    32 and 64 channels, 16 latents, given the label; batch 100

The contenders are

    cvae                this library: compiled steps over uint8 pixels on the device
    pytorch             a module and a loop over batches, eager, with Adam's fused update, which is not the default; a
                        DataLoader for the article's model, tensors in memory and channels last for the others
    pytorch_compiled    the same by `torch.compile`, which needs a C++ compiler
    keras               Keras 3 on JAX: `model.fit`, of the article's model
    floor               no model: a step's matrix products and convolutions, at the rate JAX reaches on a large product,
                        and the bytes that Adam must move (seven floats per parameter: it, its gradient and two moments
                        read, it and the moments written), at the rate of an update in place of arrays of that size

Each runs in its own process; compilation and a first epoch are not counted. An epoch that is timed has 1100, 200 and 20
steps. Timings need an otherwise idle machine: on a busy one PyTorch's threads, which wait for each other many times per
step, can take twenty times as long; with OMP_WAIT_POLICY=PASSIVE in the environment, which the file records, they sleep
meanwhile and do not. The loss of the last epoch shows whether the contenders fit the same model.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field

import cvae
from benchmarks import rounds
from benchmarks.contenders import SIZES
from benchmarks.floor import adam_bytes, step_flops
from benchmarks.rounds import Row
from benchmarks.workers import Crew, command_of
from cvae import checks
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

SizeName = Literal["article", "residual", "convolutional"]
Name = Literal["cvae", "pytorch", "pytorch_compiled", "keras", "floor"]
PEERS = {"pytorch": "torch", "pytorch_compiled": "torch", "keras": "keras"}  # and the package of each
REMEDY = "not installed: pip install -e '.[bench]'"
EXAMPLES = 55_000  # as many as an epoch has at most
SAME_LOSS = 0.05  # relative difference of losses above which a warning is printed


@cvae.setting
class Settings:
    """Options of the benchmark."""

    sizes: Annotated[tuple[SizeName, ...], Field(min_length=1)] = get_args(SizeName)
    """the models"""
    batch_sizes: tuple[Count, ...] = ()
    """examples per step of every model, one or more; by default its own, and on a GPU 50 500 5000"""
    steps: tuple[Count, ...] = ()
    """steps of an epoch that is timed, one number per model; 1100, 200 and 20 by default, 55,000 examples at most"""
    rounds: Count = 5
    """counted epochs of each contender, after one that is not"""
    contenders: Annotated[tuple[Name, ...], Field(min_length=1)] = get_args(Name)
    """what is measured; ratios need cvae and floor among them"""
    out: Path = Path("results/benchmark_epoch.json")
    """JSON file to write"""


class Case(NamedTuple):
    """What is timed: a model, its batch size, and the steps of an epoch."""

    size: SizeName
    batch_size: int
    steps: int


def cases(settings: Settings, *, gpu: bool) -> list[Case]:
    """Every size with each of its batch sizes; refuses settings that cannot be measured."""
    for option, names in (("--sizes", settings.sizes), ("--contenders", settings.contenders)):
        checks.require(len(set(names)) == len(names), option, "be names, each once", " ".join(names))
    count, found = len(settings.sizes), []
    checks.require(len(settings.steps) in (0, count), "--steps", f"be {count} numbers, one per model", settings.steps)
    for name, steps in zip(
        settings.sizes, settings.steps or [SIZES[name].steps for name in settings.sizes], strict=True
    ):
        for batch_size in settings.batch_sizes or ((50, 500, 5000) if gpu else (SIZES[name].batch_size,)):
            checks.require(batch_size <= EXAMPLES, "--batch-sizes", f"be at most {EXAMPLES}, the examples", batch_size)
            found.append(Case(name, batch_size, min(steps, EXAMPLES // batch_size)))
    return found


def measure(
    crew: Crew, batch_size: int, count: int, *, names: Iterable[str] | None = None, **question: Any
) -> dict[str, list[Row]]:
    """Compile and warm up every contender, or those that are named, then time one epoch of each per round."""
    title = f"{question.get('size', '')} batch {batch_size}".strip()
    started = []
    for name in list(crew.workers if names is None else names):
        if answer := crew.answer(name, batch_size=batch_size, **question):
            print(f"{title}, warm-up: {name} {answer['seconds']:.2f} s", file=sys.stderr)
            started.append(name)
    contenders = {name: (lambda name=name: crew.answer(name, epoch=True)) for name in started}
    return rounds.interleave(contenders, count, title)


def summarize(rows: dict[str, list[Row]], steps: int) -> dict[str, Row]:
    """Medians over rounds: of the milliseconds per step, and of the ratios within each round."""
    times = {name: [1000 * s / steps for s in rounds.seconds_of(answers)] for name, answers in rows.items()}
    summary: dict[str, Row] = {}
    for name, answers in rows.items():
        row: Row = {"milliseconds": times[name], "median": median(times[name])}
        for other in ("cvae", "floor"):
            row[f"over_{other}"] = rounds.ratio(times[name], times[other]) if other in times else None
        if name == "floor":
            row["gflops"] = [answer["flops"] / 1e9 for answer in answers]  # per second
            row["gigabytes"] = [answer["bytes"] / 1e9 for answer in answers]
        else:
            row["loss"] = answers[-1]["loss"]
        summary[name] = row
    return summary


def report(results: dict[str, dict[int, dict[str, Row]]]) -> None:
    """Print the table, and a warning where the losses of the contenders differ."""
    body, warnings = [], []
    for size, batches in results.items():
        for batch_size, summary in batches.items():
            for name, row in summary.items():
                ratios = [row["over_cvae"], row["over_floor"]]
                cells = ["-" if ratio is None else f"{ratio:.2f}" for ratio in ratios]
                loss = f"{row['loss']:.1f}" if "loss" in row else "-"
                body.append([size, str(batch_size), name, rounds.spread(row["milliseconds"]), *cells, loss])
            losses = [row["loss"] for row in summary.values() if "loss" in row]
            if losses and max(losses) > (1 + SAME_LOSS) * min(losses):
                words = f"the losses differ by more than {SAME_LOSS:.0%}: is it the same model?"
                warnings.append(f"\n{size}, batch {batch_size}: {words}")
    head = ["model", "batch", "contender", "ms per step, median (min - max)", "over cvae", "over floor", "loss, nats"]
    print("\n" + render(head, body, text_columns=3), *warnings, sep="\n")


def missing(settings: Settings) -> dict[str, str]:
    """Contenders that cannot run here, and why."""
    found: dict[str, str] = {
        n: REMEDY for n in settings.contenders if n in PEERS and importlib.util.find_spec(PEERS[n]) is None
    }
    if "pytorch_compiled" in settings.contenders and not any(map(shutil.which, ("g++", "clang++", "cl"))):
        found.setdefault("pytorch_compiled", "no C++ compiler")
    return found


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    cases(settings, gpu=False)
    with rounds.record(settings.out, "epoch") as record:
        absent = missing(settings)
        examples, data = rounds.load_examples(EXAMPLES)
        results: dict[str, dict[int, dict[str, Row]]] = {size: {} for size in settings.sizes}
        with Crew({name: command_of(name) for name in settings.contenders if name not in absent}, examples) as crew:
            timed = cases(settings, gpu=crew.has_gpu)
            for size, batch_size, steps in timed:
                names = [name for name in crew.workers if name != "keras" or size == "article"]
                question = {"size": size, "examples": steps * batch_size}
                rows = measure(crew, batch_size, settings.rounds, names=names, **question)
                results[size][batch_size] = summarize(rows, steps)
        report(results)
        record["config"] = {
            "data": data,
            "rounds": settings.rounds,
            "contenders": list(settings.contenders),
            "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
            "sizes": [case._asdict() | costs(case) for case in timed],
        }
        record["results"], record["left_out"] = results, absent | crew.left_out
        measured = {name for batches in results.values() for summary in batches.values() for name in summary}
        record["versions"] = {PEERS[name]: metadata.version(PEERS[name]) for name in sorted(measured & PEERS.keys())}
    for name, reason in record["left_out"].items():
        print(f"{name}: {reason}")
    if crew.left_out:
        sys.exit(1)


def costs(case: Case) -> Row:
    """What the floor of a step counts."""
    architecture = SIZES[case.size].architecture
    return {"flops": step_flops(architecture, case.batch_size), "bytes": adam_bytes(architecture)}


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
