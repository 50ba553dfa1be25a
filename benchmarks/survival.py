"""Runs that are killed and repeated until they finish, beside one that was never interrupted: are they the same bits?

    python -m benchmarks.survival                  # 50 runs, some twenty minutes
    python -m benchmarks.survival --runs 3         # a short one

Every run is the article's experiment on the digits, killed by SIGKILL at a random instant of the time it takes, every
third at two of them, and called again until it ends. Compared are the parameters, bit by bit, the metrics and the
summary, without times. Prints the count, and exits with code 1 if one differs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import cvae
from experiments import command

ROOT = Path(__file__).resolve().parent.parent
Result = tuple[Any, Any, dict[str, np.ndarray]]  # metrics, summary, parameters
TIMES = ("seconds", "examples_per_second", "date")


@dataclass(frozen=True)
class Settings:
    """Options."""

    runs: int = 50
    """how many are killed"""
    epochs: int = 40
    """of each of the two models"""
    seed: int = 0
    """of the instants"""
    out: Path = Path("results/benchmark_survival.json")
    """JSON file to write"""


def options(out: Path, epochs: int) -> list[str]:
    """Of the experiment."""
    return ["--dataset", "digits", "--smoke", "--epochs", str(epochs), "--save-every", "1", "--out", str(out)]


def start(out: Path, epochs: int, cache: Path) -> subprocess.Popen[bytes]:
    """Begin a run, or go on with it."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": str(ROOT),
    }
    arguments = [sys.executable, "-m", "experiments.mnist_label", *options(out, epochs)]
    return subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for its end, which must be a good one."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a run ended with code {process.returncode}:\n{errors.decode()}")


def without_times(data: Any) -> Any:
    """What of a summary or of a line of metrics must be equal."""
    if isinstance(data, dict):
        return {name: without_times(value) for name, value in data.items() if name not in TIMES}
    return data


def result(out: Path) -> Result:
    """All that a run came to: metrics, summary, parameters."""
    metrics = [without_times(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]
    summary = without_times(json.loads((out / "summary.json").read_text()))
    params: dict[str, np.ndarray] = {}
    for name in cvae.runs.read_config(out).models:
        found = cvae.checkpoints.leaves(cvae.load(out, name)[1])
        params |= {f"{name}{leaf}": np.asarray(value) for leaf, value in found.items()}
    return metrics, summary, params


def difference(one: Result, two: Result) -> str | None:
    """The first thing in which two results differ, None if in nothing."""
    for name, there, here in zip(("metrics", "summary"), one[:2], two[:2], strict=True):
        if there != here:
            return name
    for name, leaf in one[2].items():
        if leaf.tobytes() != two[2][name].tobytes():
            return name
    return None


def main(settings: Settings) -> int:
    """Run, kill, repeat, compare; returns how many were the same."""
    cvae.checks.whole_number("--runs", settings.runs)
    cvae.checks.whole_number("--epochs", settings.epochs)
    cvae.checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    random_, provenance = random.Random(settings.seed), cvae.runs.provenance()
    same, kills = 0, 0
    with tempfile.TemporaryDirectory() as folder:
        cache, whole = Path(folder) / "cache", Path(folder) / "whole"
        finish(start(Path(folder) / "first", settings.epochs, cache))  # compiles
        began = time.perf_counter()
        finish(start(whole, settings.epochs, cache))
        takes = time.perf_counter() - began
        expected = result(whole)
        for number in range(1, settings.runs + 1):
            out = Path(folder) / str(number)
            killed: list[str] = []
            while len(killed) < (2 if number % 3 == 0 else 1):
                process, instant = start(out, settings.epochs, cache), random_.uniform(0, takes)
                try:
                    process.wait(instant)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
                    process.communicate()
                    killed.append(f"{instant:.1f} s")
                else:  # it ended before, which is to be tried again
                    shutil.rmtree(out)
                    killed = []
            finish(start(out, settings.epochs, cache))
            found = difference(expected, result(out))
            same, kills = same + (found is None), kills + len(killed)
            words = "the same" if found is None else f"other {found}"
            print(f"{number}: killed after {', '.join(killed)}: {words}", flush=True)
    print(f"{same} of {settings.runs} bit-identical, {kills} killed in the middle")
    config = {"runs": settings.runs, "epochs": settings.epochs, "seed": settings.seed}
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"runs": settings.runs, "kills": kills, "same": same, "seconds_a_run": takes}
    record = {"benchmark": "survival", "config": config, "results": results}
    cvae.runs.write_json(settings.out, record | provenance)
    if same < settings.runs:
        sys.exit(1)
    return same


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
