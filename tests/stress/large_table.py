"""A table of a million rows and thirty columns: is it read, fitted and scored within 4 GB?

    python -m tests.stress.large_table                     # about half an hour on two cores
    python -m tests.stress.large_table --rows 50000        # a shorter trial

The table has real, positive, count, two-valued and categorical columns that depend on five factors, and 2 % of its
cells missing. Each step is a process of its own, whose peak of memory is measured: reading the file, `experiments.fit`
with its defaults, `experiments.use score` on the same file. Exits with code 1 if one needs more than 4 GB, or reading
more than 15 seconds.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

import cvae
from cvae.settings import Count, Seed
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

MOST_BYTES, MOST_SECONDS = 4e9, 15.0
MISSING = 0.02  # share of the cells
READ = "import sys, cvae.tables; cvae.tables.read_table(sys.argv[1])"


@cvae.setting
class Settings:
    """Options."""

    rows: Count = 1_000_000
    """rows of the table"""
    samples: Count = 20
    """importance samples per row of the scores"""
    seed: Seed = 0
    """of the table and the fit"""
    out: Path = Path("results/stress_large_table.json")
    """JSON file to write"""


def table(rows: int, seed: int) -> pl.DataFrame:
    """Thirty columns that depend on five factors: 14 real, 6 positive, 4 counts, 3 two-valued, 3 of words."""
    rng = np.random.default_rng(seed)
    factors = rng.normal(size=(rows, 5)).astype(np.float32)
    columns: dict[str, Any] = {}
    for k in range(30):
        signal = factors @ rng.normal(size=5).astype(np.float32) * 0.5
        if k < 14:
            values: Any = np.round(10 * k + signal + 0.3 * rng.normal(size=rows), 3)
        elif k < 20:
            values = np.round(np.exp(signal + 0.2 * rng.normal(size=rows)), 4) + 1e-4
        elif k < 24:
            values = rng.poisson(np.exp(0.5 * signal + 1))
        elif k < 27:
            values = np.where(rng.random(rows) < 1 / (1 + np.exp(-2 * signal)), "yes", "no")
        else:
            values = np.array(["red", "green", "blue", "black"])[np.digitize(signal, [-0.7, 0.0, 0.7])]
        missing = rng.random(rows) < (MISSING if k < 29 else 0)  # the last is a condition
        columns[f"c{k}"] = pl.Series(values).set(pl.Series(missing), None)
    return pl.DataFrame(columns)


def measured(name: str, command: list[str]) -> dict[str, float]:
    """Run a command; its seconds and its peak of memory in bytes."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), command)
    found = {"seconds": seconds, "bytes": usage.ru_maxrss * 1024.0}
    print(f"{name}: {seconds:.1f} s, {found['bytes'] / 1e9:.2f} GB", flush=True)
    return found


def main(settings: Settings) -> None:
    """Make the table, run the steps, and write the file."""
    check_out(settings.out)
    provenance = cvae.runs.provenance()
    with tempfile.TemporaryDirectory() as folder:
        path, run = str(Path(folder) / "large.csv"), str(Path(folder) / "run")
        table(settings.rows, settings.seed).write_csv(path)
        seed = ["--seed", str(settings.seed)]
        fit = ["-m", "experiments.fit", "--data", path, "--condition", "c29", "--out", run, *seed]
        score = ["-m", "experiments.use", "score", run, path, "--samples", str(settings.samples), *seed]
        steps = {"read": ["-c", READ, path], "fit": fit, "score": score}
        results = {name: measured(name, command) for name, command in steps.items()}
        results["file"] = {"bytes": float(Path(path).stat().st_size)}
    config = {"rows": settings.rows, "samples": settings.samples, "seed": settings.seed}
    write(settings.out, "large_table", config, results, provenance)
    large = any(results[name]["bytes"] > MOST_BYTES for name in steps)
    if large or results["read"]["seconds"] > MOST_SECONDS:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
