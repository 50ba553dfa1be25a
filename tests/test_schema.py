"""The schema of a table: kinds and their reasons, arrays both ways, likelihood and condition, and what is refused."""

import datetime

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cvae
from cvae.columns import Column
from cvae.schema import Schema, infer
from cvae.settings import from_json, replace, to_json

RNG = np.random.default_rng(0)
SIZE = 400
HOLES = RNG.random(SIZE) < 0.2
CUTS = ["Fair", "Good", "Ideal"]
TABLE = pl.DataFrame(
    {
        "id": np.arange(SIZE) + 7,
        "price": np.round(np.exp(RNG.normal(7, 1, SIZE)), 2),
        "depth": np.where(HOLES, np.nan, np.round(RNG.normal(61, 1.4, SIZE), 1)),
        "cut": np.where(RNG.random(SIZE) < 0.1, None, RNG.choice(CUTS, SIZE)).tolist(),
        "visits": RNG.negative_binomial(1.0, 0.2, SIZE),
        "months": np.round(RNG.uniform(1, 24, SIZE), 1),
        "member": RNG.random(SIZE) < 0.3,
        "age": RNG.integers(18, 90, SIZE) + 0.5,
        "unit": ["mm"] * SIZE,
    }
)
KINDS = {
    "id": "omitted", "price": "positive", "depth": "real", "cut": "categorical", "visits": "count",
    "months": "positive", "member": "binary", "age": "real", "unit": "omitted",
}  # fmt: skip
SCHEMA = infer(TABLE, conditions=("member", "age"), optional=("cut",), exposure="months")


def test_kinds_are_inferred_with_their_reasons():
    assert {column.name: column.kind for column in infer(TABLE).columns} == KINDS
    assert SCHEMA.column("id").reason == "consecutive numbers, each once: those of the rows"
    assert SCHEMA.column("unit").reason == "constant, mm"
    assert SCHEMA.column("price").reason.endswith(", all positive")
    assert SCHEMA.column("price").decimals == 2
    assert SCHEMA.column("cut").categories == ("Fair", "Good", "Ideal")
    assert SCHEMA.column("age").low == TABLE["age"].min()
    assert [column.name for column in SCHEMA.modelled] == ["price", "depth", "visits"]
    assert [column.name for column in SCHEMA.conditions] == ["cut", "months", "member", "age"]


ONE = {
    "levels": (RNG.choice([0.0, 3.25, 4.6], 60), "categorical", "3 different numbers from 0 to 4.6"),
    "year": (RNG.integers(2007, 2010, 50), "categorical", "3 whole numbers from 2007 to 2009"),
    "unix seconds": (1_700_000_000 + RNG.integers(0, 1200, 400), "real", "from 17000"),
    "grams": (RNG.integers(54, 126, 300) * 50, "real", "from 2700 to"),
    "rating": (RNG.integers(1, 6, 50), "categorical", "5 whole numbers"),
    "likert": (RNG.integers(-2, 3, 50), "categorical", "5 whole numbers"),
    "whole floats with nulls": ([*RNG.poisson(2.0, 50).astype(float), None], "count", "whole numbers from 0 to"),
    "dollars": (np.rint(np.exp(RNG.normal(8, 1, 400))).astype(int), "positive", ", all positive"),
    "temperatures": (RNG.normal(0, 5, 50), "real", "from -"),
    "flags": ([True, False, True], "binary", "two values"),
    "yes and no": (["yes", "no", "yes", None], "binary", "two values"),
    "two numbers": ([1.5, 2.5, 1.5], "binary", "two values"),
    "names": ([f"person {k}" for k in range(50)], "omitted", "50 different values in 50 rows: names or identifiers"),
    "constant": ([3.0, 3.0, None], "omitted", "constant, 3.0"),
    "missing": ([None, None], "omitted", "every cell is missing"),
    "nan": ([float("nan")] * 3, "omitted", "every cell is missing"),
    "dates": ([datetime.date(2020, 1, k + 1) for k in range(9)], "omitted", "a date or time: write it as a number"),
    "lists": ([[1], [2], [3]], "omitted", "List(Int64) values: neither numbers nor words"),
    "row numbers": (np.arange(50), "omitted", "consecutive numbers, each once"),
}


