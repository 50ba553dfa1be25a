"""Use of a fitted model: draw, encode, score, complete and change rows, or predict their labels.

    python -m experiments.use generate runs/fit_diamonds --count 100 --condition cut=Ideal --condition carat=0.7
    python -m experiments.use encode runs/fit_diamonds diamonds.csv
    python -m experiments.use score runs/fit_diamonds diamonds.csv
    python -m experiments.use impute runs/fit_penguins penguins.csv --draws 20
    python -m experiments.use counterfactual runs/fit_penguins penguins.csv --set sex=female
    python -m experiments.use predict runs/fit_penguins penguins.csv species

RUN is the folder of a fitted model, of any experiment or of `cvae.save`. FILE is of the kind that it was fitted to: a
table (.csv or .parquet), or arrays (.npz), conditions by their names. What is written is of the same kind, with a row
for every row of FILE. The same functions are `cvae.use` in Python.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import polars as pl
import tyro

import cvae
from cvae import checks, use
from cvae.config import Architecture
from cvae.rows import known, required
from cvae.settings import Count, CountOrZero, NonNegative, Seed, setting
from cvae.tables import SUFFIXES
from experiments.harness import cli, files

LOWEST = 5  # rows that the report of `score` shows
Assignments = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@setting
class Settings:
    """Options that every command has."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """folder of a fitted model"""
    out: Path | None = field(default=None, kw_only=True)
    """file to write; None is a file in RUN/use"""
    model: str | None = field(default=None, kw_only=True)
    """which of the run's models; None is the first"""
    seed: Seed = field(default=0, kw_only=True)
    """source of all randomness"""


@setting
class OfFile(Settings):
    """Options of a command that reads a file."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """the rows: .csv or .parquet for a model of a table, .npz for one of arrays"""
    x: str | None = field(default=None, kw_only=True)
    """name of the array of examples in an .npz file; None if only one has their shape"""


@setting
class Generate(Settings):
    """Draw rows or images of p(x | c)."""

    count: Count = field(default=100, kw_only=True)
    """how many"""
    condition: Assignments = field(default=(), kw_only=True)
    """NAME=VALUE, such as cut=Ideal; may be repeated; an optional condition may be left out"""
    given: Path | None = field(default=None, kw_only=True)
    """table of conditions, of which each row gives one drawn row, in place of --count; --condition comes before it"""
    mean: bool = field(default=False, kw_only=True)
    """means of p(x | z, c) in place of draws"""
    temperature: NonNegative = field(default=1.0, kw_only=True)
    """factor on the standard deviation of z: 0 is the mean of the prior, above 1 rows become unusual"""


@setting
class Encode(OfFile):
    """Mean and standard deviation of q(z | x, c) of every row."""


@setting
class Score(OfFile):
    """log p(x | c) of every row, with its standard error, and the columns that make it improbable."""

    samples: Count = field(default=500, kw_only=True)
    """importance samples per row"""


@setting
class Impute(OfFile):
    """Fill in missing cells by p(missing | observed, c): a mean and a 90 % interval each."""

    samples: Count = field(default=500, kw_only=True)
    """importance samples per row"""
    draws: CountOrZero = field(default=0, kw_only=True)
    """completed copies of every row to write too"""


@setting
class Counterfactual(OfFile):
    """What the rows would be under another condition, with the same z."""

    changes: Annotated[Assignments, tyro.conf.arg(name="set")] = field(default=(), kw_only=True)
    """NAME=VALUE, such as sex=female; may be repeated; the other conditions stay as they are"""
    mean: bool = field(default=False, kw_only=True)
    """means of p(x | z, c) in place of draws"""


@setting
class Predict(OfFile):
    """p(label | x) of every row, by Bayes' rule, of a label that the model is conditioned on."""

    column: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="COLUMN")]
    """name of the label; FILE need not hold it"""
    samples: Count = field(default=100, kw_only=True)
    """importance samples per row and value"""
    prior: Literal["training", "uniform"] = field(default="training", kw_only=True)
    """p(label): its frequencies in the training part, where they are known, or uniform"""


Command = (
    Annotated[Generate, tyro.conf.subcommand("generate")]
    | Annotated[Encode, tyro.conf.subcommand("encode")]
    | Annotated[Score, tyro.conf.subcommand("score")]
    | Annotated[Impute, tyro.conf.subcommand("impute")]
    | Annotated[Counterfactual, tyro.conf.subcommand("counterfactual")]
    | Annotated[Predict, tyro.conf.subcommand("predict")]
)


