"""Interleaved rounds: what all benchmarks share.

Contenders are timed in turn, each alone, and every round starts with another one. Ratios are taken within a round, and
their median is over rounds, so a machine that drifts slows both sides of a ratio.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles
from typing import Any, NamedTuple

import numpy as np

import cvae
from cvae import checks

BUSY = 0.5  # other running programs, above which timings are doubtful

Row = dict[str, Any]  # one measurement; "seconds" and more


class Examples(NamedTuple):
    """What every contender trains on."""

    x: np.ndarray  # [N, 28, 28, 1] uint8
    label: np.ndarray  # [N] int32


def load_examples(number: int) -> tuple[Examples, str]:
    """The first examples of MNIST's training split, or random images without it, and which of the two.

    A random image is its class's random stencil at a random brightness: the speed is the same, and the loss shows
    whether the labels are used.
    """
    try:
        train = cvae.data.load("mnist").train
    except cvae.data.DataUnavailable as error:
        print(f"random images instead of MNIST: {error}", file=sys.stderr)
        draw = np.random.default_rng(0).integers
        label = draw(10, size=number, dtype=np.int32)
        stencils = draw(2, size=(10, 28, 28, 1), dtype=np.uint8)
        brightness = draw(256, size=(number, 1, 1, 1), dtype=np.uint8)
        return Examples(stencils[label] * brightness, label), "random"
    checks.require(number <= len(train.x), "--examples", f"be at most {len(train.x)}, the size of MNIST", number)
    return Examples(train.x[:number], train.label[:number]), "mnist"


def load_average() -> float | None:
    """Programs that used a core over the last minute, on average; None on a system that does not count them."""
    if not hasattr(os, "getloadavg"):
        return None
    load = os.getloadavg()[0]
    if load > BUSY:
        print(f"warning: {load:.1f} other programs were running over the last minute: measure again", file=sys.stderr)
    return load


def peak_memory() -> float | None:
    """The most bytes that this process has held; None on Windows."""
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def interleave(contenders: Mapping[str, Callable[[], Row | None]], rounds: int, title: str) -> dict[str, list[Row]]:
    """Measure every contender once per round, each round starting with another.

    A contender that returns None is left out from then on, and its rows are dropped, so that rounds stay aligned.
    """
    rows: dict[str, list[Row]] = {name: [] for name in contenders}
    for number in range(rounds):
        names, line = list(rows), []
        first = number % max(len(names), 1)
        for name in names[first:] + names[:first]:
            if row := contenders[name]():
                rows[name].append(row)
                line.append(f"{name} {row['seconds']:.2f} s")
            else:
                del rows[name]
        print(f"{title}, round {number + 1} of {rounds}: {', '.join(line)}", file=sys.stderr)
    return rows


def seconds_of(rows: list[Row]) -> list[float]:
    """The seconds of each round."""
    return [row["seconds"] for row in rows]


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of the ratios within each round."""
    return float(median(a / b for a, b in zip(ours, theirs, strict=True)))


def quartiles(ratios: list[float]) -> Row:
    """The median of ratios and their quartiles."""
    low, middle, high = quantiles(ratios, n=4, method="inclusive")
    return {"ratio": middle, "quartiles": (low, high)}


def spread(seconds: list[float]) -> str:
    """Median, minimum and maximum of seconds."""
    return f"{median(seconds):.3f} ({min(seconds):.3f} - {max(seconds):.3f})"


@contextmanager
def record(out: Path | None, benchmark: str) -> Iterator[Row]:
    """Yield a dict, to which the body adds `config`, `results` and more; then write it with where they come from.

    Args:
        out: JSON file to write, if any; refused if it is a folder.
        benchmark: name of the benchmark.
    """
    checks.require(out is None or not out.is_dir(), "--out", "be a file", f"the folder {out}")
    load, commit = load_average(), cvae.runs.commit()  # before a long run, in which the source may change
    found: Row = {"benchmark": benchmark}
    yield found
    if out is not None:
        # Only now, with workers gone: counting devices makes this process use a GPU too.
        provenance = cvae.runs.provenance() | {"commit": commit}
        provenance["versions"] |= found.get("versions", {})
        found |= {"load_average": load} | provenance
        out.parent.mkdir(parents=True, exist_ok=True)
        cvae.runs.write_json(out, found)
        print(f"\nresults in {out}")
