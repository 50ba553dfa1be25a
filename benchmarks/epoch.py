"""Seconds per training epoch of the article's CVAE, beside its peers: one run, in turn, on one machine.

    pip install -e '.[bench]'
    python -m benchmarks.epoch                               # about two minutes on two cores
    python -m benchmarks.epoch --examples 5000 --rounds 2    # a trial, in a minute

The model: 784 pixels + 10 label features -> 512 ReLU -> 2 latents; 2 + 10 -> 512 ReLU -> 784 logits. The loss is
cross-entropy plus KL, with one sample of z; Glorot initialisation, Adam at 1e-3, a new order of the examples every
epoch. The contenders are

    cvae      this library: one compiled scan over uint8 pixels on the device
    pytorch   a module, a DataLoader and a loop over its batches, eager; `pytorch_fused` has Adam's fused update,
              which is not the default
    keras     Keras 3 on JAX: `model.fit`
    floor     no model: an epoch's matrix products, at the rate JAX reaches on a large one in the same round

Each lives in a process of its own, so thread pools and imports do not meet. All compile and train one epoch
uncounted; then, in every round, each trains one epoch alone while the others wait for their turn. Ratios are taken
within a round and the median is over rounds, so a machine that drifts slows both sides of a ratio. They still need
a machine that does nothing else: on a busy one PyTorch's threads, which wait for each other many times a step, lose
far more than the others. The loss of the last epoch is shown because a contender that fits another model has no
place in the table.

Only the workers import the frameworks; the parent starts them, asks, and writes down what they say.
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import numpy as np

import cvae
from benchmarks.contenders import CLASSES, Examples, epoch_flops
from benchmarks.workers import PEERS, Crew
from cvae import checks
from experiments import command

Name = Literal["cvae", "pytorch", "pytorch_fused", "keras", "floor"]
NAMES: tuple[Name, ...] = get_args(Name)
BUSY = 0.5  # programs running beside this one from which on its figures are doubtful
SAME_LOSS = 0.05  # losses further apart than this fraction are pointed at


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch; every batch size must divide it"""
    batch_sizes: tuple[int, ...] = ()
    """examples a step, one or more; if left out 50, and on a GPU 50 500 5000"""
    rounds: int = 5
    """counted epochs of each contender, after one that is not"""
    contenders: tuple[Name, ...] = NAMES
    """who takes part; ratios need cvae and floor among them"""
    out: Path = Path("results/benchmark_epoch.json")
    """JSON file to write"""


def load_examples(number: int) -> tuple[Examples, str]:
    """The first examples of MNIST's training split, or random pixels without it, and which of the two.

    A random picture is its class's random stencil at a random brightness: the speed is the same, and a label that
    never reached the networks would still show in the loss.
    """
    try:
        train = cvae.data.load("mnist").train
    except cvae.data.DataUnavailable as error:
        print(f"random pixels instead of MNIST: {error}", file=sys.stderr)
        draw = np.random.default_rng(0).integers
        label = draw(CLASSES, size=number, dtype=np.int32)
        stencils = draw(2, size=(CLASSES, 28, 28, 1), dtype=np.uint8)
        brightness = draw(256, size=(number, 1, 1, 1), dtype=np.uint8)
        return Examples(stencils[label] * brightness, label), "random"
    checks.require(number <= len(train.x), "--examples", f"be at most {len(train.x)}, as many as MNIST has", number)
    return Examples(train.x[:number], train.label[:number]), "mnist"


def check(settings: Settings, batch_sizes: tuple[int, ...]) -> None:
    """Refuse settings that cannot be measured.

    Raises:
        ValueError: names the option, the rule and what came.
    """
    checks.whole_number("--examples", settings.examples)
    checks.whole_number("--rounds", settings.rounds)
    once = len(set(settings.contenders)) == len(settings.contenders) > 0
    checks.require(once, "--contenders", "be one or more names, each once", " ".join(settings.contenders))
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    for size in batch_sizes:
        checks.whole_number("--batch-sizes", size)
        # The peers train on a short last batch and this library leaves it out: let there be none.
        checks.require(settings.examples % size == 0, "--batch-sizes", f"divide {settings.examples} examples", size)


def load_average() -> float | None:
    """Programs that wanted a core over the last minute, on average; None where the system does not say.

    Says on stderr when they are too many to measure beside.
    """
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: {load:.1f} other programs were running over the last minute: measure again", file=sys.stderr)
    return load


