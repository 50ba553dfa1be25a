"""Missing cells filled in by a CVAE, by scikit-learn's iterative imputer, and by its nearest neighbours.

    pip install -e '.[tables]'
    python -m benchmarks.imputation                    # three tables, about a quarter of an hour on two cores
    python -m benchmarks.imputation --tables penguins  # a short trial

Of the tables of `benchmarks.synthetic`, up to 10,000 rows in the order of a shuffle with seed 0, a fifth of the cells
are removed at random. Each method is fitted to these rows and fills them in: the CVAE by `experiments.fit` with its
defaults and without conditions, and then by `cvae.use.impute`. The others get categories one-hot, and the most probable
is taken; numbers are standardised for the neighbours.

The error of a column of numbers is the root mean square error of the removed cells in standard deviations of the
column, that of categories the share that is wrong; that of a table is the mean over its columns.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl

import cvae
from benchmarks import rounds
from benchmarks.synthetic import ROWS, TABLES, Name, call
from cvae.schema import Schema
from cvae.settings import Fraction, Seed
from experiments.harness.cli import options, protected


@cvae.setting
class Settings:
    """Options of the benchmark."""

    tables: tuple[Name, ...] = ("diamonds", "randhie", "penguins")
    """which tables"""
    missing: Fraction = 0.2
    """share of the cells that are removed"""
    seed: Seed = 0
    """of the cells that are removed, and of the CVAE"""
    out: Path = Path("results/benchmark_imputation.json")
    """JSON file to write"""


def removed(table: pl.DataFrame, share: float, seed: int) -> pl.DataFrame:
    """The table without a share of its cells."""
    rng = np.random.default_rng(seed)
    return table.with_columns(
        pl.when(pl.Series(rng.random(len(table)) < share)).then(None).otherwise(pl.col(name)).alias(name)
        for name in table.columns
    )


def impute_cvae(incomplete: pl.DataFrame, schema: Schema, seed: int) -> np.ndarray:
    """Fit and fill in by a CVAE, here a VAE: it is conditioned on nothing."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / "incomplete.csv", Path(folder) / "run"
        incomplete.write_csv(path)
        kinds = [text for column in schema.columns for text in ("--column", f"{column.name}={column.kind}")]
        fit = ["--data", str(path), *kinds, "--test", "0.05", "--no-figures", "--seed", str(seed), "--out", str(out)]
        call([sys.executable, "-m", "experiments.fit", *fit])
        model, params = cvae.load(out)
        rows = cvae.use.impute(model, params, jax.random.key(seed), incomplete, num_samples=200).rows
    return encoded(schema, rows)


def encoded(schema: Schema, table: pl.DataFrame) -> np.ndarray:
    """The cells as numbers, categories by the numbers of the complete table.  -> [N, D]."""
    x, _ = schema.encode(table)
    assert x is not None
    return x


def impute_other(imputer: Any, incomplete: pl.DataFrame, schema: Schema) -> np.ndarray:
    """Fill in by an imputer of scikit-learn, with categories one-hot and numbers standardised."""
    x = encoded(schema, incomplete)
    blocks, sizes = [], []
    for k, column in enumerate(schema.modelled):
        values = x[:, k]
        if column.is_label:
            one_hot = (values[:, None] == np.arange(len(column.categories))).astype(float)
            blocks.append(np.where(np.isnan(values)[:, None], np.nan, one_hot))
        else:
            blocks.append(((values - np.nanmean(values)) / np.nanstd(values))[:, None])
        sizes.append(blocks[-1].shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the iterations end before they converge
        filled = imputer.fit_transform(np.concatenate(blocks, axis=1))
    parts = np.split(filled, np.cumsum(sizes)[:-1], axis=1)
    columns = []
    for k, (column, part) in enumerate(zip(schema.modelled, parts, strict=True)):
        values = x[:, k]
        guess = part.argmax(axis=1) if column.is_label else part[:, 0] * np.nanstd(values) + np.nanmean(values)
        columns.append(np.where(np.isnan(values), guess, values))
    return np.stack(columns, axis=1)


def errors(schema: Schema, truth: np.ndarray, incomplete: np.ndarray, filled: np.ndarray) -> dict[str, float]:
    """The error of every column, over its removed cells."""
    found = {}
    for k, column in enumerate(schema.modelled):
        cells = np.isnan(incomplete[:, k]) & ~np.isnan(truth[:, k])
        wrong = filled[cells, k] - truth[cells, k]
        if column.is_label:
            found[column.name] = float(np.mean(wrong != 0))
        else:
            found[column.name] = float(np.sqrt(np.mean(wrong**2)) / np.nanstd(truth[:, k]))
    return found


def measure(name: str, settings: Settings) -> dict[str, Any]:
    """The errors of all methods on a table."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401  # scikit-learn asks for it
    from sklearn.impute import IterativeImputer, KNNImputer

    table = TABLES[name].load()
    table = table[np.random.default_rng(0).permutation(len(table))][:ROWS]
    schema, incomplete = cvae.schema.infer(table), removed(table, settings.missing, settings.seed)
    truth, cells = encoded(schema, table), encoded(schema, incomplete)
    methods: dict[str, Callable[[], np.ndarray]] = {
        "cvae": lambda: impute_cvae(incomplete, schema, settings.seed),
        "iterative": lambda: impute_other(IterativeImputer(random_state=0), incomplete, schema),
        "neighbours": lambda: impute_other(KNNImputer(), incomplete, schema),
    }
    results = {}
    for method, fill in methods.items():
        began = time.perf_counter()
        filled = fill()
        seconds = time.perf_counter() - began
        columns = errors(schema, truth, cells, filled)
        results[method] = {"error": float(np.mean(list(columns.values()))), "columns": columns, "seconds": seconds}
        print(f"{name}, {method}: error {results[method]['error']:.4f}, {seconds:.0f} s", flush=True)
    return results


def main(settings: Settings) -> None:
    """Measure, print and write the file."""
    with rounds.record(settings.out, "imputation") as found:
        results = {name: measure(name, settings) for name in settings.tables}
        found |= {"config": {"missing": settings.missing, "seed": settings.seed}, "results": results}


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
