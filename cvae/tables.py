"""Tables from files and data frames, as polars has them; what the columns mean is `schema`'s."""

from __future__ import annotations

import contextlib
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl

from cvae import checks

MISSING = ("", "NA", "N/A", "NaN", "nan", "null", "NULL", "None")  # cells of a CSV file that are missing
MARKERS = ("n/a", "?", "-", "--", ".")  # cells that are missing where all others of their column are numbers
FIRST_LINES = 10_000  # of a CSV file, by which types are inferred
SUFFIXES = (".csv", ".parquet")
MOSTLY = 0.9  # share of numbers in a column above which a word is a mistake
ONE_KIND = "hold numbers only, or words only (leave a cell empty where its value is missing)"


def read_table(source: Any, words: Sequence[str] = ()) -> pl.DataFrame:
    """Read a table from a `.csv` or `.parquet` file, or from a pandas or polars data frame.

    A CSV file is UTF-8 text, separated by commas, that starts with a line of names; its missing cells are empty, or one
    of NA, N/A, NaN, nan, null, NULL and None; in a column whose other values are numbers, n/a, ?, -, -- and . too. In a
    data frame, NaN is a missing value.

    Args:
        source: the path, or the data frame.
        words: names of columns of which a CSV file's values are words, even those that look like numbers, such as 01.

    Raises:
        ValueError: it is none of these, or cannot be read; names the line, or the column, row and value, that are
            wrong.
    """
    if isinstance(source, pl.LazyFrame):
        table = source.collect()
    elif isinstance(source, pl.DataFrame):
        table = source
    elif isinstance(source, str | os.PathLike):
        table = _read(checks.path("data", source), words)
    else:
        table = _from_pandas(source)
    checks.require(table.width > 0 and table.height > 0, "the table", "have columns and rows", f"shape {table.shape}")
    return cleaned(table)


Frame = TypeVar("Frame", pl.DataFrame, pl.LazyFrame)


def cleaned(table: Frame) -> Frame:
    """The table with floats in place of decimals, and missing values in place of NaN."""
    table = table.with_columns(pl.selectors.decimal().cast(pl.Float64))
    return table.with_columns(pl.selectors.float().fill_nan(None))


# Files


def _read(path: Path, words: Sequence[str]) -> pl.DataFrame:
    rule = f"be a {' or '.join(SUFFIXES)} file"
    checks.require(path.suffix in SUFFIXES, str(path), rule, f"the suffix {path.suffix!r}")
    checks.require(path.is_file(), str(path), rule, "no such file")
    if path.suffix == ".csv":
        return _read_csv(path, words)
    try:
        return pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise ValueError(f"{path} must be a readable table, got {first_line(error)}") from None


def _read_csv(path: Path, words: Sequence[str]) -> pl.DataFrame:
    names = _names(path)
    try:
        table = _parse(path, names, words)
    except (pl.exceptions.PolarsError, OSError) as error:
        _check_widths(path)
        raise ValueError(f"{path} must be a readable table, got {first_line(error)}") from None
    if table.width > 1 and table.to_series(-1).null_count() > 0:  # where polars would fill up a short line
        _check_widths(path)
    table = table.with_columns(_of_one_kind(path, column) for column in table if column.name not in words)
    empty = table.select(pl.all_horizontal(pl.all().is_null())).to_series()
    return table.filter(~empty) if empty.any() and _has_blank_lines(path) else table


def _has_blank_lines(path: Path) -> bool:
    with path.open("rb") as file:
        return any(not line.strip() for line in file)


def _parse(path: Path, names: list[str], words: Sequence[str]) -> pl.DataFrame:
    """Parse a CSV file: types by its first lines if the others agree, which takes half the time, else by all."""

    def parse(lines: int | None) -> pl.DataFrame:
        # By itself, polars leaves quotes in names doubled.
        options: Any = {"new_columns": names, "null_values": list(MISSING), "glob": False}
        options["schema_overrides"] = {name: pl.String for name in words if name in names}
        return pl.read_csv(path, infer_schema_length=lines, **options)

    with contextlib.suppress(pl.exceptions.ComputeError):  # a later line disagrees
        table = parse(FIRST_LINES)
        # Of a column that starts with missing cells only, polars makes words.
        is_known = all(column.dtype != pl.String or column.head(FIRST_LINES).is_not_null().any() for column in table)
        if is_known or len(table) <= FIRST_LINES:
            return table
    return parse(None)


