"""What the columns of a table mean, and the arrays that a model takes in their place.

A `Schema` is inferred from a table, may be corrected, and is a setting: it is written with a run and read with it. It
turns a table into x, one column of numbers for each that is modelled, and c, and turns draws back into a table of the
same names, types, categories and decimals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import numpy as np
import polars as pl

from cvae import checks
from cvae.checks import SMALLEST
from cvae.conditions import Condition, Continuous, Exposure, Label, Mixed, Optional, Unconditional
from cvae.likelihoods import Bernoulli, Categorical, Columns, Likelihood, LogNormal, Missing, NegativeBinomial, Normal
from cvae.settings import Name, replace, setting

Kind = Literal["real", "positive", "count", "binary", "categorical", "omitted"]
Role = Literal["modelled", "condition", "optional condition", "exposure"]

MOST_CATEGORIES = 200  # of a column of words; more are taken for names or identifiers
MOST_COUNTS = 100  # different values of a column of counts
MOST_DECIMALS = 6
MOSTLY = 0.95  # share of the values of a column that have as many decimals as its draws
LARGEST = 3e38  # of float32
SKEWED = 10.0  # ratio of the largest to the smallest value from which a positive column is on a log scale


@setting
class Column:
    """A column of a table."""

    name: Name
    """its name in the table"""
    kind: Kind
    """real, positive (log scale), count, binary, categorical, or omitted"""
    reason: str = ""
    """why it is of this kind"""
    dtype: str = "Float64"
    """the type of its values in the table, by polars' name"""
    categories: tuple[str, ...] = ()
    """the values of a binary or categorical column, in the order of their numbers"""
    decimals: int | None = None
    """digits after the point; None if there are more than six"""
    low: float = -math.inf
    """smallest value in the training part"""
    high: float = math.inf
    """largest value in the training part"""
    role: Role = "modelled"
    """whether it is modelled, or conditioned on"""
    counts: tuple[int, ...] = ()
    """how many rows of the training part have each of the categories"""

    @property
    def is_label(self) -> bool:
        """Whether its values are categories."""
        return self.kind in ("binary", "categorical")

    def encode(self, values: pl.Series) -> np.ndarray:
        """The column as numbers, float64 [N], NaN where a value is missing.

        Raises:
            ValueError: a value is not of this kind; names the column, the row and the value.
        """
        name = f"column {self.name!r}"
        if self.is_label:
            codes = dict(zip(self.categories, range(len(self.categories)), strict=True))
            words = _words(values)
            known = words.is_null() | words.is_in(list(codes))
            rule = f"be one of {_listed(self.categories)}"
            _require_all(name, rule, known, values)
            return words.replace_strict(codes, default=None, return_dtype=pl.Float64).to_numpy().astype(np.float64)
        numeric = values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null)
        checks.require(numeric, name, f"hold numbers, as in training ({self.kind})", f"{values.dtype} values")
        numbers = values.cast(pl.Float64)
        finite = numbers.is_null() | (numbers.is_finite() & (numbers.abs() < LARGEST))
        _require_all(name, "hold finite numbers", finite, values)
        if self.kind == "positive":
            _require_all(
                name, "hold numbers above 0 (or be of kind real)", numbers.is_null() | (numbers >= SMALLEST), values
            )
        if self.kind == "count":
            whole = numbers.is_null() | ((numbers >= 0) & (numbers == numbers.round(0)))
            _require_all(name, "hold whole numbers from 0 on (or be of kind real)", whole, values)
        return numbers.to_numpy().astype(np.float64)

    def decode(self, values: np.ndarray) -> pl.Series:
        """The inverse of `encode`: rounded to the decimals of the table, NaN as a missing value."""
        missing = np.isnan(values)
        dtype = getattr(pl, self.dtype)
        if self.is_label:
            codes = np.clip(np.rint(np.where(missing, 0, values)), 0, len(self.categories) - 1).astype(int)
            words = pl.Series(
                self.name,
                [None if gone else self.categories[code] for code, gone in zip(codes, missing, strict=True)],
                dtype=pl.String,
            )
            return _typed(words, dtype)
        rounded = values if self.decimals is None else np.round(values, self.decimals)
        if self.kind == "positive" and self.decimals is not None:  # rounding must not give 0
            rounded = np.where(values > 0, np.maximum(rounded, 10.0**-self.decimals), rounded)
        series = pl.Series(self.name, rounded, dtype=pl.Float64).fill_nan(None)
        return series.cast(dtype, strict=False) if dtype.is_numeric() else series


def _words(values: pl.Series) -> pl.Series:
    """Values as words: whole floats without their point, so that 1.0 and 1 are one category."""
    if values.dtype.is_float():
        whole = values.drop_nulls()
        if (whole == whole.round(0)).all():
            values = values.cast(pl.Int64, strict=False)
    return values.cast(pl.String)