def execute(settings: Any) -> Path:
    """Carry out a command; returns the path of the file that it wrote."""
    model, params = cvae.load(settings.run, settings.model)
    architecture = model.architecture
    assert architecture is not None
    source = getattr(settings, "file", None)
    if source is not None:
        files.check_kind(architecture, source)
    out = settings.out or _usual_out(settings, architecture)
    files.check_out(out, _suffixes(settings, architecture), source)
    if isinstance(settings, Impute):
        for part in ("cells", "draws"):
            files.check_out(_beside(out, part), (out.suffix,), source)
    data = files.Examples(None, name=files.summary_settings(settings.run).get("x") or "x")
    if source is not None:
        without = settings.column if isinstance(settings, Predict) else None
        data = files.read(architecture, source, settings.x, without)
    COMMANDS[type(settings)](settings, out, model, params, jax.random.key(settings.seed), data)
    return out


def _usual_out(settings: Settings, architecture: Architecture) -> Path:
    """RUN/use/FILE_COMMAND in the form of the file that the model was fitted to, or that is read."""
    command = type(settings).__name__.lower()
    source = getattr(settings, "file", None)
    if source is not None:
        return settings.run / "use" / f"{source.stem}_{command}{source.suffix}"
    fitted = Path(str(files.summary_settings(settings.run).get("data", "rows.csv"))).suffix
    suffix = ".npz" if architecture.schema is None else fitted if fitted in SUFFIXES else ".csv"
    return settings.run / "use" / f"{command}{suffix}"


def _suffixes(settings: Settings, architecture: Architecture) -> tuple[str, ...]:
    if architecture.schema is not None:
        return SUFFIXES
    drawable = isinstance(settings, Generate | Counterfactual) and len(architecture.event_shape) == 3
    return (".npz", ".png") if drawable and architecture.event_shape[-1] == 1 else (".npz",)


def _beside(out: Path, part: str) -> Path:
    return out.with_name(f"{out.stem}_{part}{out.suffix}")


def assignments(option: str, texts: tuple[str, ...], names: Collection[str]) -> dict[str, Any]:
    """The values of NAME=VALUE by name; a list of numbers, 1.5,2, is one value of a condition of several.

    A name may hold = itself: the longest of `names` that fits is meant.

    Raises:
        ValueError: one is written otherwise, or a name comes twice.
    """
    found: dict[str, Any] = {}
    for text in texts:
        fitting = [name for name in names if text.startswith(f"{name}=")]
        name = max(fitting, key=len, default=text.partition("=")[0])
        value = text.removeprefix(name)[1:]
        checks.require(bool(name and value), option, "be NAME=VALUE, such as cut=Ideal", repr(text))
        checks.require(name not in found, option, "give every condition once", f"{name!r} twice")
        found[name] = value
    return found


def _typed(architecture: Architecture, values: dict[str, str]) -> dict[str, Any]:
    """Values from the command line as numbers, for a model of arrays; a schema reads words by itself."""
    if architecture.schema is not None:
        return dict(values)
    found: dict[str, Any] = {}
    for name, spec in architecture.condition.spec.items():
        if name in values:
            array = spec.kind in ("pixels", "mask")
            checks.require(not array, "condition", "be a label or a number on the command line", f"the image {name!r}")
            try:
                numbers = [float(part) for part in values[name].split(",")]
            except ValueError:
                raise ValueError(f"condition {name!r} must be a number, got {values[name]!r}") from None
            whole = spec.kind != "integer" or all(number == round(number) for number in numbers)
            checks.require(whole, f"condition {name!r}", "be a whole number", values[name])
            found[name] = [int(n) for n in numbers] if spec.kind == "integer" else numbers
            found[name] = np.array(found[name]).reshape(-1) if spec.shape else found[name][0]
    return found | {name: value for name, value in values.items() if name not in found}


def _report(out: Path, rows: Any, text: str = "") -> None:
    print(files.preview(rows) + (f"\n\n{text}" if text else ""))
    count = len(rows) if isinstance(rows, pl.DataFrame) else len(next(iter(rows.values())))
    print(f"\n{count:,} rows: {out}")


def _given(settings: Generate, architecture: Architecture, conditions: dict[str, Any]) -> dict[str, pl.Series] | None:
    """The columns of the table of conditions that --condition does not give; None without such a table."""
    if settings.given is None:
        return None
    rule = "be left out for a model of arrays, or without conditions"
    checks.require(architecture.schema is not None and architecture.condition.spec, "--given", rule, settings.given)
    assert architecture.schema is not None
    table = architecture.schema.read(settings.given)
    wanted = [name for name in architecture.condition.spec if name not in conditions]
    absent = [name for name in wanted if name not in table.columns]
    checks.require(not absent, "--given", f"be a table with the columns {wanted}", f"none named {absent}")
    checks.require(len(wanted) > 0, "--given", "have a condition that --condition does not give", "none")
    return {name: table[name] for name in wanted}


# The commands


