"""An epoch of the article's model in this checkout, relative to another checkout of this project.

    git worktree add ../before v0.1.0
    python -m benchmarks.against --other ../before

Each checkout trains in a process of its own, by its own `benchmarks.workers`, on the same examples; compilation and a
first epoch are not counted. Every round trains one epoch of each, and the order alternates. Printed is the median over
rounds of the ratio within a round, with its quartiles: below 1, this checkout is faster.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from statistics import median
from typing import Annotated

from pydantic import Field

import cvae
from benchmarks import rounds
from benchmarks.epoch import measure
from benchmarks.workers import Crew, command_of
from cvae import checks
from cvae.settings import Count
from experiments.harness.cli import options, protected


@cvae.setting
class Settings:
    """Options of the benchmark."""

    other: Path
    """the other checkout"""
    command: str = f"{shlex.quote(sys.executable)} -m benchmarks.workers cvae"
    """command that starts the other checkout's worker in its folder; the folder of the examples is appended"""
    examples: Count = 55_000
    """training examples per epoch"""
    batch_size: Count = 50
    """examples per step"""
    rounds: Annotated[Count, Field(ge=2)] = 7
    """counted epochs of each, after one that is not"""
    out: Path | None = None
    """JSON file to write"""


def main(settings: Settings) -> None:
    """Measure, print the ratio and write the file."""
    checks.require(settings.other.is_dir(), "--other", "be the folder of a checkout", settings.other)
    divides = settings.examples % settings.batch_size == 0
    checks.require(divides, "--batch-size", f"divide {settings.examples} examples", settings.batch_size)
    with rounds.record(settings.out, "against") as record:
        examples, data = rounds.load_examples(settings.examples)
        commands = {"this": command_of("cvae"), "other": (shlex.split(settings.command), settings.other)}
        with Crew(commands, examples) as crew:
            rows = measure(crew, settings.batch_size, settings.rounds)
            if crew.left_out:
                sys.exit(1)
        seconds = {name: rounds.seconds_of(each) for name, each in rows.items()}
        ratios = [ours / theirs for ours, theirs in zip(seconds["this"], seconds["other"], strict=True)]
        compared = rounds.quartiles(ratios)
        for name, each in rows.items():
            taken, loss = rounds.spread(seconds[name]), each[-1]["loss"]
            print(f"{name:6} {taken} s per epoch, median (min - max), loss {loss:.2f}")
        low, high = compared["quartiles"]
        print(f"this / other: {compared['ratio']:.3f} (quartiles {low:.3f} - {high:.3f})")
        medians = {name: median(each) for name, each in seconds.items()}
        record["config"] = {"data": data, "examples": settings.examples, "batch_size": settings.batch_size}
        record["results"] = {"seconds": seconds, "median": medians, "ratios": ratios} | compared


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
