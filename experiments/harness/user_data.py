"""A user's own data as every part of a run takes it; `user_arrays` and `user_tables` make it of files."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import numpy as np
import tyro
from pydantic import Field

import cvae
from cvae import checks
from cvae.columns import Column
from cvae.config import parts_of
from cvae.data import Rows, split_rows
from cvae.schema import Schema
from cvae.streamed import on_disk
from experiments.harness.cli import RunSettings
from experiments.harness.run import Examples

MOST_LISTED = 8  # columns or categories that a note names

Repeated: Any = tyro.conf.UseAppendAction


@cvae.setting
class Input(RunSettings):
    """Which data, and how they are read."""

    data: Path = field(kw_only=True)
    """a table (.csv, .parquet), arrays (.npz, .npy), or a folder of images (.png, .jpg) with their labels.csv"""
    condition: Annotated[tuple[str, ...], Repeated] = ()
    """name of a column that is conditioned on; of arrays KIND=NAME, such as label=digit; may be repeated"""
    optional: Annotated[tuple[str, ...], Repeated] = ()
    """name of a column that is conditioned on and may be missing; may be repeated"""
    exposure: str | None = None
    """name of a column by which the means of counts are multiplied, such as a duration"""
    column: Annotated[tuple[str, ...], Repeated] = ()
    """NAME=KIND, a column's kind in place of the inferred one: real, positive, count, binary, categorical or omitted;
    may be repeated"""
    schema: Path | None = None
    """the schema.json of a run, for the kinds and roles of all columns"""
    x: str | None = None
    """name of the array to model in an .npz file; may be left out if only one will do"""
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """share of the examples that decides when to stop"""
    test: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """share of the examples that the results are computed from"""
    likelihood: Literal[
        "auto", "bernoulli", "continuous_bernoulli", "normal", "categorical_pixels", "discretized_logistic"
    ] = "auto"
    """of x, unless it is a table; auto chooses, and says what and why; the last two are of 8-bit pixels"""
    stream: bool = False
    """leave the data on disk and read what a step needs: an .npy file, a folder of NAME.npy or NAME/*.npy, a .parquet
    file, or a folder of them"""
    skip_damaged: bool = False
    """with --stream, leave out parts (NAME/*.npy, *.parquet) that are damaged, with a warning"""
    std: float | None = None
    """fixed standard deviation of a normal likelihood, in standard deviations of x; None has it learned"""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["train", "validation", "test"],
    meta_fields=["name", "condition", "likelihood", "notes", "schema"],
)
@dataclass(frozen=True)
class UserData:
    """A user's examples, checked and split, and the condition and likelihood that suit them; a tree of its arrays."""

    name: str  # of the file, without what a run folder cannot have in its name
    train: Examples
    validation: Examples
    test: Examples
    condition: cvae.Condition
    likelihood: cvae.Likelihood
    notes: tuple[str, ...]  # what the user should know
    schema: Schema | None = None  # of a table

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one example."""
        return tuple(self.train[0].shape[1:])

    @property
    def sample(self) -> Examples:
        """Training examples in memory: all of them, or some of those on disk."""
        x, c = self.train
        if not on_disk(x, c):
            return x, c
        rows = np.linspace(0, len(x) - 1, len(x.sample())).astype(np.int64)
        return x[rows], {name: values[rows] for name, values in c.items()}

    @property
    def what(self) -> str:
        """What an example is: a row, a series or an image."""
        return {1: "row", 2: "series", 3: "image"}[len(self.event_shape)]

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns of rows; those of an array have numbers for names."""
        if self.schema is not None:
            return self.schema.modelled
        numbers = range(self.event_shape[0])
        if isinstance(base_of(self.likelihood), cvae.Normal):
            return tuple(Column(f"column {k}", "real") for k in numbers)
        return tuple(Column(f"column {k}", "binary", categories=("0", "1")) for k in numbers)

    def conditions(self, c: Mapping[str, np.ndarray]) -> dict[Column, np.ndarray]:
        """The conditions that are one number or category an example, with their values: float64 [N], NaN if missing."""
        found = {}
        missing: Any
        for part in parts_of(self.condition):
            base = part.base if isinstance(part, cvae.Optional) else part
            if isinstance(base, cvae.Label):
                words = base.categories or tuple(map(str, range(base.num_classes)))
                column, missing = Column(base.name, "categorical", categories=words), c[base.name] < 0
            elif isinstance(base, cvae.Exposure) or (isinstance(base, cvae.Continuous) and base.dim == 1):
                column, missing = Column(base.name, "real"), np.False_
            else:
                continue
            values = np.where(missing, np.nan, c[base.name].reshape(len(c[base.name])).astype(np.float64))
            found[self.schema.column(base.name) if self.schema else column] = values
        return found


def base_of(likelihood: cvae.Likelihood) -> cvae.Likelihood:
    """The likelihood of an example that is complete."""
    return likelihood.base if isinstance(likelihood, cvae.Missing) else likelihood


def name_of(options: Input) -> str:
    """The name of the data, after their file or folder, without what a run folder cannot have in its name."""
    path = options.data.resolve()
    return re.sub(r"[^\w.+-]", "_", path.name if path.is_dir() else path.stem)


def split(options: Input, name: str, size: int) -> Rows:
    """The rows of the three parts, two at least in each."""
    rows = split_rows(size, options.seed, options.validation, options.test)
    rule = "leave two examples for each of train, validation and test (see --validation and --test)"
    checks.require(min(map(len, rows)) >= 2, name, rule, f"{[len(part) for part in rows]} of {size}")
    return rows


def parts(x: np.ndarray, c: dict[str, np.ndarray], rows: Rows) -> tuple[Examples, Examples, Examples]:
    """The examples of the three parts."""
    train, validation, test = ((x[part], {key: values[part] for key, values in c.items()}) for part in rows)
    return train, validation, test


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def require_finite(name: str, array: np.ndarray, missing: bool = False) -> None:
    """Refuse floats that are not finite in float32, by the row of the file; NaN may stand for a missing one."""
    if array.dtype.kind != "f":
        return
    with np.errstate(over="ignore"):
        wrong = ~np.isfinite(array.astype(np.float32))
        wrong &= ~np.isnan(array) if missing else True
    if wrong.any():
        place = np.unravel_index(int(wrong.argmax()), wrong.shape)
        every = "" if array.ndim == 1 else f".all(axis={tuple(range(1, array.ndim))})"
        got = f"{array[place]:g} at row {place[0]} (numpy.isfinite(x){every} are the rows to keep)"
        checks.require(False, repr(name), "be finite numbers, below 3.4e38", got)


def listed(columns: np.ndarray) -> str:
    """The numbers of the columns that are True, shortened; empty if none is."""
    found = np.flatnonzero(columns).tolist()
    more = f" and {len(found) - MOST_LISTED} more" if len(found) > MOST_LISTED else ""
    return f"column{'s' * (len(found) != 1)} {', '.join(map(str, found[:MOST_LISTED]))}{more}" if found else ""