@pytest.mark.parametrize(("values", "kind", "reason"), ONE.values(), ids=ONE.keys())
def test_the_kind_of_one_column(values, kind, reason):
    frame = pl.DataFrame({"a": values, "b": np.linspace(0, 1, len(values))})
    column = infer(frame, kinds={"b": "real"}).column("a")
    assert (column.kind, reason in column.reason) == (kind, True), column


def test_kinds_can_be_corrected():
    schema = infer(TABLE, kinds={"visits": "real", "id": "real", "price": "omitted", "depth": "categorical"})
    assert [schema.column(name).kind for name in ("visits", "id", "price")] == ["real", "real", "omitted"]
    assert schema.column("visits").reason == "as requested"
    assert len(schema.column("depth").categories) > 30


def test_a_table_becomes_arrays_and_a_table_again():
    x, c = SCHEMA.encode(TABLE)
    assert x.shape == (SIZE, 3)
    np.testing.assert_array_equal(x[:, 0], TABLE["price"])
    np.testing.assert_array_equal(np.isnan(x[:, 1]), HOLES)
    assert {name: values.dtype.name for name, values in c.items()} == {
        "cut": "int32", "months": "float64", "member": "int32", "age": "float64",
    }  # fmt: skip
    assert [c[name].shape for name in ("cut", "months", "age")] == [(SIZE,), (SIZE,), (SIZE, 1)]
    assert set(c["cut"].tolist()) == {-1, 0, 1, 2}
    expected = TABLE.drop("id", "unit").with_columns(pl.col("depth").fill_nan(None))
    assert_frame_equal(SCHEMA.decode(x, c), expected)


def test_columns_may_come_in_another_order_and_be_more_and_from_any_source(tmp_path):
    x, c = SCHEMA.encode(TABLE)
    TABLE.write_csv(tmp_path / "a.csv")
    shuffled = TABLE.select(sorted(TABLE.columns)).with_columns(more=pl.lit("x"))
    frame = pd.DataFrame({name: TABLE[name].to_list() for name in TABLE.columns})
    for source in (shuffled, TABLE.lazy(), tmp_path / "a.csv", frame):
        other_x, other_c = SCHEMA.encode(source)
        np.testing.assert_array_equal(other_x, x)
        for name in c:
            np.testing.assert_array_equal(other_c[name], c[name])
    nothing, same_c = SCHEMA.encode(TABLE.drop("price", "depth", "visits"), only_conditions=True)
    assert nothing is None
    np.testing.assert_array_equal(same_c["age"], c["age"])


def test_the_likelihood_and_the_condition_are_those_of_the_kinds():
    x, c = SCHEMA.encode(TABLE)
    likelihood = SCHEMA.likelihood(x, c)
    assert isinstance(likelihood, cvae.Missing)
    assert [type(part) for part in likelihood.base.parts] == [cvae.LogNormal, cvae.Normal, cvae.NegativeBinomial]
    assert likelihood.base.columns == ((0,), (1,), (2,))
    per_month = TABLE["visits"].sum() / TABLE["months"].sum()
    assert np.exp(likelihood.base.parts[2].location[0]) == pytest.approx(per_month)
    known = SCHEMA.likelihood(x[~HOLES], {name: values[~HOLES] for name, values in c.items()})
    assert known == cvae.Columns(known.parts, likelihood.base.columns)
    condition = SCHEMA.condition(c)
    parts = [type(part) for part in condition.parts]
    assert parts == [cvae.Optional, cvae.Exposure, cvae.Label, cvae.Continuous]
    assert condition.parts[0].base == cvae.Label(3, "cut")
    assert condition.parts[3].mean[0] == pytest.approx(TABLE["age"].mean())
    every = infer(TABLE, kinds={"cut": "categorical"})
    parts = every.likelihood(every.encode(TABLE)[0], {}).base.parts
    names = ["LogNormal", "Normal", "Categorical", "NegativeBinomial", "Bernoulli"]
    assert [type(part).__name__ for part in parts] == names
    assert every.condition({}) == cvae.Unconditional()
    assert infer(TABLE, conditions=("age",)).condition(c) == condition.parts[3]
    gaps = infer(TABLE, optional=("depth",))
    fitted = gaps.condition(gaps.encode(TABLE)[1])
    assert fitted.base.mean[0] == pytest.approx(np.nanmean(TABLE["depth"]))


