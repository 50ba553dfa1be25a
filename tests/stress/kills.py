"""Runs that are killed and resumed, compared bit by bit with one that was never interrupted.

    python -m tests.stress.kills                  # 50 runs, about twenty minutes
    python -m tests.stress.kills --runs 3         # a short trial

Every run is the article's experiment on the digits, killed by SIGKILL at a random instant of its duration, every third
one at two, and called again until it ends. Compared are the parameters, and the metrics and the summary without times.
Exits with code 1 if a run differs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import cvae
from cvae.settings import Count, Seed
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

NOT_COMPARED = ("seconds", "examples_per_second", "date", "commit")  # the repository may change between two runs


@cvae.setting
class Settings:
    """Options."""

    runs: Count = 50
    """how many are killed"""
    epochs: Count = 40
    """of each of the two models"""
    seed: Seed = 0
    """of the instants"""
    out: Path = Path("results/stress_kills.json")
    """JSON file to write"""


class Result(NamedTuple):
    """What a run leaves, without times."""

    metrics: list[Any]
    summary: Any
    params: dict[str, np.ndarray]


def start(out: Path, epochs: int, cache: Path) -> subprocess.Popen[bytes]:
    """Start a run, or resume it."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    arguments = ["--dataset", "digits", "--smoke", "--epochs", str(epochs), "--save-every", "1", "--no-figures"]
    command = [sys.executable, "-m", "experiments.mnist_label", *arguments, "--out", str(out)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a run, which must be without an error."""
    _, errors = process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"a run ended with code {process.returncode}:\n{errors.decode()}")


def without_times(data: Any) -> Any:
    """The part of a summary or of a line of metrics that must be equal."""
    if isinstance(data, dict):
        return {name: without_times(value) for name, value in data.items() if name not in NOT_COMPARED}
    return data


def result(out: Path) -> Result:
    """Read what a run left."""
    metrics = [without_times(json.loads(line)) for line in (out / "metrics.jsonl").read_text().splitlines()]
    summary = without_times(json.loads((out / "summary.json").read_text()))
    params = {name: cvae.load(out, name)[1] for name in cvae.runs.read_config(out).models}
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return Result(metrics, summary, {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})


def difference(one: Result, two: Result) -> str | None:
    """The first part in which two results differ; None if they are identical."""
    for name in ("metrics", "summary"):
        if getattr(one, name) != getattr(two, name):
            return name
    return next((name for name, leaf in one.params.items() if leaf.tobytes() != two.params[name].tobytes()), None)


def kill(out: Path, epochs: int, cache: Path, instants: list[float]) -> bool:
    """Start a run as often as there are instants and kill it at each; False if it ended before one of them."""
    for instant in instants:
        process = start(out, epochs, cache)
        try:
            process.wait(instant)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
        else:
            process.communicate()
            return False
    return True


def main(settings: Settings) -> None:
    """Run, kill, resume and compare."""
    check_out(settings.out)
    rng, provenance = random.Random(settings.seed), cvae.runs.provenance()
    same = kills = 0
    with tempfile.TemporaryDirectory() as folder:
        cache, whole = Path(folder) / "cache", Path(folder) / "whole"
        finish(start(Path(folder) / "first", settings.epochs, cache))  # compiles
        began = time.perf_counter()
        finish(start(whole, settings.epochs, cache))
        duration, expected = time.perf_counter() - began, result(whole)
        for number in range(1, settings.runs + 1):
            out, times = Path(folder) / str(number), 2 if number % 3 == 0 else 1
            while not kill(out, settings.epochs, cache, instants := [rng.uniform(0, duration) for _ in range(times)]):
                shutil.rmtree(out)  # tried again at other instants
            finish(start(out, settings.epochs, cache))
            differs = difference(expected, result(out))
            same, kills = same + (differs is None), kills + times
            at = ", ".join(f"{instant:.1f} s" for instant in instants)
            print(f"{number}: killed after {at}: {'identical' if differs is None else f'{differs} differ'}", flush=True)
    print(f"{same} of {settings.runs} bit-identical, {kills} kills")
    config = {"runs": settings.runs, "epochs": settings.epochs, "seed": settings.seed}
    results = {"runs": settings.runs, "kills": kills, "same": same, "seconds_a_run": duration}
    write(settings.out, "kills", config, results, provenance)
    if same < settings.runs:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
