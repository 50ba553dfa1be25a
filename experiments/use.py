"""Use of a fitted model: draw, encode, score, complete and change rows, or predict their labels.

    python -m experiments.use generate runs/fit_diamonds --count 100 --condition cut=Ideal --condition carat=0.7
    python -m experiments.use encode runs/fit_diamonds diamonds.csv
    python -m experiments.use score runs/fit_diamonds diamonds.csv
    python -m experiments.use impute runs/fit_penguins penguins.csv --draws 20
    python -m experiments.use counterfactual runs/fit_penguins penguins.csv --set sex=female
    python -m experiments.use predict runs/fit_penguins penguins.csv species
    python -m experiments.use counterfactual runs/fit_birds birds/ --set species=owl

RUN is the folder of a fitted model, of any experiment or of `cvae.save`. FILE is of the kind that it was fitted to: a
table (.csv, .parquet, or a folder of .parquet files), arrays (.npz, .npy, or a folder of .npy files) or a folder of
images with their labels.csv, conditions by their names. What is written is in the form of FILE, with a row or image for
each of FILE; results on a folder of images are a table. Where FILE is the very data of the fit, the results have a
column `part` (train, validation or test), and the summary that is printed is of the test part; not so where the fit was
with `--stream`. The same functions are `cvae.use` in Python.
"""

from __future__ import annotations

import dataclasses
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
from cvae.classification import labels_of
from cvae.config import Architecture
from cvae.data import split_rows
from cvae.rows import required
from cvae.settings import Count, CountOrZero, NonNegative, Seed, from_json, replace, setting
from cvae.tables import SUFFIXES
from experiments.harness import cli, files, outputs
from experiments.harness.user_data import Input

LOWEST = 5  # rows that the report of `score` shows
Assignments = Annotated[tuple[str, ...], tyro.conf.UseAppendAction]


@setting
class Settings:
    """Options that every command has."""

    run: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """folder of a fitted model"""
    out: Path | None = field(default=None, kw_only=True)
    """file to write, or folder of images; None is one in RUN/use"""
    model: str | None = field(default=None, kw_only=True)
    """which of the run's models; None is the first"""
    seed: Seed = field(default=0, kw_only=True)
    """source of all randomness"""


