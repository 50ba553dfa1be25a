"""A user's own data that stay on disk (`--stream`), as a model takes them.

Of arrays, kinds and ranges are those of a sample, which is read as `user_arrays` reads all of a file; the rest is
checked as it is read. A table's schema is that of all its rows, and locations and scales are those of a sample.
Validation and test parts are in memory, so they are small.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from cvae import checks
from cvae.data import Rows, parquet_files, scan_table, stream, stream_table
from cvae.data.datasets import cache_folder
from cvae.settings import to_json
from cvae.streamed import Streamed, row_bytes
from cvae.tables import first_line
from experiments.harness import files, user_arrays, user_files, user_tables
from experiments.harness.user_data import Input, UserData, name_of

MOST_HELD_OUT = 10_000  # examples of the validation and of the test part
HELD_OUT_BYTES = 2**25  # of either


def load(options: Input) -> UserData:
    """Read what is scored and a sample of the data that the options name, and leave the rest on disk.

    Raises:
        ValueError: as `user_arrays.load` and `data.stream`, or as `user_tables.load` and `data.scan_table`.
    """
    if parquet_files(options.data):
        mixed = options.data.is_dir() and files.is_of_arrays(options.data)
        checks.require(not mixed, str(options.data), "hold .npy files or .parquet files", "both")
        return _table(options)
    rule = "be an .npy or a .parquet file, or a folder, with --stream"
    checks.require(options.data.suffix == ".npy" or options.data.is_dir(), "--data", rule, options.data)
    return _arrays(options)


def _table(options: Input) -> UserData:
    """A table, encoded once into the user's cache."""
    given = user_tables.given_schema(options)
    table = scan_table(options.data, skip_damaged=options.skip_damaged)
    try:
        schema = user_tables.schema_of(options, given, table)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{options.data} must be readable, got {first_line(error)} (see --skip-damaged)") from None
    state = [
        (os.path.realpath(file), file.stat().st_size, file.stat().st_mtime_ns) for file in parquet_files(options.data)
    ]
    digest = hashlib.sha256(repr((state, to_json(schema))).encode()).hexdigest()[:16]
    folder = cache_folder() / "tables" / f"{name_of(options)}-{digest}"
    x, c = stream_table(table, schema, folder, progress=True)
    rows, held_out = _rows(options, x, [c[column.name] for column in schema.conditions if column.is_label])
    chosen, parts = _in_memory(held_out)
    names = [column.name for column in schema.modelled]
    missing = sum(table.select(pl.col(names).null_count()).collect().row(0))
    sample = {name: values[chosen] for name, values in c.items()}
    data = user_tables.of_arrays(options, schema, x[chosen], sample, parts, missing, len(x) * len(names))
    note = f"{_of_parts(len(x), rows, held_out)}; they are arrays in {folder}, which may be removed after the fit"
    train = x.take(rows), {name: values.take(rows) for name, values in c.items()}
    return dataclasses.replace(data, train=train, notes=(note, *data.notes))


def _arrays(options: Input) -> UserData:
    """Arrays, of which those that the options name are read."""
    user_arrays.check_options(options)
    arrays = stream(options.data, skip_damaged=options.skip_damaged)
    wanted = user_files.parse(options)
    name = user_files.name_of_x(options, arrays, wanted)
    size = len(arrays[name])
    for each in wanted:
        known = user_files.is_fixed_mask(each) or (each.kind != "image" and each.name in arrays)
        rule = f"name an array of {options.data}, one of {', '.join(arrays)}, or a mask that is the same for all"
        checks.require(known, "--condition", rule, f"{each.kind}={each.name}")
        if each.name in arrays:
            rule = f"hold one entry per example of {name!r}, {size:,} of them"
            checks.require(len(arrays[each.name]) == size, repr(each.name), rule, len(arrays[each.name]))
    labels = [arrays[each.name] for each in wanted if each.kind == "label"]
    rows, held_out = _rows(options, arrays[name], labels)
    chosen, parts = _in_memory(held_out)
    names = [name, *(each.name for each in wanted if each.name in arrays)]
    in_memory = {each: arrays[each][chosen] for each in names}
    notes = [f"{_of_parts(size, rows, held_out)}; kinds and ranges are those of {len(chosen):,}"]
    try:
        data = user_arrays.of_arrays(options, in_memory, name, wanted, parts, notes)
    except ValueError as error:
        raise ValueError(_of_file(str(error), arrays, name, chosen)) from None
    x, c = data.train
    on_disk = {key: arrays[name if key == "image" else key] for key in c}
    train = _like(arrays[name], rows, x), {key: _like(on_disk[key], rows, c[key]) for key in c}
    return dataclasses.replace(data, train=train)


def _in_memory(held_out: Rows) -> tuple[np.ndarray, Rows]:
    """All rows that are in memory, and which of these each part has."""
    ends = np.cumsum([len(part) for part in held_out])
    return np.concatenate(held_out), Rows(*np.split(np.arange(ends[-1]), ends[:-1]))


def _of_file(message: str, arrays: Mapping[str, Streamed], name: str, chosen: np.ndarray) -> str:
    """A message about the rows in memory as one about those of a file."""
    array = arrays[next((each for each in arrays if repr(each) in message), name)]
    return re.sub(r"\brow (\d+)", lambda row: array.place(int(chosen[int(row[1])])), message)


def _of_parts(size: int, rows: np.ndarray, held_out: Rows) -> str:
    return (
        f"{size:,} examples stay on disk: {len(rows):,} of them are for training, {len(held_out.validation):,} "
        f"validate and {len(held_out.test):,} are for the test"
    )


def _rows(options: Input, x: Streamed, labels: list[Streamed]) -> tuple[np.ndarray, Rows]:
    """The rows that are trained on, and those in memory: a sample of them, with every class, and the other parts."""
    most = max(2, min(MOST_HELD_OUT, HELD_OUT_BYTES // max(1, row_bytes(x, {}))))
    counts = [min(most, round(len(x) * share)) for share in (options.validation, options.test)]
    rule = "leave two examples for each of train, validation and test (see --validation and --test)"
    checks.require(min(*counts, len(x) - sum(counts)) >= 2, "--data", rule, f"{counts} of {len(x)}")
    drawn = np.random.Generator(np.random.PCG64(options.seed)).choice(len(x), sum(counts), replace=False)
    is_train = np.ones(len(x), bool)
    is_train[drawn] = False
    train = np.flatnonzero(is_train)
    sample = train[np.linspace(0, len(train) - 1, min(most, len(train))).astype(np.int64)]
    of_classes = [train[np.unique(label[train], return_index=True)[1]] for label in labels]
    return train, Rows(np.unique(np.concatenate((sample, *of_classes))), *np.split(drawn, counts[:1]))


def _like(array: Streamed, rows: np.ndarray, like: np.ndarray) -> Any:
    """These rows of an array on disk, in the shape and dtype that its sample was given."""
    taken = array.take(rows)
    if (taken.shape[1:], taken.dtype) == (like.shape[1:], like.dtype):
        return taken
    return taken.map(lambda values: values.reshape(len(values), *like.shape[1:]).astype(like.dtype))
