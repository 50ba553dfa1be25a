"""Rows of a table, or arrays, as a fitted model takes and gives them: examples, conditions by value, and results.

What the functions of `use` share. Where the model has a schema, x is a table that holds c too; otherwise x and c are
arrays.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from cvae import checks
from cvae.classification import labels_of
from cvae.columns import Column
from cvae.conditions import Conditions, Continuous, Label, Optional
from cvae.config import Architecture, parts_of
from cvae.model import CVAE, check_examples
from cvae.schema import Schema
from cvae.tables import read_table

Rows = Any  # a polars or pandas data frame, or a dict of arrays


def architecture_of(model: CVAE) -> Architecture:
    """The architecture of a model; refuses one of functions of the user's own."""
    made = model.architecture is not None
    checks.require(made, "model", "be made by cvae.make", "functions of your own")
    assert model.architecture is not None
    return model.architecture


def one_of_conditions(architecture: Architecture, verb: str = "be") -> str:
    """The rule for a name of a condition, as a refusal has it."""
    names = ", ".join(architecture.condition.spec)
    return f"{verb} one of {names}" if names else "be left out, as the model is unconditional"


def examples(
    architecture: Architecture, x: Any, c: Any, *, without: str | None = None
) -> tuple[np.ndarray, Conditions]:
    """The arrays x and c of a table, or as they are given, words as numbers; the condition `without` may be absent.

    Raises:
        ValueError: a column or array is not as in training.
    """
    schema = architecture.schema
    if schema is None or isinstance(x, np.ndarray):
        c = dict(c or {})
        if without is not None:
            c[without] = np.zeros(len(x), np.int32)
        c |= {name: _codes(label, c[name]) for name, label in labels_of(architecture.condition).items() if name in c}
        x, c = check_examples(architecture, x, c)
        return np.asarray(x), c
    table = table_of(schema.read(x))
    if without is not None:
        table = table.with_columns(pl.lit(schema.column(without).categories[0]).alias(without))
    array, c = schema.encode(table)
    assert array is not None
    _warn_outside(schema, c)
    if not architecture.likelihood.spec(architecture.event_shape).missing and np.isnan(array).any():
        row, number = np.argwhere(np.isnan(array))[0]
        rule = (
            "hold no missing cell (the table that the model was fitted to had none: fit it again with --hide-prob 0.1)"
        )
        checks.require(False, f"column {schema.modelled[number].name!r}", rule, f"one at row {row}")
    return array, c


def condition_arrays(
    architecture: Architecture, count: int, given: Mapping[str, Any], *, whole: bool = True
) -> dict[str, np.ndarray]:
    """The conditions c of `count` rows from values by name; `whole` is whether those not given are filled in.

    Raises:
        ValueError: as `generate`.
    """
    specs, schema = architecture.condition.spec, architecture.schema
    for name in given:
        modelled = schema is not None and name in [column.name for column in schema.modelled]
        got = f"{name!r}{', which is modelled' if modelled else ''}"
        checks.require(name in specs, "condition", one_of_conditions(architecture), got)
    absent = required(architecture, given) if whole else {}
    example = ", ".join(f"{name}={value}" for name, value in absent.items())
    checks.require(not absent, "conditions", f"be given for {list(absent)}, such as {example}", list(given) or "none")
    wanted = list(specs) if whole else list(given)
    if not wanted:
        return {}
    values = {name: given.get(name) for name in wanted}
    if schema is None:
        return {name: _array(name, architecture, count, value) for name, value in values.items()}
    chosen = Schema(tuple(each for each in schema.columns if each.name in wanted or each.role == "modelled"))
    table = pl.DataFrame([_series(schema.column(name), count, value) for name, value in values.items()])
    c = chosen.encode(table, only_conditions=True)[1]
    _warn_outside(chosen, c)
    return c


def required(architecture: Architecture, given: Mapping[str, Any]) -> dict[str, str]:
    """The conditions that are not given and not optional, each with a value that it can have, as code."""
    optional = {part.name for part in parts_of(architecture.condition) if isinstance(part, Optional)}
    names = [name for name in architecture.condition.spec if name not in given and name not in optional]
    return {name: _example(architecture, name) for name in names}


def _example(architecture: Architecture, name: str) -> str:
    """A value that a condition can have."""
    if architecture.schema is None:
        part = next((part for part in parts_of(architecture.condition) if getattr(part, "name", None) == name), None)
        if isinstance(part, Continuous):
            return ",".join(f"{mean:.3g}" for mean in part.mean)
        return repr(part.categories[0]) if isinstance(part, Label) and part.categories else "0"
    column = architecture.schema.column(name)
    if column.is_label:
        return repr(column.categories[0])
    middle = (column.low + column.high) / 2 if math.isfinite(column.low + column.high) else 1.0
    return f"{middle if column.decimals is None else round(middle, column.decimals):g}"


def _series(column: Column, count: int, value: Any) -> pl.Series:
    """A condition as a column of a table; numbers may be words, as a command line has them."""
    values = _sequence(column.name, count, value)
    if not column.is_label:
        values = [None if each is None else _number(column.name, each) for each in values]
    return pl.Series(column.name, values, strict=False)