def test_a_value_that_many_rows_share_at_an_end_of_the_range_has_a_probability_of_its_own():
    income = np.round(np.exp(RNG.normal(8, 1, 200)), 2)
    income[:60] = 0
    capped = np.minimum(np.round(RNG.normal(95, 5, 200), 3), 100)
    table = pl.DataFrame({"income": income, "capped": capped, "age": RNG.normal(40, 9, 200)})
    schema = infer(table, conditions=("age",))
    first, second = schema.modelled
    assert (first.kind, first.point_mass) == ("positive", 0)
    assert first.reason == f"from 0 to {income.max():.12g}, 0 in 30% of rows, all others positive"
    assert (second.kind, second.point_mass) == ("real", 100)
    x, c = schema.encode(table)
    assert_frame_equal(schema.decode(x, c), table)
    masses = schema.likelihood(x, c).parts
    assert [part.value for part in masses] == [(0.0,), (100.0,)]
    assert masses[0].base.location[0] == pytest.approx(np.log(income[60:]).mean())
    with pytest.raises(ValueError, match="column 'income' must hold numbers above 0"):
        schema.encode(table.with_columns(income=pl.lit(-1.0)))
    # Neither a few rows, nor the middle of the range.
    assert infer(table[51:], kinds={"income": "real"}).column("income").point_mass is None
    assert infer(table.with_columns(income=np.where(income == 0, 3000, income))).column("income").point_mass is None
    requested = infer(table, kinds={"income": "positive"}).column("income")
    assert (requested.kind, requested.point_mass) == ("positive", 0)


