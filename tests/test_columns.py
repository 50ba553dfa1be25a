"""A column as numbers and back: the same values, types, categories and decimals; what contradicts it is refused."""

import datetime

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_series_equal

from cvae.columns import DTYPES, Column
from cvae.schema import infer
from cvae.settings import from_json, to_json

ROUND_TRIPS = {
    "words": pl.Series("a", ["x", "z", None, "y", "x", "z", "x", "y"]),
    "flags": pl.Series("a", [True, None, False]),
    "text flags": pl.Series("a", ["yes", None, "no"]),
    "floats": pl.Series("a", [0.125, None, -3.5, 1e6 / 3, 4.0]),
    "single floats": pl.Series("a", [0.5, None, -3.25, 4.0], dtype=pl.Float32),
    "decimals": pl.Series("a", [326.12, 327.5, None, 18823.07]),
    "whole floats with nulls": pl.Series("a", [3.0, None, 250.0, -17.0] * 9 + [*np.arange(100.0) * 7]),
    "integers": pl.Series("a", [None, *(1_700_000_000 + 37 * k for k in range(30))]),
    "small counts": pl.Series("a", [0, 1, 2, None, 9, 0, 0], dtype=pl.UInt8),
    "steps": pl.Series("a", [-2, -1, 0, None, 1, 2, 0, 1], dtype=pl.Int16),
    "whole steps": pl.Series("a", [2007.0, 2008.0, None, 2009.0, 2007.0]),
    "two numbers": pl.Series("a", [0.5, 1.5, None, 0.5]),
    "categorical": pl.Series("a", ["x", "z", None, "y", "x", "z", "x", "y"], dtype=pl.Categorical),
    "enum": pl.Series("a", ["low", "high", None, "middle", "low", "low"], dtype=pl.Enum(["low", "middle", "high"])),
}  # fmt: skip


def of(values, kind=None):
    """The column that is inferred, beside one that is always modelled."""
    frame = pl.DataFrame({"a": values, "b": np.linspace(0, 1, len(values))})
    return infer(frame, kinds={"a": kind} if kind else None).column("a")


@pytest.mark.parametrize("values", ROUND_TRIPS.values(), ids=ROUND_TRIPS.keys())
def test_values_come_back_as_they_were(values):
    column = of(values)
    numbers = column.encode(values)
    assert numbers.dtype == np.float64
    np.testing.assert_array_equal(np.isnan(numbers), values.is_null().to_numpy())
    assert_series_equal(column.decode(numbers), values)
    assert from_json(Column, to_json(column)) == column
    # Draws are rounded as the values are, and stay within the type.
    drawn = column.decode(np.where(np.isnan(numbers), np.nan, np.nan_to_num(numbers) + 0.000_1234))
    assert drawn.dtype == values.dtype
    assert drawn.null_count() == values.null_count()


def test_draws_stay_within_the_type_and_above_0():
    low = Column("a", "real", dtype="UInt8", decimals=0)
    assert low.decode(np.array([-5.0, 3.4, 300.0, np.nan])).to_list() == [0, 3, 255, None]
    wide = Column("a", "real", dtype="Int64", decimals=0)
    assert wide.decode(np.array([1e30, -1e30])).to_list() == [2**53, -(2**53)]
    price = Column("a", "positive", decimals=2)
    assert price.decode(np.array([0.001, 2.343, np.nan])).to_list() == [0.01, 2.34, None]
    label = Column("a", "categorical", categories=("x", "y", "z"), dtype="String")
    assert label.decode(np.array([-3.0, 1.2, 9.0])).to_list() == ["x", "y", "z"]


def test_whole_floats_integers_and_their_words_are_one_category():
    column = of(pl.Series([1, 2, 3, 2, 1, 3]), "categorical")
    assert column.categories == ("1", "2", "3")
    for values in ([1, 3], [1.0, 3.0], ["1", "3"]):
        np.testing.assert_array_equal(column.encode(pl.Series(values)), [0, 2])
    assert of(pl.Series([10, 9, 1, 9, 1, 10]), "categorical").categories == ("1", "9", "10")