@setting
class OfFile(Settings):
    """Options of a command that reads a file."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """the rows: .csv or .parquet for a model of a table; .npz, .npy, or a folder of .npy files or of images, for one of
    arrays"""
    x: str | None = field(default=None, kw_only=True)
    """name of the array of examples in an .npz file; None is that of the fit, or the only one of their shape"""


@setting
class Generate(Settings):
    """Draw rows or images of p(x | c)."""

    count: Count = field(default=100, kw_only=True)
    """how many"""
    condition: Assignments = field(default=(), kw_only=True)
    """NAME=VALUE, such as cut=Ideal; may be repeated; an optional condition may be left out"""
    given: Path | None = field(default=None, kw_only=True)
    """file of conditions, each row of which gives one drawn row, in place of --count; --condition comes before it"""
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
    """What the rows would be under another condition, each as unusual in its latents as it is now."""

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
    """Carry out a command; returns the path of what it wrote."""
    model, params = _load(settings)
    architecture = model.architecture
    assert architecture is not None
    recorded = files.Recorded.of(settings.run)
    source = settings.given if isinstance(settings, Generate) else settings.file
    if source is not None:
        files.check_kind(architecture, source)
    if isinstance(settings, Impute):
        hint = " (images are completed by generate --given, after a fit with --condition image=MASK)"
        rule = "be fitted to data with missing cells, or with --hide-prob 0.1, to fill in others"
        rule += hint * (len(architecture.event_shape) == 3)
        holds = isinstance(architecture.likelihood, cvae.Missing)
        checks.require(holds, str(settings.run), rule, "a model of data without")
    out = settings.out or _usual_out(settings, architecture, recorded)
    outputs.check(out, _suffixes(settings, architecture), source, replace=settings.out is None)
    if isinstance(settings, Impute):
        for part in ("cells", "draws"):
            outputs.check(_beside(out, part), (out.suffix,), source)
    data = files.Examples(None, name=recorded.x or "x")
    if isinstance(settings, OfFile):
        without = settings.column if isinstance(settings, Predict) else None
        options: Any = {"x": settings.x, "recorded": recorded, "seed": settings.seed}
        data = files.read(architecture, settings.file, without=without, **options)
    if isinstance(settings, Encode | Score | Predict):
        data = data._replace(part=part_of(settings.run, settings.file, len(data.x)))
    COMMANDS[type(settings)](settings, out, model, params, jax.random.key(settings.seed), data)
    return out


def _load(settings: Settings) -> tuple[cvae.CVAE, Any]:
    """The model and its parameters; a sweep has many, of which one must be named."""
    run, name = settings.run, settings.model
    if not (run / "config.json").is_file() and not (run / "architecture.json").is_file():
        others = sorted(path.parent for folder in (run, run.parent) for path in folder.glob("*/config.json"))
        hint = f", such as {others[0]}" if others else " (experiments.fit makes one)"
        got = "another folder" if run.is_dir() else "no such folder"
        checks.require(False, str(run), f"be the folder of a fitted model{hint}", got)
    if (run / "config.json").is_file():
        config = cvae.runs.read_config(run)
        names = list(config.models)
        if config.sweep is not None:
            members = sorted(run.glob("params/*/[!.]*"))
            names = [path.relative_to(run / "params").as_posix() for path in members]
        usual = name is None and (config.sweep is None or not names)
        rule = f"name a model of {run}, such as --model {names[0] if names else ''}"
        got = f"none of the {len(names)} of the sweep" if name is None else name
        checks.require(usual or name in names, "--model", rule, got)
    return cvae.load(run, name)


def part_of(run: Path, file: Path, count: int) -> np.ndarray | None:
    """The part of the fit that each of the rows of a file was in, as words [count]; None if it holds other data."""
    from experiments import fit

    summary = cvae.runs.read_summary(run) if (run / "summary.json").is_file() else {}
    if summary.get("experiment") != "fit" or sum(summary.get("examples", {}).values()) != count:
        return None
    if summary["settings"].get("stream"):  # which splits otherwise
        return None
    names = {each.name for each in dataclasses.fields(Input)}
    settings = {name: value for name, value in summary["settings"].items() if name in names}
    try:
        options = replace(from_json(Input, settings), data=file)
        same = cvae.runs.fingerprint(fit.load(options)) == summary["data"]
    except ValueError:  # such as that a column is absent
        return None
    part = np.empty(count, "<U10")
    for name, rows in split_rows(count, options.seed, options.validation, options.test)._asdict().items():
        part[rows] = name
    return part if same else None


def _usual_out(settings: Settings, architecture: Architecture, recorded: files.Recorded) -> Path:
    """RUN/use/FILE_COMMAND in the form of the file that is read, or else of that which the model was fitted to."""
    command, source = type(settings).__name__.lower(), getattr(settings, "file", None)
    like = source or recorded.data or Path("rows.csv" if architecture.schema is not None else "rows.npz")
    if architecture.schema is not None:
        suffix = like.suffix if like.suffix in SUFFIXES else ".csv"
    elif isinstance(settings, Impute) or (like.suffix in files.ARRAYS and not like.is_dir()):
        suffix = ".npz"
    else:
        suffix = outputs.FOLDER if isinstance(settings, Generate | Counterfactual) else ".csv"
    if isinstance(settings, Predict):
        command = f"{command}_{settings.column}"
    if source is not None:
        command = f"{source.resolve().name if source.is_dir() else source.stem}_{command}"
    name = command.replace(".", "_") if suffix == outputs.FOLDER else command  # what follows a point is a suffix
    return settings.run / "use" / f"{name}{suffix}"


def _suffixes(settings: Settings, architecture: Architecture) -> tuple[str, ...]:
    """The suffixes that what a command writes may have."""
    if architecture.schema is not None:
        return SUFFIXES
    if isinstance(settings, Encode | Score | Predict):
        return (".npz", *SUFFIXES)
    channels = architecture.event_shape[-1] if len(architecture.event_shape) == 3 else 0
    if isinstance(settings, Impute) or channels not in (1, 3):
        return (".npz",)
    return (".npz", ".png", outputs.FOLDER) if channels == 1 else (".npz", outputs.FOLDER)


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
    labels = labels_of(architecture.condition)
    for name, spec in architecture.condition.spec.items():
        if name in values and not (name in labels and labels[name].categories):
            array = spec.kind in ("pixels", "mask")
            rule = "be a label or a number (--given names a file of images)"
            checks.require(not array, "--condition", rule, f"the image {name!r}")
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
    print(outputs.preview(rows) + (f"\n\n{text}" if text else ""))
    print(f"\n{outputs.count(rows)}: {out}")


# The commands


def generate(settings: Generate, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write rows under a condition."""
    architecture = model.architecture
    assert architecture is not None
    given: dict[str, Any] = dict(assignments("--condition", settings.condition, architecture.condition.spec))
    conditions, count = _typed(architecture, given), settings.count
    if settings.given is not None:
        checks.require(settings.count == Generate.count, "--count", "be left out with --given", settings.count)
        recorded = files.Recorded.of(settings.run)
        held = files.read_conditions(architecture, settings.given, given, recorded=recorded, seed=settings.seed)
        conditions, count = conditions | dict(held.c), len(next(iter(held.c.values())))
        data = data._replace(table=held.table, names=held.names)
    is_known = given.keys() <= architecture.condition.spec.keys()  # else `use.generate` refuses it
    absent = required(architecture, conditions) if is_known else {}
    images = [name for name in absent if architecture.condition.spec[name].kind in ("pixels", "mask")]
    rule = "name a file or folder of images to complete: the model is conditioned on a part of each"
    checks.require(not images, "--given", rule, "none")
    example = " ".join(f"--condition {name}={value}" for name, value in absent.items())
    rule = f"be given for {', '.join(absent)}, such as {example}"
    checks.require(not absent, "--condition", rule, list(given) or "none")
    options: dict[str, Any] = {"mean": settings.mean, "temperature": settings.temperature}
    rows = outputs.rows(data, out, use.generate(model, params, key, count, conditions, progress=True, **options))
    outputs.write(out, rows)
    _report(out, rows)