def measure(crew: Crew, batch_size: int, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Warm everybody up, then let everybody train an epoch a round, alone, each round beginning with another."""
    for name in list(crew.workers):
        if answer := crew.answer(name, batch_size=batch_size):
            print(f"batch {batch_size}, warm-up: {name} {answer['seconds']:.2f} s", file=sys.stderr)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in crew.workers}
    for number in range(rounds):
        line = []
        names = list(crew.workers)
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if answer := crew.answer(name, epoch=number):
                rows[name].append(answer)
                line.append(f"{name} {answer['seconds']:.2f} s")
        print(f"batch {batch_size}, round {number + 1} of {rounds}: {', '.join(line)}", file=sys.stderr)
    return {name: rows[name] for name in crew.workers}


def summarise(rows: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    """Medians over rounds: of the seconds, and of the ratios taken within each round."""
    seconds = {name: [answer["seconds"] for answer in answers] for name, answers in rows.items()}

    def ratio(name: str, other: str) -> float | None:
        if other not in seconds:
            return None
        return float(median(a / b for a, b in zip(seconds[name], seconds[other], strict=True)))

    summary = {}
    for name, answers in rows.items():
        summary[name] = {
            "seconds": seconds[name],
            "median": median(seconds[name]),
            "over_cvae": ratio(name, "cvae"),
            "over_floor": ratio(name, "floor"),
        }
        if name == "floor":
            summary[name]["gflops"] = [answer["flops"] / 1e9 for answer in answers]  # a second
        else:
            summary[name]["loss"] = answers[-1]["loss"]
    return summary


def report(results: dict[int, dict[str, dict[str, Any]]], flops: int) -> None:
    """Print the table, and a word where the contenders' losses do not agree."""

    def times(ratio: float | None) -> str:
        return "-" if ratio is None else f"{ratio:.2f}"

    print("\n| batch | contender | seconds an epoch, median (min - max) | over cvae | over floor | loss, nats |")
    print("|---:|---|---:|---:|---:|---:|")
    for batch_size, summary in results.items():
        for name, row in summary.items():
            spread = f"{row['median']:.3f} ({min(row['seconds']):.3f} - {max(row['seconds']):.3f})"
            loss = f"{row['loss']:.1f}" if "loss" in row else "-"
            ratios = f"{times(row['over_cvae'])} | {times(row['over_floor'])}"
            print(f"| {batch_size} | {name} | {spread} | {ratios} | {loss} |")
    rates = [rate for summary in results.values() if "floor" in summary for rate in summary["floor"]["gflops"]]
    if rates:
        print(f"\nfloor: {flops / 1e9:.1f} GFLOP an epoch, at {median(rates):.0f} GFLOP/s in the median")
    for batch_size, summary in results.items():
        losses = [row["loss"] for row in summary.values() if "loss" in row]
        if losses and max(losses) > (1 + SAME_LOSS) * min(losses):
            print(f"\nbatch {batch_size}: the losses differ by more than {SAME_LOSS:.0%}: is it one model?")


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    check(settings, settings.batch_sizes)
    examples, data = load_examples(settings.examples)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    load = load_average()
    commit = cvae.runs.commit()  # before a long run, in which the source may change
    with tempfile.TemporaryDirectory() as folder:
        for name, array in examples._asdict().items():
            np.save(Path(folder) / f"{name}.npy", array)
        crew = Crew(settings.contenders, Path(folder))
        try:
            ready = [crew.answer(name) for name in list(crew.workers)]
            gpu = any(answer and answer["accelerator"] for answer in ready)
            batch_sizes = settings.batch_sizes or ((50, 500, 5000) if gpu else (50,))
            check(settings, batch_sizes)
            results = {size: summarise(measure(crew, size, settings.rounds)) for size in batch_sizes}
        finally:
            crew.close()
    flops = epoch_flops(settings.examples)
    report(results, flops)
    # Only now, with the workers gone: looking at the devices makes this process take hold of a GPU too.
    provenance = cvae.runs.provenance() | {"commit": commit}
    measured = {name for summary in results.values() for name in summary}
    provenance["versions"] |= {PEERS[name]: metadata.version(PEERS[name]) for name in sorted(measured & PEERS.keys())}
    record = {
        "benchmark": "epoch",
        "config": {
            "data": data,
            "examples": settings.examples,
            "batch_sizes": list(batch_sizes),
            "rounds": settings.rounds,
            "contenders": list(settings.contenders),
            "flops": flops,
        },
        "load_average": load,  # of other programs, before the start
        "results": results,
        "left_out": crew.left_out,
    }
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")
    for name, reason in crew.left_out.items():
        print(f"{name}: {reason}")
    if crew.died:
        sys.exit(1)


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
