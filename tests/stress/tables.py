"""Fits of tables whose density is known: how near is log p(x | c), and how often do imputed intervals hold the truth?

    python -m tests.stress.tables                    # about ten minutes on two cores
    python -m tests.stress.tables --rows 2000        # a shorter trial

`gaussian` has eight real columns that depend linearly on three factors, on an age and on a sex, with a fifth of its
cells missing at random. `mixture` has a category, a count, a positive and a real column that depend on one of three
classes, whose probabilities depend on a label. Each is fitted by `experiments.fit` with its defaults. Scored are rows
that were not in the file, as many again: the mean of the fitted log p(x | c) less the exact one, in nats per row. That
difference is 0 at best. Exits with code 1 if one is below -0.15, or if 90 % intervals of the missing cells hold the
truth in less than 87 or more than 93 % of cases.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import polars as pl
from scipy import special, stats

import cvae
from cvae.settings import Count, Seed
from experiments.harness.cli import options, protected
from tests.stress.record import ROOT, check_out, write

NEAR, COVERAGE, SLACK = 0.15, 0.9, 0.03
MISSING = 0.2  # share of the cells


@cvae.setting
class Settings:
    """Options."""

    rows: Count = 4000
    """rows of each file"""
    draws: Count = 200
    """imputations of each missing cell"""
    seed: Seed = 0
    """of the tables and the fits"""
    out: Path = Path("results/stress_tables.json")
    """JSON file to write"""


class Known(NamedTuple):
    """A table, its exact log density, and what is missing from it."""

    frame: pl.DataFrame  # with missing cells
    complete: pl.DataFrame
    conditions: tuple[str, ...]
    log_density: np.ndarray  # [N]  log p(x | c) of the cells that are there


def gaussian(rows: int, seed: int) -> Known:
    """Eight real columns given an age and a sex; a fifth of the cells is missing."""
    fixed, rng = np.random.default_rng(1), np.random.default_rng(seed)
    loadings, slopes = fixed.normal(size=(3, 8)), fixed.normal(size=(2, 8))
    scale, location = fixed.uniform(0.5, 20, 8), fixed.normal(size=8) * 30
    age, sex = rng.uniform(20, 80, rows), rng.integers(0, 2, rows)
    mean = np.stack([(age - 50) / 17, sex], axis=1) @ slopes
    covariance = loadings.T @ loadings + 0.09 * np.eye(8)
    x = rng.multivariate_normal(np.zeros(8), covariance, rows) + mean
    there = rng.random(x.shape) >= MISSING
    exact = np.zeros(rows)
    for n, known in enumerate(there):
        if known.any():
            block = covariance[np.ix_(known, known)]
            exact[n] = stats.multivariate_normal(mean[n, known], block).logpdf(x[n, known]) - np.log(scale[known]).sum()
    values = location + scale * x
    conditions = {"age": age, "sex": np.where(sex == 1, "female", "male")}
    complete = pl.DataFrame({f"x{k}": values[:, k] for k in range(8)} | conditions)
    cells = {f"x{k}": pl.Series(np.where(there[:, k], values[:, k], np.nan)).fill_nan(None) for k in range(8)}
    return Known(pl.DataFrame(cells | conditions), complete, ("age", "sex"), exact)


def mixture(rows: int, seed: int) -> Known:
    """A category, a count, a positive and a real column of three classes, given a label."""
    rng = np.random.default_rng(seed)
    weights = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6]])  # of the classes, for each label
    colours = np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])
    rates, centres = np.array([1.0, 6.0, 15.0]), np.array([[0.0, 2.0], [3.0, -1.0], [-3.0, 0.5]])
    label = rng.integers(0, 2, rows)
    kind = (rng.random(rows)[:, None] > weights[label].cumsum(axis=1)).sum(axis=1)
    colour = (rng.random(rows)[:, None] > colours[kind].cumsum(axis=1)).sum(axis=1)
    count, real = rng.poisson(rates[kind]), rng.normal(centres[kind, 0], 1.0)
    price = np.exp(rng.normal(centres[kind, 1], 0.5))
    joint = np.log(weights[label]) + np.log(colours[:, colour].T) + stats.poisson.logpmf(count[:, None], rates)
    joint += stats.norm.logpdf(real[:, None], centres[:, 0], 1.0)
    joint += stats.lognorm.logpdf(price[:, None], 0.5, scale=np.exp(centres[:, 1]))
    words = np.array(["blue", "green", "red"])
    columns = {"colour": words[colour], "visits": count, "price": price, "real": real}
    frame = pl.DataFrame(columns | {"arm": np.where(label == 1, "treated", "control")})
    return Known(frame, frame, ("arm",), special.logsumexp(joint, axis=1))


TABLES = {"gaussian": gaussian, "mixture": mixture}


def trial(name: str, settings: Settings, folder: Path) -> dict[str, Any]:
    """Fit a table by the command, and compare what it gives for new rows with the truth."""
    train, test = (TABLES[name](settings.rows, 2 * settings.seed + part) for part in (0, 1))
    path, out = folder / f"{name}.csv", folder / name
    train.frame.write_csv(path)
    conditions = [argument for condition in train.conditions for argument in ("--condition", condition)]
    command = [sys.executable, "-m", "experiments.fit", "--data", str(path), *conditions]
    subprocess.run([*command, "--out", str(out), "--seed", str(settings.seed)], check=True, cwd=ROOT)
    model, params = cvae.load(out)
    key = jax.random.key(settings.seed)
    scored = cvae.log_likelihood(model, params, key, test.frame, {}, num_samples=500, progress=True)
    gap = cvae.evaluation.mean(scored.value.astype(np.float64) - test.log_density)
    print(f"{name}: {gap.value:.3f} +- {gap.standard_error:.3f} nats from the exact density", flush=True)
    result = {"gap": gap._asdict(), "exact": float(test.log_density.mean())}
    if name == "gaussian":
        result["coverage"] = coverage(model, params, test, settings)
        print(f"{name}: {result['coverage']:.3f} of the missing cells in their 90 % interval", flush=True)
    return result


def coverage(model: cvae.CVAE, params: Any, known: Known, settings: Settings) -> float:
    """The share of missing cells whose truth lies within the central 90 % of their imputations."""
    x, c = model.architecture.schema.encode(known.frame)  # type: ignore[union-attr]
    truth, _ = model.architecture.schema.encode(known.complete)  # type: ignore[union-attr]
    assert x is not None
    key = jax.random.key(settings.seed + 1)
    draws = cvae.impute(model, params, key, x, c, num_draws=settings.draws).draws
    low, high = np.quantile(draws, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2], axis=1)
    missing = np.isnan(x)
    assert truth is not None
    return float(((low <= truth) & (truth <= high))[missing].mean())


def main(settings: Settings) -> None:
    """Fit, compare, and write the file."""
    check_out(settings.out)
    provenance, results = cvae.runs.provenance(), {}
    with tempfile.TemporaryDirectory() as folder:
        for name in TABLES:
            results[name] = trial(name, settings, Path(folder))
    config = {"rows": settings.rows, "draws": settings.draws, "seed": settings.seed}
    write(settings.out, "tables", config, results, provenance)
    far = [name for name, result in results.items() if result["gap"]["value"] < -NEAR]
    if far or abs(results["gaussian"]["coverage"] - COVERAGE) > SLACK:
        sys.exit(1)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="tests.stress")))
