"""What the columns of a table mean, and the arrays that a model takes in their place.

A `Schema` is inferred from a table, may be corrected, and is a setting: it is written with a run and read with it. It
turns a table into x, one column of numbers for each that is modelled, and c, and turns draws back into a table of the
same names, types, categories and decimals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import polars as pl

from cvae import checks
from cvae.checks import SMALLEST
from cvae.columns import DTYPES, Column, Kind, Role, as_words, listed
from cvae.conditions import Condition, Continuous, Exposure, Label, Mixed, Optional, Unconditional
from cvae.likelihoods import (
    Bernoulli,
    Categorical,
    Columns,
    Likelihood,
    LogNormal,
    Missing,
    NegativeBinomial,
    Normal,
    PointMass,
)  # fmt: skip
from cvae.likelihoods.real import LEAST_LOG_SCALE
from cvae.settings import setting
from cvae.tables import cleaned, read_table

MOST_WORDS = 200  # different values of a column of words; more are taken for names or identifiers
MOST_COUNTS = 100  # different values of a column of counts
MOST_STEPS = 20  # different values of a column of whole numbers that is categorical
MOST_LEVELS = 50  # different values of a column of other numbers that is categorical, in
ROWS_A_LEVEL = 20  # so many rows for each of them, on average
NEAR_0 = 10  # from here or below, counts start
LEAST_SCATTER = 0.7  # variance over mean of counts; of a Poisson it is 1, of a negative binomial more
MOST_DECIMALS = 6
NEARLY = 0.95  # share of the values of a column that have as many decimals as its draws
MASS, MASS_ROWS = 0.1, 10  # share and number of rows at an end of a range from which it has a probability of its own
MOST_REASONS = 8  # columns of which an error says why they are not modelled
SKEWED = 10.0  # ratio of the largest to the smallest value from which a positive column is on a log scale


@setting
class Schema:
    """The columns of a table, in its order."""

    columns: tuple[Column, ...]
    """the columns"""

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        checks.require(len(set(names)) == len(names), "columns", "have different names", names)
        if not self.modelled:
            why = [f"{each.name!r} ({each.reason if each.kind == 'omitted' else each.role})" for each in self.columns]
            more = f" and {len(why) - MOST_REASONS} more" if len(why) > MOST_REASONS else ""
            got = f"none of {', '.join(why[:MOST_REASONS])}{more}"
            checks.require(False, "columns", "be modelled, one at least", got)

    @property
    def modelled(self) -> tuple[Column, ...]:
        """The columns of x."""
        return tuple(column for column in self.columns if column.role == "modelled" and column.kind != "omitted")

    @property
    def conditions(self) -> tuple[Column, ...]:
        """The columns of c."""
        return tuple(column for column in self.columns if column.role != "modelled" and column.kind != "omitted")

    @property
    def notes(self) -> tuple[str, ...]:
        """What is left out, one sentence for each column."""
        return tuple(
            f"{'column' if column.role == 'modelled' else column.role} {column.name!r} is left out: {column.reason}"
            for column in self.columns
            if column.kind == "omitted"
        )

    def column(self, name: str) -> Column:
        """The column of a name."""
        found = {column.name: column for column in self.columns}
        checks.require(name in found, "column", f"be one of {', '.join(found)}", repr(name))
        return found[name]

    # Arrays

    def read(self, source: Any) -> pl.DataFrame:
        """The table of anything that `read_table` reads; columns of words are words again, such as 01 in a CSV file."""
        words = [column.name for column in self.columns if column.dtype in ("String", "Categorical", "Enum")]
        return read_table(source, words)

    def encode(self, table: Any, *, only_conditions: bool = False) -> tuple[np.ndarray | None, dict[str, np.ndarray]]:
        """The arrays x, float64 [N, D] with NaN where a cell is missing, and c; x is None with `only_conditions`.

        The table is anything that `read_table` reads. Its columns may come in any order, and may be more.

        Raises:
            ValueError: a column holds values of another kind; one that is no optional condition is absent, or such a
                condition missing in a row.
        """
        table = self.read(table)
        wanted = self.conditions if only_conditions else self.modelled + self.conditions
        optional = [column.name for column in wanted if column.role == "optional condition"]
        table = table.with_columns(pl.lit(None).alias(name) for name in optional if name not in table.columns)
        known = set(table.columns)
        absent = [column.name for column in wanted if column.name not in known]
        rule = f"have the columns {[column.name for column in wanted]}"
        checks.require(not absent, "the table", rule, f"none named {absent}")
        c = {column.name: _condition_values(column, column.encode(table[column.name])) for column in self.conditions}
        if only_conditions:
            return None, c
        return np.stack([column.encode(table[column.name]) for column in self.modelled], axis=1), c

    def decode(self, x: Any, c: Mapping[str, Any]) -> pl.DataFrame:
        """The table of arrays, its columns in the order of the file; omitted ones are left out."""
        x = np.asarray(x, np.float64)
        columns = {column.name: column.decode(x[:, k]) for k, column in enumerate(self.modelled)}
        for column in self.conditions:
            values = np.asarray(c[column.name], np.float64).reshape(len(x))
            is_missing = column.is_label & (values < 0)
            columns[column.name] = column.decode(np.where(is_missing, np.nan, values))
        return pl.DataFrame([columns[column.name] for column in self.columns if column.name in columns])

    # Models

    def likelihood(self, x: np.ndarray, c: Mapping[str, np.ndarray]) -> Likelihood:
        """The likelihood of x, each column by its kind, fitted to the training rows that `encode` gives.

        Real columns are Normal, positive ones log-normal, counts negative binomial, two-valued ones Bernoulli, others
        categorical; a value at the end of the range that many rows share is a `PointMass`; `Missing` if a cell is
        missing.
        """
        exposure = next((c[column.name] for column in self.conditions if column.role == "exposure"), 1.0)
        groups: dict[Any, list[int]] = {}
        for number, column in enumerate(self.modelled):
            groups.setdefault((column.kind, len(column.categories), column.point_mass is None), []).append(number)
        parts = [
            _likelihood([self.modelled[k] for k in numbers], x[:, numbers], exposure) for numbers in groups.values()
        ]
        columns = Columns(tuple(parts), tuple(tuple(numbers) for numbers in groups.values()))
        return Missing(columns) if np.isnan(x).any() else columns

    def condition(self, c: Mapping[str, np.ndarray]) -> Condition:
        """The condition of c, its numbers standardised by the training rows that `encode` gives."""
        parts = [_condition(column, c[column.name]) for column in self.conditions]
        if len(parts) < 2:
            return parts[0] if parts else Unconditional()
        return Mixed(tuple(parts))


def _condition_values(column: Column, values: np.ndarray) -> np.ndarray:
    """The values of a column as its condition takes them: [N] for labels and exposures, else [N, 1]."""
    missing = np.isnan(values)
    rule = "be known in every row" + f" (or be optional, --optional {column.name})" * (column.role == "condition")
    known = column.role == "optional condition" or not missing.any()
    checks.require(known, f"{column.role} {column.name!r}", rule, f"a missing value at row {int(missing.argmax())}")
    if column.role == "exposure":
        return values
    if column.is_label:
        return np.where(missing, -1, values).astype(np.int32)
    return values[:, None]


def _condition(column: Column, values: np.ndarray) -> Condition:
    if column.role == "exposure":
        return Exposure.fitted(values, column.name)
    if column.is_label:
        part: Condition = Label(len(column.categories), column.name)
    else:
        part = Continuous.fitted(values[~np.isnan(values[:, 0])], column.name)
    return Optional(part) if column.role == "optional condition" else part


def _likelihood(columns: list[Column], x: np.ndarray, exposure: Any) -> Likelihood:
    """The likelihood of columns of one kind."""
    first = columns[0]
    if first.kind == "count":
        return NegativeBinomial.fitted(x, exposure)
    if first.is_label:
        return Bernoulli() if first.kind == "binary" else Categorical(len(first.categories))
    family = LogNormal if first.kind == "positive" else Normal
    masses = tuple(column.point_mass for column in columns if column.point_mass is not None)
    return PointMass(family.fitted(np.where(x == masses, np.nan, x)), masses) if masses else family.fitted(x)


# Inference


def infer(
    table: Any,
    *,
    conditions: tuple[str, ...] = (),
    optional: tuple[str, ...] = (),
    exposure: str | None = None,
    kinds: Mapping[str, Kind] | None = None,
) -> Schema:
    """The schema of a table: the kind of every column, with the reason.

    Args:
        table: the training rows, anything that `read_table` reads; they decide categories and ranges. Of a polars
            LazyFrame, such as `data.scan_table` gives, one column at a time is read.
        conditions: names of the columns that are conditioned on.
        optional: names of conditions that may be missing.
        exposure: the name of a column by which the means of counts are multiplied, which is positive.
        kinds: kinds by name, in place of the inferred ones.

    Raises:
        ValueError: a name is not a column's, or a kind contradicts the values.
    """
    frame = (cleaned(table) if isinstance(table, pl.LazyFrame) else read_table(table)).lazy()
    names = frame.collect_schema().names()
    wanted = dict(kinds or {})
    roles: dict[str, Role] = dict.fromkeys(conditions, "condition")
    roles |= dict.fromkeys(optional, "optional condition")
    if exposure is not None:
        roles[exposure], wanted[exposure] = "exposure", "positive"
    for name in [*roles, *wanted]:
        checks.require(name in names, "column", f"be one of {', '.join(names)}", repr(name))
    columns = (frame.select(name).collect().to_series() for name in names)
    return Schema(tuple(_infer(each, wanted.get(each.name), roles.get(each.name, "modelled")) for each in columns))


def _infer(values: pl.Series, wanted: Kind | None, role: Role) -> Column:
    """The column of these values, of a kind that is wanted or inferred."""
    name, title = values.name, f"column {values.name!r}"
    if wanted is not None:
        checks.one_of(f"the kind of {title}", wanted, get_args(Kind))
        kind, reason = wanted, "as requested"
    else:
        if values.dtype.is_float():
            Column(name, "real").encode(values)  # refuses infinite values, which no kind can have
        kind, reason = _kind(values)
    dtype = values.dtype.base_type().__name__
    dtype = dtype if dtype in DTYPES else "Float64"
    if kind == "omitted":
        return Column(name, kind, reason, dtype, role=role)
    known = values.drop_nulls()
    different = known.unique()
    rule = f"have two different values or more (or be omitted, --column {name}=omitted)"
    got = f"{different[0]!r} in every row" if len(different) else "missing cells only"
    checks.require(len(different) > 1 or role == "exposure", title, rule, got)
    if kind in ("binary", "categorical"):
        categories = _categories(different)
        rule = "have two different values to be binary (or be categorical)"
        fits = kind == "categorical" or len(categories) == 2
        checks.require(fits, title, rule, f"{len(categories)}: {listed(categories)}")
        words = as_words(known)
        counts = tuple(int((words == category).sum()) for category in categories)
        return Column(name, kind, reason, dtype, categories, role=role, counts=counts)
    dtype = dtype if known.dtype.is_numeric() else "Float64"
    numbers = Column(name, "real" if kind == "positive" else kind, dtype=dtype).encode(values)
    numbers = numbers[~np.isnan(numbers)]
    mass = _point_mass(numbers) if kind != "count" and role != "exposure" else None
    low, high = float(numbers.min()), float(numbers.max())
    rule = f"vary by {SMALLEST:g} at least, or float32 cannot hold it (change its units, or omit it)"
    checks.require(high - low >= SMALLEST or low == high, title, rule, f"numbers from {low:g} to {high:g}")
    column = Column(name, kind, reason, dtype, (), _decimals(numbers), low, high, role, mass)
    column.encode(values)  # refuses values that are not of its kind
    return column


def _point_mass(numbers: np.ndarray) -> float | None:
    """The end of the range that so many values equal that it has a probability of its own, as 0 for no income."""
    count, value = max(((numbers == end).sum(), float(end)) for end in (numbers.min(), numbers.max()))
    others = numbers[numbers != value]
    # Digits of the others must survive in float32, which is not moved to the origin here.
    varied = len(others) > 0 and others.std() > LEAST_LOG_SCALE * np.abs(others).max()
    return value if count >= max(MASS_ROWS, MASS * len(numbers)) and varied else None


def _categories(values: pl.Series) -> tuple[str, ...]:
    """Different values as words: numbers in their order, those of an Enum in its, others in that of the alphabet."""
    if values.dtype == pl.Enum or values.dtype.is_numeric():
        return tuple(as_words(values.sort()).to_list())
    return tuple(sorted(as_words(values).to_list()))


def _kind(values: pl.Series) -> tuple[Kind, str]:
    """The kind of a column, and why."""
    known = values.drop_nulls()
    if len(known) == 0:
        return "omitted", "every cell is missing"
    if values.dtype.is_temporal():
        return "omitted", "a date or time: write it as a number to model it"
    if values.dtype.is_nested() or values.dtype in (pl.Object, pl.Binary):
        return "omitted", f"{values.dtype} values: neither numbers nor words"
    different = known.n_unique()
    if different == 1:
        return "omitted", f"constant, {known[0]}"
    if different == 2:
        return "binary", "two values"
    if values.dtype.is_numeric():
        return _kind_of_numbers(known.cast(pl.Float64).to_numpy(), different)
    few = MOST_WORDS if values.dtype in (pl.Categorical, pl.Enum) else min(MOST_WORDS, 0.5 * len(known))
    if different > few:
        return "omitted", f"{different:,} different values in {len(known):,} rows: names or identifiers"
    return "categorical", f"{different} different words"


def _kind_of_numbers(numbers: np.ndarray, different: int) -> tuple[Kind, str]:
    low, high = float(numbers.min()), float(numbers.max())
    spread = f"from {low:.12g} to {high:.12g}"
    if (numbers == np.rint(numbers)).all():
        if different == len(numbers) and high - low == len(numbers) - 1:
            return "omitted", "consecutive numbers, each once: those of the rows"
        scattered = numbers.var() >= LEAST_SCATTER * numbers.mean()
        if 0 <= low <= NEAR_0 and scattered and different <= MOST_COUNTS:
            return "count", f"whole numbers {spread}"
        if different <= MOST_STEPS:
            return "categorical", f"{different} whole numbers {spread}"
    elif different <= MOST_LEVELS and len(numbers) >= ROWS_A_LEVEL * different:
        return "categorical", f"{different} different numbers {spread}"
    mass, others = _point_mass(numbers), numbers
    if mass is not None:
        others = numbers[numbers != mass]
        spread += f", {mass:g} in {1 - len(others) / len(numbers):.0%} of rows"
    if others.min() >= SMALLEST and others.max() / others.min() >= SKEWED and (mass is None or mass >= 0):
        return "positive", f"{spread}, all {'others ' * (mass == 0)}positive"
    return "real", spread


def _decimals(numbers: np.ndarray) -> int | None:
    """The digits after the point that hold nearly every number to a part in 10^12; None if more than six."""
    tolerance = np.abs(numbers) * 1e-12
    for decimals in range(MOST_DECIMALS + 1):
        if (np.abs(np.round(numbers, decimals) - numbers) <= tolerance).mean() >= NEARLY:
            return decimals
    return None
