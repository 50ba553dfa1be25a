"""Seconds from a command to the end of its first training steps, without and with compiled programs in the cache.

    python -m benchmarks.start                # about three minutes on two cores
    python -m benchmarks.start --rounds 2     # a short trial

The command is `experiments.mnist_label` on the 8x8 digits. The time ends when the first epoch, of 26 steps, is in
`metrics.jsonl`; then the command is stopped. Before each round the cache is empty: the first call is cold, the second
has the programs that the first left.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import cvae
from benchmarks import rounds
from cvae import checks
from cvae.settings import Count
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

LONGEST = 300.0  # seconds until there must be an epoch
ROOT = Path(__file__).resolve().parent.parent


@cvae.setting
class Settings:
    """Options of the benchmark."""

    rounds: Count = 5
    """how often the command is called with an empty cache, and again"""
    out: Path = Path("results/benchmark_start.json")
    """JSON file to write"""


def first_epoch(folder: Path, out: str) -> float:
    """Call the command with a cache in this folder; the seconds until its first epoch is written."""
    command = [sys.executable, "-m", "experiments.mnist_label", "--dataset", "digits", "--no-figures"]
    environment = os.environ | {"CVAE_CACHE_DIR": str(folder / "cache"), "TQDM_DISABLE": "1"}
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--out", str(folder / out)], cwd=ROOT, env=environment, stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    metrics = folder / out / "metrics.jsonl"
    while not (metrics.exists() and metrics.stat().st_size > 0):
        seconds = time.perf_counter() - began
        trains = process.poll() is None and seconds < LONGEST
        checks.require(trains, "the command", "write its first epoch", f"none after {seconds:.0f} s")
        time.sleep(0.005)
    seconds = time.perf_counter() - began
    process.kill()
    process.communicate()
    return seconds


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "start") as record:
        results: dict[str, list[float]] = {"cold": [], "warm": []}
        for number in range(settings.rounds):
            with tempfile.TemporaryDirectory() as folder:
                for name, seconds in results.items():
                    seconds.append(first_epoch(Path(folder), name))
            line = ", ".join(f"{name} {seconds[-1]:.1f} s" for name, seconds in results.items())
            print(f"start, round {number + 1} of {settings.rounds}: {line}", file=sys.stderr)
        ratio = rounds.ratio(results["warm"], results["cold"])
        body = [[name, f"{median(seconds):.1f}", rounds.spread(seconds)] for name, seconds in results.items()]
        print(render(["cache", "median, s", "median (min - max)"], body), f"\nwarm over cold: {ratio:.2f}")
        record["config"] = {"rounds": settings.rounds}
        record["results"] = results | {"ratio": ratio}


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
