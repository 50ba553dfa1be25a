"""Tables from files and data frames, as polars has them; what the columns mean is `schema`'s."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import polars as pl

from cvae import checks

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # cells of a CSV file that are missing
SUFFIXES = (".csv", ".parquet")
MOSTLY = 0.9  # share of the cells of a column that are numbers, above which another is a mistake


def read_table(source: Any) -> pl.DataFrame:
    """Read a table from a `.csv` or `.parquet` file, or from a pandas or polars data frame.

    A CSV file has a line of names; its missing cells are empty, or one of NA, N/A, NaN, null and None.

    Raises:
        ValueError: the file is none or cannot be read; names the line, or the column, row and value, that are wrong.
    """
    if isinstance(source, pl.LazyFrame):
        source = source.collect()
    if not isinstance(source, pl.DataFrame):
        source = _read(checks.path("data", source)) if isinstance(source, str | os.PathLike) else _convert(source)
    table: pl.DataFrame = source
    checks.require(table.width > 0 and table.height > 0, "the table", "have columns and rows", table.shape)
    return table.with_columns(pl.selectors.float().fill_nan(None))


def _convert(frame: Any) -> pl.DataFrame:
    is_pandas = type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns")
    checks.require(is_pandas, "data", "be a path, or a pandas or polars data frame", f"a {type(frame).__name__}")
    names = [str(name) for name in frame.columns]
    # Column by column, through NumPy and lists: pyarrow, which polars would use, is a large dependency.
    columns = {name: _series(name, frame.iloc[:, k]) for k, name in enumerate(names)}
    checks.require(len(columns) == len(names), "data", "have columns of different names", names)
    return pl.DataFrame(columns)


def _series(name: str, column: Any) -> pl.Series:
    if column.dtype.kind in "iufb" and not hasattr(column.dtype, "na_value"):
        return pl.Series(name, column.to_numpy())
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    return pl.Series(name, values, strict=False)


def _read(path: Path) -> pl.DataFrame:
    checks.require(path.suffix in SUFFIXES, str(path), f"be a {' or '.join(SUFFIXES)} file", "another kind of file")
    checks.require(path.is_file(), str(path), "be a file", "no such file")
    try:
        if path.suffix == ".parquet":
            return pl.read_parquet(path)
        table = pl.read_csv(path, infer_schema_length=None, null_values=list(MISSING), glob=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        first = str(error).strip().splitlines() or ["no message"]
        raise ValueError(f"{path} must be a readable table, got {first[0][:300]}{_ragged(path)}") from None
    for name in table.columns:
        _check_mixed(path, table[name])
    return table


def _ragged(path: Path) -> str:
    """Where a CSV file first has another number of fields than its line of names; empty if nowhere."""
    if path.suffix != ".csv":
        return ""
    import csv

    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            width = len(next(reader, []))
            for fields in reader:
                if fields and len(fields) != width:
                    return f" (line {reader.line_num} has {len(fields)} fields, the line of names {width})"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        return f" ({error})"
    return ""


def _check_mixed(path: Path, column: pl.Series) -> None:
    """Refuse a column of numbers with a few words in it."""
    if column.dtype != pl.String:
        return
    numbers = column.cast(pl.Float64, strict=False)
    words = column.is_not_null() & numbers.is_null()
    known = column.len() - column.null_count()
    if 0 < words.sum() < (1 - MOSTLY) * known:
        row = words.arg_max() or 0
        rule = "hold numbers only, or words only (leave the cell empty if it is missing)"
        checks.require(False, f"column {column.name!r} of {path}", rule, f"{column[row]!r} at row {row}")