def test_a_condition_that_never_varies_is_left_out_with_a_note():
    schema = infer(TABLE, conditions=("unit", "age"))
    assert [column.name for column in schema.conditions] == ["age"]
    assert "condition 'unit' is left out: constant, mm" in schema.notes
    assert "column 'id' is left out: consecutive numbers, each once: those of the rows" in schema.notes
    months = TABLE.with_columns(months=pl.lit(12.0))
    constant = infer(months, exposure="months")
    assert constant.condition(constant.encode(months)[1]) == cvae.Exposure(float(np.log(12)), 1.0, "months")
    halves = TABLE.with_columns(months=pl.Series([1.0, 12.0] * (SIZE // 2)))  # two values, and yet no category
    np.testing.assert_array_equal(infer(halves, exposure="months").encode(halves)[1]["months"], halves["months"])


def test_values_far_from_0_keep_their_digits():
    """Case 8: Unix seconds within 20 minutes, as a column and as a condition."""
    seconds = 1_700_000_000 + RNG.integers(0, 1200, SIZE)
    table = pl.DataFrame({"time": seconds, "other": seconds, "b": RNG.normal(size=SIZE)})
    schema = infer(table, conditions=("other",))
    x, c = schema.encode(table)
    likelihood, condition = schema.likelihood(x, c), schema.condition(c)
    assert likelihood.parts[0].scale[0] == pytest.approx(seconds.std())
    assert condition.std[0] == pytest.approx(seconds.std())
    np.testing.assert_allclose(np.std(likelihood.features(x)[:, 0]), 1, rtol=1e-4)
    assert_frame_equal(schema.decode(x, c), table)


def test_a_model_with_a_schema_scores_tables():
    x, c = SCHEMA.encode(TABLE)
    fields = {"event_shape": (3,), "latent_size": 2, "hidden": (8,)}
    likelihood, condition = SCHEMA.likelihood(x, c), SCHEMA.condition(c)
    architecture = cvae.Architecture(condition=condition, likelihood=likelihood, schema=SCHEMA, **fields)
    assert from_json(cvae.Architecture, to_json(architecture)) == architecture
    model, key = cvae.make(architecture), jax.random.key(0)
    params = model.init(key)
    fitted = cvae.fit(model, params, key, TABLE, {}, cvae.Training(epochs=2), progress=False)
    one = cvae.elbo(model, fitted.params, key, TABLE, {}).value
    np.testing.assert_array_equal(one, cvae.elbo(model, fitted.params, key, x, c).value)
    assert np.isfinite(one).all()
    draws = cvae.sample(model, fitted.params, key, c)
    table = SCHEMA.decode(draws, c)
    assert table.schema == {name: TABLE.schema[name] for name in table.columns}
    assert (table["price"] > 0).all()
    with pytest.raises(
        ValueError, match=r"^event_shape must be \(3,\), the modelled columns of the schema, got \(4,\)"
    ):
        replace(architecture, event_shape=(4,))


def test_words_that_look_like_numbers_stay_words_in_another_file(tmp_path):
    (tmp_path / "train.csv").write_text("code,zip,y\n" + "a,01,1.5\nb2,02,2.5\n03,0A,0.5\n" * 9)
    (tmp_path / "later.csv").write_text("y,zip,code\n3.5,02,007\n1,01,008\n2,01,009\n")
    schema = infer(tmp_path / "train.csv", conditions=("zip",), kinds={"code": "omitted", "y": "real"})
    np.testing.assert_array_equal(schema.encode(tmp_path / "later.csv")[1]["zip"], [1, 0, 0])
    later = schema.read(tmp_path / "later.csv")
    assert later.to_dict(as_series=False) == {
        "y": [3.5, 1, 2],
        "zip": ["02", "01", "01"],
        "code": ["007", "008", "009"],
    }


@pytest.mark.parametrize("kind", ["real", "positive"])
def test_values_of_any_size_that_float32_can_hold_keep_it(kind):
    values = np.exp(RNG.normal(size=SIZE)) * 1e-28
    schema = infer(pl.DataFrame({"a": values}), kinds={"a": kind})
    x, c = schema.encode(pl.DataFrame({"a": values}))
    likelihood = schema.likelihood(x, c)
    assert np.std(likelihood.features(x)) == pytest.approx(1, rel=1e-4)
    drawn = likelihood.distribution(jnp.zeros((SIZE, 2)), (1,)).sample(jax.random.key(0))
    logs = [np.log(np.abs(array)).mean() for array in (schema.decode(drawn, c)["a"].to_numpy(), values)]
    assert logs[0] == pytest.approx(logs[1], abs=1)


@pytest.mark.parametrize("conditions", [(), ("a",)])
def test_values_that_float32_cannot_hold_are_refused(conditions):
    small = RNG.normal(size=(SIZE, 1)) * 1e-40
    table = pl.DataFrame({"a": small[:, 0], "b": RNG.normal(size=SIZE)})
    with pytest.raises(ValueError, match=r"^column 'a' must vary by 1e-30 at least, .*, got numbers from -.*e-40 to"):
        infer(table, conditions=conditions)
    for fitted in (cvae.Normal.fitted, cvae.Continuous.fitted):
        with pytest.raises(ValueError, match=r"must vary by 1e-30 at least, or not at all, got .*e-4"):
            fitted(small)


def with_one(name, row, value):
    """The table with one other value."""
    values = TABLE[name].to_list()
    values[row] = value
    return TABLE.with_columns(pl.Series(name, values, strict=False))


BAD_TABLES = {
    "absent": (TABLE.drop("price"), r"^the table must have the columns \['price', .*\], got none named \['price'\]$"),
    "unseen": (
        with_one("cut", 7, "Best"),
        "^column 'cut' must be one of 'Fair', 'Good', 'Ideal', .*, got 'Best' at row 7$",
    ),
    "negative count": (
        with_one("visits", 3, -2),
        "^column 'visits' must hold whole numbers from 0 on .* got -2 at row 3$",
    ),
    "infinite": (with_one("depth", 2, float("inf")), "^column 'depth' must hold finite numbers, got inf at row 2$"),
    "other units": (
        TABLE.with_columns(price=pl.lit("12 EUR")),
        "^column 'price' must hold numbers .*, got '12 EUR' at row 0",
    ),
    "missing condition": (
        with_one("age", 5, None),
        r"^condition 'age' must be known in every row \(or be optional, --optional age\), got a missing value at row",
    ),
    "missing exposure": (with_one("months", 5, None), "^exposure 'months' must be known in every row"),
    "no exposure": (with_one("months", 4, 0.0), "^column 'months' must hold numbers above 0 .*, got 0.0 at row 4$"),
}


@pytest.mark.parametrize(("table", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_a_table_that_contradicts_the_schema_is_refused(table, message):
    with pytest.raises(ValueError, match=message):
        SCHEMA.encode(table)


def test_a_class_only_outside_the_training_part_is_named():
    rare = with_one("cut", SIZE - 1, "Rare")
    schema = infer(rare.head(300), conditions=("cut",), kinds={"cut": "categorical"})
    with pytest.raises(
        ValueError, match=r"^column 'cut' must be one of .*, the values in the training rows, got 'Rare'"
    ):
        schema.encode(rare.tail(10).with_columns(pl.col("cut").fill_null("Good")))


BAD_REQUESTS = {
    "unknown condition": ({"conditions": ("colour",)}, "^column must be one of id, price, .*, got 'colour'$"),
    "unknown kind": (
        {"kinds": {"price": "ordinal"}},
        "^the kind of column 'price' must be one of real, .*, got 'ordinal'$",
    ),
    "unknown column": ({"kinds": {"colour": "real"}}, "^column must be one of id, .*, got 'colour'$"),
    "words as numbers": ({"kinds": {"cut": "real"}}, "^column 'cut' must hold numbers to be real, got '.*' at row"),
    "constant": (
        {"kinds": {"unit": "categorical"}},
        r"^column 'unit' must have two different values or more \(or be omitted, --column unit=omitted\), got 'mm' in",
    ),
    "binary": (
        {"kinds": {"cut": "binary"}},
        r"^column 'cut' must have two .* \(or be categorical\), got 3: 'Fair', 'Good'",
    ),
    "count": (
        {"kinds": {"price": "count"}},
        r"^column 'price' must hold whole numbers from 0 on \(or be real, --column",
    ),
    "exposure": ({"exposure": "visits"}, "^column 'visits' must hold numbers above 0 .*, got 0 at row"),
}


@pytest.mark.parametrize(("request_", "message"), BAD_REQUESTS.values(), ids=BAD_REQUESTS.keys())
def test_requests_that_contradict_the_values_are_refused(request_, message):
    with pytest.raises(ValueError, match=message):
        infer(TABLE, **request_)


BAD_COLUMNS = {
    "all missing": (
        {"a": [None, None]},
        {"a": "real"},
        r"^column 'a' must have two .*=omitted\), got missing cells only$",
    ),
    "infinite": ({"a": [1.0, float("inf"), 2.0]}, {}, "^column 'a' must hold finite numbers, got inf at row 1$"),
    "nothing": (
        {f"{k}": [k, k] for k in range(10)},
        {},
        r"^columns must be modelled, one at least, got none of '0' \(constant, 0\), .* '7' \(constant, 7\) and 2 more$",
    ),
}


@pytest.mark.parametrize(("columns", "kinds", "message"), BAD_COLUMNS.values(), ids=BAD_COLUMNS.keys())
def test_columns_without_a_kind_are_refused(columns, kinds, message):
    with pytest.raises(ValueError, match=message):
        infer(pl.DataFrame(columns), kinds=kinds)


def test_schemas_are_hashable_settings_with_different_names():
    copy = from_json(Schema, to_json(SCHEMA))
    assert copy == SCHEMA
    assert hash(copy) == hash(SCHEMA)
    with pytest.raises(ValueError, match=r"^columns must have different names, got"):
        Schema((Column("a", "real"), Column("a", "count")))
    with pytest.raises(ValueError, match=r"^column must be one of id, .*, got 'colour'"):
        SCHEMA.column("colour")