def _warn_outside(schema: Schema, c: Conditions) -> None:
    """Warn of numbers outside their range in training, once for each condition."""
    for column in schema.conditions:
        values = np.asarray(c[column.name]).reshape(-1)
        outside = (values < column.low) | (values > column.high)
        if not column.is_label and outside.any():
            warnings.warn(
                f"condition {column.name!r} is {values[outside.argmax()]:g}, outside its range in training, from "
                f"{column.low:g} to {column.high:g}, in {outside.sum():,} of {len(values):,} rows: what the model says "
                "there is a guess",
                stacklevel=4,
            )


def _sequence(name: str, count: int, value: Any) -> list[Any]:
    if isinstance(value, list | tuple | np.ndarray | pl.Series):
        rule = f"be one value, or a sequence of {count}"
        checks.require(len(value) == count, f"condition {name!r}", rule, f"{len(value)} values")
        return list(value)
    return [value] * count


def _number(name: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"condition {name!r} must be a number, got {checks.shown(value)}") from None


def _array(name: str, architecture: Architecture, count: int, value: Any) -> np.ndarray:
    """A condition of a model of arrays, of one value or of one per row; None is a missing one."""
    spec = architecture.condition.spec[name]
    if value is None:
        value = -1 if spec.kind == "integer" else math.nan
    if (label := labels_of(architecture.condition).get(name)) is not None:
        value = _codes(label, value)
    try:
        array = np.asarray(value, np.int32 if spec.kind == "integer" else None)
        array = array[:, None] if array.shape == (count,) and spec.shape == (1,) else array
        whole = array if array.shape[:1] == (count,) and array.ndim == len(spec.shape) + 1 else None
        return np.broadcast_to(array, (count, *spec.shape)).copy() if whole is None else whole
    except (TypeError, ValueError, OverflowError):
        rule = f"be a value of shape {spec.shape}, or {count} of them"
        raise ValueError(f"condition {name!r} must {rule}, got {checks.shown(value)}") from None


# Words of labels


def _codes(label: Label, values: Any) -> Any:
    """The numbers of classes that are given as words, "" for a missing one; anything else as it is."""
    words = np.asarray(values)
    if words.dtype.kind not in "UO" or not label.categories:
        return values
    texts = [str(word) if word is not None and word != "" else None for word in words.reshape(-1)]
    column = Column(label.name, "categorical", categories=label.categories)
    codes = column.encode(pl.Series(label.name, texts, dtype=pl.String)).reshape(words.shape)
    return np.where(np.isnan(codes), -1, codes).astype(np.int32)


def words_of(label: Label, codes: np.ndarray) -> np.ndarray:
    """The classes in words, "" for a missing one, if the label has words; else their numbers as they are."""
    return np.array([*label.categories, ""])[codes] if label.categories else codes


# Results


def table_of(x: Any) -> pl.DataFrame:
    """The table that x is; a column of missing cells alone, whatever type it was read as, may be of any kind."""
    table = read_table(x)
    empty = [series.name for series in table if series.null_count() == len(series)]
    return table.with_columns(pl.lit(None).alias(name) for name in empty)


def filled(x: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """The table x with its missing cells from `rows`, of which it has as many for each of its own; all columns stay."""
    table = table_of(x)
    repeated = table[np.repeat(np.arange(len(table)), len(rows) // len(table))]
    columns = [_in_dtype(column, table[column.name].dtype) for column in rows if column.name in table.columns]
    return repeated.with_columns(pl.coalesce(column.name, pl.lit(column)).alias(column.name) for column in columns)


def replaced(x: Any, rows: pl.DataFrame) -> pl.DataFrame:
    """The table x with the columns of `rows` in place of its own; all other columns stay."""
    table = table_of(x)
    types = table.schema
    return table.with_columns(_in_dtype(each, types[each.name]) if each.name in types else each for each in rows)


def _in_dtype(column: pl.Series, dtype: pl.DataType) -> pl.Series:
    """The column in the type that it has in a file, unless that cannot hold its values."""
    if dtype == pl.Null:
        return column
    cast = column.cast(dtype, strict=False)
    fraction = dtype.is_integer() and column.dtype.is_float() and not (column.drop_nulls() % 1 == 0).all()
    return column if fraction or cast.null_count() > column.null_count() else cast


def rows_of(architecture: Architecture, x: np.ndarray, c: Conditions) -> Rows:
    """Rows as the schema has them, or x and c as a dict, labels in words if they have any."""
    if architecture.schema is not None:
        return architecture.schema.decode(x, c)
    labels = labels_of(architecture.condition)
    return {"x": x} | {name: words_of(labels[name], each) if name in labels else each for name, each in c.items()}


def like(given: Any, frame: pl.DataFrame) -> Rows:
    """The data frame as pandas' own if that was given."""
    if type(given).__module__.partition(".")[0] != "pandas":
        return frame
    index = {"index": given.index} if len(given) == len(frame) else {}
    return type(given)({series.name: series.to_numpy() for series in frame}, **index)
