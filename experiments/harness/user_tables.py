"""A user's table as a model takes it: its schema, inferred or given, and the arrays that are encoded by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import numpy as np
import polars as pl

import cvae
from cvae import checks, runs
from cvae.columns import Column, Kind
from cvae.data import Rows
from cvae.schema import Schema, infer
from cvae.settings import from_json
from cvae.tables import read_table
from experiments.harness import tables
from experiments.harness.run import Examples
from experiments.harness.user_data import Input, UserData, name_of, parts, split

MOST_WRITTEN = 60  # characters of a cell that is printed
MOST_NAMED = 8  # categories that a note names


def load(options: Input) -> UserData:
    """Read a table, infer its schema or check the one that is given, and encode it.

    Raises:
        ValueError: the file cannot be read, or contradicts the options; names the column, the rule and the value.
    """
    given = given_schema(options)
    table = given.read(options.data) if given else read_table(options.data)
    rows = split(options, str(options.data), table.height)
    schema = _as_trained(schema_of(options, given, table), table, rows.train)
    x, c = schema.encode(table)
    assert x is not None
    data = of_arrays(options, schema, x, c, rows, int(np.isnan(x).sum()), x.size)
    return replace(data, notes=(*data.notes, *_notes_on_categories(schema, data.train)))


def of_arrays(
    options: Input, schema: Schema, x: np.ndarray, c: dict[str, np.ndarray], rows: Rows, missing: int, cells: int
) -> UserData:
    """Rows in memory as a model takes them, of a table of which so many cells of x are missing."""
    train, validation, test = parts(x, c, rows)
    likelihood, condition = schema.likelihood(*train), schema.condition(train[1])
    if missing and not isinstance(likelihood, cvae.Missing):
        likelihood = cvae.Missing(likelihood)
    notes = [
        f"condition {column.name!r} is left out: {column.reason}"
        for column in schema.columns
        if column.kind == "omitted" and column.role != "modelled"
    ]
    notes += _notes_on_missing(missing, cells)
    return UserData(name_of(options), train, validation, test, condition, likelihood, tuple(notes), schema)


def schema_of(options: Input, given: Schema | None, table: pl.DataFrame | pl.LazyFrame) -> Schema:
    """The schema that is given, or the one inferred from the table and the options."""
    return _completed(given, options, table) if given else _inferred(options, table)


def _inferred(options: Input, table: pl.DataFrame | pl.LazyFrame) -> Schema:
    columns = table.collect_schema().names()
    kinds: dict[str, Kind] = {}
    for text in options.column:
        name, equals, kind = text.rpartition("=")
        rule = f"be NAME=KIND with a kind among {', '.join(get_args(Kind))}"
        checks.require(bool(name and equals) and kind in get_args(Kind), "--column", rule, repr(text))
        checks.require(name not in kinds, "--column", "give every column once", f"{name!r} twice")
        kinds[name] = kind  # type: ignore[assignment]
    exposure = () if options.exposure is None else (options.exposure,)
    roles = {"--condition": options.condition, "--optional": options.optional, "--exposure": exposure}
    given: dict[str, str] = {}
    for option, names in roles.items():
        for name in names:
            checks.require(name not in given, option, "name another column than the other options", repr(name))
            given[name] = option
    checks.require(not kinds.keys() & set(exposure), "--exposure", "name a column without --column", options.exposure)
    roles["--column"] = tuple(kinds)
    for option, names in roles.items():
        for name in names:
            checks.require(name in columns, option, f"name one of {', '.join(columns)}", repr(name))
    return infer(table, conditions=options.condition, optional=options.optional, exposure=options.exposure, kinds=kinds)


def given_schema(options: Input) -> Schema | None:
    """The schema that the options name, if any; refuses options that are of arrays, or that it says."""
    for name, usual in {"x": None, "std": None, "likelihood": "auto"}.items():
        value = getattr(options, name)
        checks.require(value == usual, f"--{name}", "be left out for a table, whose columns say it", value)
    if options.schema is None:
        return None
    for name in ("condition", "optional", "exposure", "column"):
        value = getattr(options, name)
        checks.require(not value, f"--{name}", "be left out with --schema, which says it", value)
    checks.require(options.schema.is_file(), "--schema", "be a file, the schema.json of a run", options.schema)
    return from_json(Schema, runs.read_json(options.schema), str(options.schema))


def _completed(schema: Schema, options: Input, table: pl.DataFrame | pl.LazyFrame) -> Schema:
    """The schema with the other columns of the table, which are omitted."""
    columns = table.collect_schema().names()
    absent = [column.name for column in schema.columns if column.name not in columns]
    rule = f"have the columns of {options.schema}"
    checks.require(not absent, str(options.data), rule, f"none named {', '.join(map(repr, absent))}")
    known = {column.name for column in schema.columns}
    new = [Column(name, "omitted", "not in the schema") for name in columns if name not in known]
    return Schema((*schema.columns, *new))


def _as_trained(schema: Schema, table: pl.DataFrame, train: np.ndarray) -> Schema:
    """The schema with ranges of the training part; a column that is constant there is omitted."""
    columns = []
    for column in schema.columns:
        changes: dict[str, Any] = {}
        if column.kind != "omitted":
            values = column.encode(table[column.name])[train]
            known = values[np.isfinite(values)]
            low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 0.0)
            changes = {"low": low, "high": high}
            if column.is_label:
                counts = np.bincount(known.astype(int), minlength=len(column.categories))
                changes = {"counts": tuple(counts.tolist())}
            if low == high:
                changes = {"kind": "omitted", "reason": "constant in the training part"}
        columns.append(replace(column, **changes))
    return Schema(tuple(columns))


def _notes_on_categories(schema: Schema, train: Examples) -> list[str]:
    """Categories without a training row."""
    notes = []
    x_train, c_train = train
    values = {column: x_train[:, k] for k, column in enumerate(schema.modelled)}
    values |= {column: c_train[column.name] for column in schema.conditions}
    for column, codes in values.items():
        unused = np.setdiff1d(np.arange(len(column.categories)), codes)
        if len(unused):
            words = ", ".join(column.categories[k] for k in unused[:MOST_NAMED]) + " and more" * (
                len(unused) > MOST_NAMED
            )
            notes.append(f"no training row has {column.name} {words}: what is drawn or scored of it means nothing")
    return notes


def _notes_on_missing(missing: int, cells: int) -> list[str]:
    if not missing:
        return []
    return [f"{missing:,} of {cells:,} cells are missing: nats are those of the others (missing at random)"]


def describe(schema: Schema) -> str:
    """The schema as it is printed: a line per column, with its kind, the reason and its role."""
    lines = [[column.name, column.kind, column.reason, _role(column)] for column in schema.columns]
    shown = [[cell if len(cell) <= MOST_WRITTEN else f"{cell[:MOST_WRITTEN]}..." for cell in line] for line in lines]
    return tables.render(["column", "kind", "reason", "role"], shown, text_columns=4)


def _role(column: Column) -> str:
    return "-" if column.kind == "omitted" else column.role