def first_line(error: Exception) -> str:
    """The kind of an error and the first line of its message, which a longer message quotes."""
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:300]}"


def _lines(path: Path) -> Any:
    """The fields of every line that is not empty, with its number."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for fields in reader:
                if fields:
                    yield reader.line_num, fields
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} must be UTF-8 text (save it as such), got {error}") from None
    except (OSError, csv.Error) as error:
        raise ValueError(f"{path} must be a readable table, got {first_line(error)}") from None


def _names(path: Path) -> list[str]:
    """The names of columns; refuses a file without them, with one twice, or with other separators than commas."""
    _, names = next(_lines(path), (0, []))
    checks.require(len(names) > 0, str(path), "start with a line of names", "an empty file")
    numbers = all(map(_is_number, names))
    checks.require(not numbers, str(path), "start with a line of names", f"the numbers {checks.shown(names)}")
    commas = len(names) > 1 or not any(separator in names[0] for separator in ";\t")
    checks.require(commas, str(path), "be separated by commas", f"the first line {names[0]!r}")
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    checks.require(not twice, str(path), "have columns of different names", f"{twice[:1]} twice")
    return names


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _check_widths(path: Path) -> None:
    """Refuse a file in which a line has another number of fields than the line of names."""
    with path.open("rb") as file:
        commas = next(file).count(b",")
        # Without quotes, commas separate fields, and can be counted ten times faster.
        if all(line.count(b",") == commas and b'"' not in line for line in file if line.strip()):
            return
    width = 0
    for number, fields in _lines(path):
        width = width or len(fields)
        rule = f"have {width} fields in every line, as in the line of names"
        checks.require(len(fields) == width, str(path), rule, f"{len(fields)} in line {number}")


def _of_one_kind(path: Path, column: pl.Series) -> pl.Series:
    """The column as numbers if all else marks missing cells; refuses a column of numbers with a few words in it."""
    if column.dtype != pl.String:
        return column
    numbers = column.cast(pl.Float64, strict=False)
    words = column.is_not_null() & numbers.is_null()
    if words.any() and numbers.is_not_null().any() and column.filter(words).is_in(MARKERS).all():
        whole = column.cast(pl.Int64, strict=False)
        return numbers if whole.null_count() > numbers.null_count() else whole
    known = len(column) - column.null_count()
    if 0 < words.sum() <= max(1, (1 - MOSTLY) * known) and known > 2:
        row = words.arg_max()
        assert row is not None
        checks.require(False, f"column {column.name!r} of {path}", ONE_KIND, f"{column[row]!r} at row {row}")
    return column


# Data frames


def _from_pandas(frame: Any) -> pl.DataFrame:
    is_pandas = type(frame).__module__.partition(".")[0] == "pandas" and hasattr(frame, "columns")
    checks.require(is_pandas, "data", "be a path, or a pandas or polars data frame", f"a {type(frame).__name__}")
    names = [str(name) for name in frame.columns]
    twice = [name for number, name in enumerate(names) if name in names[:number]]
    checks.require(not twice, "data", "have columns of different names", f"{twice[:1]} twice")
    # Column by column, through NumPy and lists: pyarrow, which polars would use, is a large dependency.
    return pl.DataFrame([_from_pandas_column(name, frame.iloc[:, k]) for k, name in enumerate(names)])


def _from_pandas_column(name: str, column: Any) -> pl.Series:
    dtype = column.dtype
    if isinstance(dtype, np.dtype) and dtype.kind in "iufb":
        return pl.Series(name, column.to_numpy())
    values = [None if missing else value for value, missing in zip(column.tolist(), column.isna(), strict=True)]
    are_words = [isinstance(value, str) for value in values if value is not None]
    if any(are_words) and not all(are_words):
        first = next(isinstance(value, str) for value in values if value is not None)
        row = next(k for k, value in enumerate(values) if value is not None and isinstance(value, str) != first)
        checks.require(False, f"column {name!r}", ONE_KIND, f"{values[row]!r} at row {row}")
    if dtype.name == "category" and all(are_words):
        return pl.Series(name, values, dtype=pl.Enum([str(category) for category in column.cat.categories]))
    nullable = getattr(pl, dtype.name, None) if getattr(dtype, "kind", "O") in "iuf" else None  # such as Int32
    return pl.Series(name, values, dtype=nullable, strict=False)