def encode(settings: Encode, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the moments of the posterior."""
    rows = outputs.results(data, out, use.encode(model, params, key, data.x, data.c, progress=True))
    outputs.write(out, rows)
    _report(out, rows)


def score(settings: Score, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the score of every row; print the least probable ones."""
    found = use.score(model, params, key, data.x, data.c, num_samples=settings.samples, progress=True)
    rows = outputs.results(data, out, found)
    outputs.write(out, rows)
    nats = np.asarray(rows["log_likelihood"])
    chosen, of_which = data.reported(len(nats))
    mean = cvae.evaluation.mean(nats[chosen])
    text = f"log p(x | c), a lower bound: {mean.value:.2f} ± {mean.standard_error:.2f} nats per row{of_which}"
    lowest = np.argsort(nats, kind="stable")[:LOWEST]
    if isinstance(rows, pl.DataFrame):
        wanted = [data.names, "log_likelihood", "standard_error", "effective_samples", "unusual"]
        shown = rows[lowest].select(name for name in wanted if name in rows.columns)
        shown = shown.insert_column(0, pl.Series("row", lowest))
        print(f"the least probable rows\n\n{outputs.preview(shown)}\n\n{text}\n\n{outputs.count(rows)}: {out}")
    else:
        _report(out, rows, f"{text}\nleast probable rows: {', '.join(map(str, lowest))}")


def impute(settings: Impute, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the completed rows, the missing cells and, if wanted, completed copies."""
    options: dict[str, Any] = {"num_draws": max(1, settings.draws), "num_samples": settings.samples}
    done = use.impute(model, params, key, data.x, data.c, progress=True, **options)
    written = {out: outputs.rows(data, out, done.rows), _beside(out, "cells"): done.cells}
    if settings.draws > 0:
        written[_beside(out, "draws")] = outputs.rows(data, out, done.draws)
    for path, part in written.items():
        outputs.write(path, part)
    print(outputs.preview(done.cells))
    effective = np.asarray(done.cells["effective_samples"])
    print(f"\n{np.nanmean(effective):.0f} of {settings.samples} samples effective, at least {np.nanmin(effective):.0f}")
    for name, cells in _missing_conditions(model, data).items():
        print(f"{cells} cells of the condition {name} are missing, and stay so")
    print("rows with the missing cells of modelled columns filled in: " + ", ".join(map(str, written)))


def _missing_conditions(model: cvae.CVAE, data: files.Examples) -> dict[str, int]:
    """How many cells are missing of each condition of a table."""
    schema = model.architecture.schema if model.architecture else None
    names = [] if schema is None else [column.name for column in schema.conditions if column.name in data.x.columns]
    return {name: count for name in names if (count := data.x[name].null_count()) > 0}


def counterfactual(
    settings: Counterfactual, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples
) -> None:
    """Write the rows under other conditions."""
    assert model.architecture is not None
    specs = model.architecture.condition.spec
    changes = assignments("--set", settings.changes, specs)
    settable = [name for name, spec in specs.items() if spec.kind not in ("pixels", "mask")]
    rule = "be conditioned on a label or a number, which --set changes"
    checks.require(len(settable) > 0, str(settings.run), rule, "a model without")
    for name in changes or ["none"]:
        checks.require(name in settable, "--set", f"change one of {', '.join(settable)}", name)
    conditions = _typed(model.architecture, changes)
    found = use.counterfactual(model, params, key, data.x, data.c, conditions, mean=settings.mean, progress=True)
    rows = outputs.rows(data, out, found)
    outputs.write(out, rows)
    _report(out, rows)


def predict(settings: Predict, out: Path, model: cvae.CVAE, params: Any, key: Any, data: files.Examples) -> None:
    """Write the probabilities of a label; print how often each value is predicted, and how often rightly."""
    assert model.architecture is not None
    options: dict[str, Any] = {"column": settings.column, "prior": settings.prior, "num_samples": settings.samples}
    found = use.predict(model, params, key, data.x, data.c, progress=True, **options)
    words = labels_of(model.architecture.condition)[settings.column].categories
    rows = outputs.results(data, out, found, words)
    outputs.write(out, rows)
    predicted = pl.Series("predicted", found["predicted"]).cast(pl.String)
    counts = predicted.value_counts().sort("predicted").iter_rows()
    text = "predicted: " + ", ".join(f"{value} {count:,}" for value, count in counts)
    if (truth := data.values(settings.column)) is not None:
        chosen, of_which = data.reported(len(predicted))
        right = (truth == predicted).filter(pl.Series(chosen)).drop_nulls()
        text += f"; {right.to_numpy().mean():.1%} of the {len(right):,} known values{of_which}" if len(right) else ""
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
