"""A column of a table: what its values are, the same as numbers, and numbers as values again."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import polars as pl

from cvae import checks
from cvae.checks import SMALLEST
from cvae.settings import Name, setting

Kind = Literal["real", "positive", "count", "binary", "categorical", "omitted"]
Role = Literal["modelled", "condition", "optional condition", "exposure"]

LARGEST = 3e38  # of float32
WHOLE = 2**53  # integers up to here are exact in float64
# Types of values that a column can have in the table, by polars' names; an omitted one may have any other.
DTYPES: dict[str, Any] = {
    dtype.__name__: dtype
    for dtype in (
        pl.Float32, pl.Float64, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64,
        pl.Boolean, pl.String, pl.Categorical, pl.Enum,
    )
}  # fmt: skip


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
    """digits after the point of nearly every value in the training part, to which draws are rounded; None if more than
    are written out"""
    low: float = -math.inf
    """smallest value in the training part"""
    high: float = math.inf
    """largest value in the training part"""
    role: Role = "modelled"
    """whether it is modelled, or conditioned on"""
    point_mass: float | None = None
    """a value that many rows share at the end of the range, and that has a probability of its own"""
    counts: tuple[int, ...] = ()
    """how many rows of the training part have each of the categories"""

    def __post_init__(self) -> None:
        if self.kind == "omitted":
            return
        checks.one_of(f"the dtype of {self._title}", self.dtype, DTYPES)
        count = len(set(self.categories))
        rule = "have different categories, two if it is binary, two or more if categorical, else none"
        fits = {"binary": count == 2, "categorical": count >= 2}.get(self.kind, count == 0)
        checks.require(fits and count == len(self.categories), self._title, rule, listed(self.categories) or "none")

    @property
    def _title(self) -> str:
        return f"column {self.name!r}"

    @property
    def is_label(self) -> bool:
        """Whether its values are categories."""
        return self.kind in ("binary", "categorical")

    # To numbers

    def encode(self, values: pl.Series) -> np.ndarray:
        """The column as numbers, float64 [N], NaN where a value is missing; categories as their positions.

        Raises:
            ValueError: a value is not of this kind; names the column, the rule, the value and the row.
        """
        if self.is_label:
            text = as_words(values)
            rule = f"be one of {listed(self.categories)}, the values in the training rows"
            self._require_all(text.is_in(list(self.categories)), rule, values)
            codes = {category: float(number) for number, category in enumerate(self.categories)}
            numbers = text.replace_strict(codes, default=None, return_dtype=pl.Float64)
        else:
            numbers = self._as_numbers(values)
        return numbers.to_numpy().astype(np.float64)

    def _as_numbers(self, values: pl.Series) -> pl.Series:
        can_be = values.dtype.is_numeric() or values.dtype in (pl.Boolean, pl.Null, pl.String, pl.Categorical, pl.Enum)
        checks.require(can_be, self._title, f"hold numbers to be {self.kind}", f"{values.dtype} values")
        is_text = values.dtype in (pl.String, pl.Categorical, pl.Enum)
        numbers = (values.cast(pl.String) if is_text else values).cast(pl.Float64, strict=False)
        self._require_all(numbers.is_not_null(), f"hold numbers to be {self.kind}", values)
        self._require_all(numbers.is_finite() & (numbers.abs() < LARGEST), "hold finite numbers", values)
        if values.dtype.is_integer():
            exact = numbers.cast(values.dtype, strict=False) == values
            rule = f"hold integers up to 2^53, beyond which floats skip some (or be omitted, {self._option('omitted')})"
            self._require_all(exact, rule, values)
        if self.kind == "positive":
            rule = f"hold numbers above 0 by {SMALLEST:g} at least"
            rule += "" if self.point_mass is None else f", or {self.point_mass:g}"
            rule += "" if self.role == "exposure" else f" (or be real, {self._option('real')})"
            at_mass = numbers == (self.point_mass if self.point_mass is not None else math.inf)
            self._require_all((numbers >= SMALLEST) | at_mass, rule, values)
        if self.kind == "count":
            rule = f"hold whole numbers from 0 on (or be real, {self._option('real')})"
            self._require_all((numbers >= 0) & (numbers == numbers.round(0)), rule, values)
        return numbers

    def _option(self, kind: Kind) -> str:
        return f"--column {self.name}={kind}"

    def _require_all(self, holds: pl.Series, rule: str, values: pl.Series) -> None:
        """Refuse the first value that breaks a rule; missing ones are none."""
        wrong = (~holds.fill_null(False)) & values.is_not_null()
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            checks.require(False, self._title, rule, f"{values[row]!r} at row {row}")

    # To values

    def decode(self, numbers: np.ndarray) -> pl.Series:
        """The inverse of `encode`: values of the table's type and decimals, null for NaN.  Shapes: [N]."""
        return self._categories_of(numbers) if self.is_label else self._rounded(numbers)

    def _categories_of(self, numbers: np.ndarray) -> pl.Series:
        missing = np.isnan(numbers)
        last = len(self.categories) - 1
        codes = np.clip(np.rint(np.where(missing, 0, numbers)), 0, last).astype(int).tolist()
        text = [None if gone else self.categories[code] for code, gone in zip(codes, missing, strict=True)]
        values = pl.Series(self.name, text, dtype=pl.String)
        if self.dtype == "Boolean":
            return values == "true"
        return values.cast(pl.Enum(self.categories) if self.dtype == "Enum" else DTYPES[self.dtype])

    def _rounded(self, numbers: np.ndarray) -> pl.Series:
        if self.decimals is not None:
            numbers = np.round(numbers, self.decimals)
            if self.kind == "positive":  # rounding must not give 0
                numbers = np.where(numbers == self.point_mass, numbers, np.maximum(numbers, 10.0**-self.decimals))
        dtype = DTYPES[self.dtype]
        if dtype.is_integer():
            limits = np.iinfo(self.dtype.lower())
            numbers = np.clip(numbers, max(limits.min, -WHOLE), min(limits.max, WHOLE))
        values = pl.Series(self.name, numbers, dtype=pl.Float64).fill_nan(None)
        return values.cast(dtype) if dtype.is_numeric() else values


def as_words(values: pl.Series) -> pl.Series:
    """Values as words; whole floats without their point, so that 1.0 and 1 are one category."""
    text = values.cast(pl.String)
    return text.str.replace(r"\.0$", "") if values.dtype.is_float() else text


def listed(categories: tuple[str, ...]) -> str:
    """The first categories, as a message lists them."""
    more = f" and {len(categories) - 10} more" if len(categories) > 10 else ""
    return ", ".join(map(repr, categories[:10])) + more