def _typed(words: pl.Series, dtype: Any) -> pl.Series:
    """Words in the type that they had in the table."""
    if dtype == pl.Boolean:
        return words == "true"
    return words.cast(pl.Float64).cast(dtype) if dtype.is_numeric() else words


def _listed(words: tuple[str, ...]) -> str:
    more = f" and {len(words) - 10} more" if len(words) > 10 else ""
    return ", ".join(map(repr, words[:10])) + more


def _require_all(name: str, rule: str, holds: pl.Series, values: pl.Series) -> None:
    wrong = (~holds).to_numpy()
    if wrong.any():
        row = int(wrong.argmax())
        checks.require(False, name, rule, f"{values[row]!r} at row {row}")


@setting
class Schema:
    """The columns of a table, in its order."""

    columns: tuple[Column, ...]
    """the columns"""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        checks.require(len(set(names)) == len(names), "columns", "have different names", names)
        checks.require(len(self.modelled) > 0, "columns", "be modelled, one at least", "none")

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns of x."""
        return tuple(column for column in self.columns if column.role == "modelled" and column.kind != "omitted")

    @property
    def conditions(self) -> tuple[Column, ...]:
        """The columns of c."""
        return tuple(column for column in self.columns if column.role != "modelled" and column.kind != "omitted")

    def column(self, name: str) -> Column:
        """The column of a name."""
        found = {column.name: column for column in self.columns}
        checks.require(name in found, "column", f"be one of {', '.join(found)}", repr(name))
        return found[name]

    def encode(
        self, table: pl.DataFrame, *, only_conditions: bool = False
    ) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """The arrays x, float64 [N, D] with NaN where a cell is missing, and c.

        Columns may come in any order. Those that the schema does not know are ignored.

        Raises:
            ValueError: a column is absent, or holds values of another kind; a condition that is not optional is
                missing in a row.
        """
        wanted = self.conditions if only_conditions else self.modelled + self.conditions
        absent = [column.name for column in wanted if column.name not in table.columns]
        checks.require(not absent, "the table", f"have the columns {[c.name for c in wanted]}", f"none named {absent}")
        x = None
        if not only_conditions:
            x = np.stack([column.encode(table[column.name]) for column in self.modelled], axis=1)
        c = {}
        for column in self.conditions:
            values = column.encode(table[column.name])
            c[column.name] = self._condition_values(column, values)
        return x, c

    @staticmethod
    def _condition_values(column: Column, values: np.ndarray) -> np.ndarray:
        missing = np.isnan(values)
        optional = column.role == "optional condition"
        rule = "be known in every row (or be an optional condition)"
        place = f"a missing value at row {int(missing.argmax())}"
        checks.require(optional or not missing.any(), f"condition {column.name!r}", rule, place)
        if column.role == "exposure":
            return values
        if column.is_label:
            return np.where(missing, -1, values).astype(np.int32)
        return values[:, None]

    def decode(self, x: Any, c: Mapping[str, Any]) -> pl.DataFrame:
        """The table of arrays, its columns in the order of the file; omitted ones are left out."""
        x = np.asarray(x, np.float64)
        columns = {column.name: column.decode(x[:, k]) for k, column in enumerate(self.modelled)}
        for column in self.conditions:
            values = np.asarray(c[column.name], np.float64).reshape(len(x))
            columns[column.name] = column.decode(np.where(values < 0, np.nan, values) if column.is_label else values)
        return pl.DataFrame([columns[column.name] for column in self.columns if column.name in columns])

    def likelihood(self, x: np.ndarray) -> Likelihood:
        """The likelihood of x, each column by its kind, fitted to training rows [N, D].

        Real columns are Normal, positive ones log-normal, counts negative binomial, two-valued ones Bernoulli, others
        categorical; `Missing` if a cell is missing.
        """
        groups: dict[Any, list[int]] = {}
        for number, column in enumerate(self.modelled):
            groups.setdefault((column.kind, len(column.categories) if column.kind == "categorical" else 0), []).append(
                number
            )
        parts = []
        for (kind, classes), numbers in groups.items():
            parts.append(_likelihood(kind, classes, x[:, numbers]))
        columns = Columns(tuple(parts), tuple(map(tuple, groups.values())))
        return Missing(columns) if np.isnan(x).any() else columns

    def condition(self, c: Mapping[str, np.ndarray]) -> Condition:
        """The condition of c, its numbers standardised by training rows."""
        parts: list[Condition] = []
        for column in self.conditions:
            values = c[column.name]
            if column.role == "exposure":
                parts.append(Exposure.fitted(values, column.name))
                continue
            part: Condition
            if column.is_label:
                part = Label(len(column.categories), column.name)
            else:
                part = Continuous.fitted(values[np.isfinite(values[:, 0])], column.name)
            parts.append(Optional(part) if column.role == "optional condition" else part)
        if len(parts) < 2:
            return parts[0] if parts else Unconditional()
        return Mixed(tuple(parts))


def _likelihood(kind: str, classes: int, x: np.ndarray) -> Likelihood:
    if kind == "categorical":
        return Categorical(classes)
    if kind == "binary":
        return Bernoulli()
    return {"real": Normal, "positive": LogNormal, "count": NegativeBinomial}[kind].fitted(x)  # type: ignore[attr-defined, no-any-return]


# Inference


def infer(
    table: pl.DataFrame,
    *,
    conditions: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    exposure: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
) -> Schema:
    """The schema of a table: the kind of every column, with the reason.

    Args:
        table: as `read_table` returns it; the training part decides categories and ranges.
        conditions: names of the columns that are conditioned on.
        optional: those of them that may be missing.
        exposure: the name of a column by which the means of counts are multiplied.
        kinds: kinds by name, in place of the inferred ones.

    Raises:
        ValueError: a name is not a column's, or a kind contradicts the values.
    """
    kinds = dict(kinds or {})
    roles: dict[str, Role] = {}
    roles |= dict.fromkeys(conditions, "condition")
    roles |= dict.fromkeys(optional, "optional condition")
    if exposure is not None:
        roles[exposure] = "exposure"
    for name in [*roles, *kinds]:
        checks.require(name in table.columns, "column", f"be one of {', '.join(table.columns)}", repr(name))
    columns = [_infer(table[name], kinds.get(name)) for name in table.columns]
    columns = [replace(column, role=roles.get(column.name, "modelled")) for column in columns]
    return Schema(tuple(columns))


def _infer(values: pl.Series, wanted: Kind | None) -> Column:
    known = values.drop_nulls()
    name = f"column {values.name!r}"
    kind, reason = (wanted, "as requested") if wanted else _kind(values, known)
    checks.one_of(f"the kind of {name}", kind, get_args(Kind))
    dtype = values.dtype.base_type().__name__
    if kind == "omitted":
        return Column(values.name, kind, reason, dtype)
    checks.require(
        len(known) > 0, name, f"hold a value (or be omitted, --column {values.name}=omitted)", "missing cells only"
    )
    if kind in ("binary", "categorical"):
        words = _words(known)
        unique = words.unique().to_list()
        categories = sorted(unique, key=float) if known.dtype.is_numeric() else sorted(unique)
        rule = "have two different values" if kind == "binary" else "have two different values or more"
        fits = len(categories) == 2 or (kind == "categorical" and len(categories) > 2)
        checks.require(fits, name, rule, f"{len(categories)}: {_listed(tuple(categories))}")
        counts = tuple(int((words == category).sum()) for category in categories)
        return Column(values.name, kind, reason, dtype, tuple(categories), counts=counts)
    numeric = known.dtype.is_numeric() or known.dtype == pl.Boolean
    checks.require(numeric, name, f"hold numbers to be {kind}", f"{values.dtype} values")
    numbers = known.cast(pl.Float64).to_numpy()
    column = Column(
        values.name, kind, reason, dtype, (), _decimals(numbers), float(numbers.min()), float(numbers.max())
    )
    column.encode(values)
    return column


def _kind(values: pl.Series, known: pl.Series) -> tuple[Kind, str]:
    """The kind of a column, and why."""
    count, different = len(known), known.n_unique()
    if different < 2:
        return "omitted", f"constant, {known[0]}" if count else "every cell is missing"
    if values.dtype.is_temporal():
        return "omitted", "a date or time: write it as a number to model it"
    if different == 2:
        return "binary", "two values"
    if values.dtype.is_numeric():
        return _kind_of_numbers(known.cast(pl.Float64).to_numpy(), different)
    if different > min(MOST_CATEGORIES, 0.5 * count):
        return "omitted", f"{different:,} different values in {count:,} rows: names or identifiers"
    return "categorical", f"{different} different words"


def _kind_of_numbers(numbers: np.ndarray, different: int) -> tuple[Kind, str]:
    whole, low, high = bool((numbers == np.rint(numbers)).all()), float(numbers.min()), float(numbers.max())
    if whole and different == len(numbers) and high - low == len(numbers) - 1:
        return "omitted", "consecutive numbers: a row's own"
    if whole and low >= 0 and different <= MOST_COUNTS:
        return "count", f"whole numbers from {low:g} to {high:g}"
    if low >= SMALLEST and high / low >= SKEWED:
        return "positive", f"from {low:g} to {high:g}, all positive"
    return "real", f"from {low:g} to {high:g}"


def _decimals(numbers: np.ndarray) -> int | None:
    scale = np.maximum(np.abs(numbers), 1) * 1e-12
    fits = (d for d in range(MOST_DECIMALS + 1) if (np.abs(np.round(numbers, d) - numbers) <= scale).mean() >= MOSTLY)
    return next(fits, None)