def generate(settings: Generate, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write rows under a condition."""
    assert model.architecture is not None
    given: dict[str, Any] = dict(assignments("--condition", settings.condition, model.architecture.condition.spec))
    table = _given(settings, model.architecture, given)
    absent = required(model.architecture, given | (table or {}))
    example = " ".join(f"--condition {name}={value}" for name, value in absent.items())
    checks.require(
        not absent, "--condition", f"be given for {', '.join(absent)}, such as {example}", list(given) or "none"
    )
    conditions, count = _typed(model.architecture, given), settings.count
    if table is not None:
        conditions, count = conditions | table, len(next(iter(table.values())))
    options: dict[str, Any] = {"mean": settings.mean, "temperature": settings.temperature}
    rows = data.as_file(use.generate(model, params, key, count, conditions, progress=True, **options))
    files.write(out, rows)
    _report(out, rows)


def encode(settings: Encode, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the moments of the posterior."""
    rows = use.encode(model, params, key, data.x, data.c, progress=True)
    files.write(out, rows)
    _report(out, rows)


def score(settings: Score, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the score of every row; print the least probable ones."""
    rows = use.score(model, params, key, data.x, data.c, num_samples=settings.samples, progress=True)
    files.write(out, rows)
    nats = np.asarray(rows["log_likelihood"])
    mean = cvae.evaluation.mean(nats)
    text = f"log p(x | c), a lower bound: {mean.value:.2f} ± {mean.standard_error:.2f} nats per row"
    lowest = np.argsort(nats, kind="stable")[:LOWEST]
    if isinstance(rows, pl.DataFrame):
        shown = rows[lowest].select("log_likelihood", "standard_error", "effective_samples", "unusual")
        shown = shown.insert_column(0, pl.Series("row", lowest))
        print(f"the least probable rows\n\n{files.preview(shown)}\n\n{text}\n\n{len(rows):,} rows: {out}")
    else:
        _report(out, rows, f"{text}\nleast probable rows: {', '.join(map(str, lowest))}")


def impute(settings: Impute, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the completed rows, the missing cells and, if wanted, completed copies."""
    options: dict[str, Any] = {"num_draws": max(1, settings.draws), "num_samples": settings.samples}
    done = use.impute(model, params, key, data.x, data.c, progress=True, **options)
    written = {out: data.as_file(done.rows), _beside(out, "cells"): done.cells}
    if settings.draws > 0:
        written[_beside(out, "draws")] = data.as_file(done.draws)
    for path, part in written.items():
        files.write(path, part)
    print(files.preview(done.cells))
    effective = np.asarray(done.cells["effective_samples"])
    print(f"\n{np.nanmean(effective):.0f} of {settings.samples} samples effective, at least {np.nanmin(effective):.0f}")
    print("rows with their missing cells filled in: " + ", ".join(map(str, written)))


def counterfactual(
    settings: Counterfactual, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples
) -> None:
    """Write the rows under other conditions."""
    assert model.architecture is not None
    changes = assignments("--set", settings.changes, model.architecture.condition.spec)
    for name in changes:
        checks.require(
            name in model.architecture.condition.spec, "--set", f"name one of {known(model.architecture)}", name
        )
    conditions = _typed(model.architecture, changes)
    found = use.counterfactual(model, params, key, data.x, data.c, conditions, mean=settings.mean, progress=True)
    rows = found if out.suffix == ".png" else data.as_file(found)
    files.write(out, rows)
    _report(out, rows)


def predict(settings: Predict, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the probabilities of a label; print how often each value is predicted."""
    options: dict[str, Any] = {"column": settings.column, "prior": settings.prior, "num_samples": settings.samples}
    rows = use.predict(model, params, key, data.x, data.c, progress=True, **options)
    files.write(out, rows)
    values, counts = np.unique(np.asarray(rows["predicted"]).astype(str), return_counts=True)
    text = "predicted: " + ", ".join(f"{value} {count:,}" for value, count in zip(values, counts, strict=True))
    if isinstance(rows, pl.DataFrame) and settings.column in data.x.columns:
        known = data.x[settings.column].cast(pl.String)
        right = (known == rows["predicted"].cast(pl.String)).drop_nulls()
        text += f"; {right.mean():.1%} of the {len(right):,} known values" if len(right) else ""
    _report(out, rows, text)


COMMANDS: dict[type, Any] = {
    Generate: generate,
    Encode: encode,
    Score: score,
    Impute: impute,
    Counterfactual: counterfactual,
    Predict: predict,
}


@cli.naming(conditions="--set", column="COLUMN", x="FILE", name="--model")
def main() -> None:
    """The command line."""
    execute(cli.options(Command, __doc__))  # type: ignore[arg-type]


if __name__ == "__main__":
    cli.protected(main)