def test_numbers_written_as_words_are_numbers():
    np.testing.assert_array_equal(Column("a", "real").encode(pl.Series(["1.5", None, "2"])), [1.5, np.nan, 2])


CUT = Column("cut", "categorical", categories=("Fair", "Good", "Ideal"), dtype="String")
BAD_VALUES = {
    "huge": (Column("id", "real"), [1, 2**53 + 1], r"hold integers up to 2\^53, .*, got 9007199254740993 at row 1$"),
    "unseen": (
        CUT,
        ["Good", None, "Best"],
        r"^column 'cut' must be one of 'Fair', .*, the values in the training rows, got 'Best' at row 2$",
    ),
    "unseen number": (
        Column("a", "binary", categories=("0", "1")),
        [1.0, 2.5, 0.0],
        "^column 'a' must be one of .*, got 2.5 at row 1$",
    ),
    "words": (Column("a", "real"), ["1", "x"], "^column 'a' must hold numbers to be real, got 'x' at row 1$"),
    "dates": (
        Column("a", "real"),
        [datetime.date(2020, 1, 1)],
        "^column 'a' must hold numbers to be real, got Date values$",
    ),
    "lists": (
        Column("a", "count"),
        [[1], [2]],
        r"^column 'a' must hold numbers to be count, got List\(Int64\) values$",
    ),
    "infinite": (Column("a", "real"), [1.0, np.inf], "^column 'a' must hold finite numbers, got inf at row 1$"),
    "too large": (Column("a", "real"), [1.0, 1e39], r"^column 'a' must hold finite numbers, got 1e\+39 at row 1$"),
    "zero": (
        Column("a", "positive"),
        [1.0, 0.0],
        r"^column 'a' must hold numbers above 0 by 1e-30 at least \(or be real, --column a=real\), got 0.0 at row 1$",
    ),
    "no exposure": (
        Column("a", "positive", role="exposure"),
        [1.0, 0.0],
        "^column 'a' must hold numbers above 0 by 1e-30 at least, got 0.0 at row 1$",
    ),
    "negative count": (
        Column("n", "count"),
        [3, -1],
        r"^column 'n' must hold whole numbers from 0 on \(or be real, --column n=real\), got -1 at row 1$",
    ),
    "half a count": (
        Column("n", "count"),
        [3.0, 1.5],
        "^column 'n' must hold whole numbers from 0 on .*, got 1.5 at row 1$",
    ),
}


@pytest.mark.parametrize(("column", "values", "message"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
def test_values_that_contradict_the_column_are_refused(column, values, message):
    with pytest.raises(ValueError, match=message):
        column.encode(pl.Series(values))


def test_a_long_list_of_categories_is_cut_short():
    column = Column("a", "categorical", categories=tuple(map(str, range(30))))
    with pytest.raises(ValueError, match="'9' and 20 more, the values in the training rows, got 99 at row 0"):
        column.encode(pl.Series([99]))


BAD_COLUMNS = {
    "dtype": (
        {"kind": "real", "dtype": "Flaot64"},
        "^the dtype of column 'a' must be one of Float32, .*, got 'Flaot64'",
    ),
    "binary": (
        {"kind": "binary", "categories": ("x",)},
        "^column 'a' must have different categories, two if .*, got 'x'$",
    ),
    "twice": ({"kind": "categorical", "categories": ("x", "y", "x")}, "^column 'a' must have different categories"),
    "none": ({"kind": "categorical"}, "^column 'a' must have different categories, .*, got none$"),
    "real": (
        {"kind": "real", "categories": ("x", "y")},
        "^column 'a' must have different categories, .* else none, got",
    ),
    "kind": ({"kind": "ordinal"}, "^kind must be 'real', .* or 'omitted', got 'ordinal'"),
    "name": ({"name": "", "kind": "real"}, "^name must have at least 1 character"),
}


@pytest.mark.parametrize(("fields", "message"), BAD_COLUMNS.values(), ids=BAD_COLUMNS.keys())
def test_bad_columns_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Column(**({"name": "a"} | fields))
    assert Column("a", "omitted", dtype="Date").dtype not in DTYPES
