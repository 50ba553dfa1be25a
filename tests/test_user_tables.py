"""A user's table: its schema, what is noted, and what is refused."""

import json

import numpy as np
import polars as pl
import pytest

import cvae
from cvae.columns import Column
from cvae.settings import to_json
from experiments.harness import user_tables
from experiments.harness.user_data import Input

N = 60
RNG = np.random.default_rng(4)
TEST = cvae.data.split_rows(N, 0).test
TRAIN = cvae.data.split_rows(N, 0).train


def columns():
    return {
        "id": np.arange(N),
        "age": RNG.normal(40, 10, N).round(1),
        "price": np.exp(RNG.normal(3, 2, N)).round(2) + 0.01,
        "visits": RNG.negative_binomial(2, 0.4, N),
        "months": RNG.integers(1, 13, N),
        "sex": np.array(["f", "m"])[RNG.integers(0, 2, N)],
        "cut": np.array(["a", "b", "c"])[np.arange(N) % 3],
    }


def write(tmp_path, **changes):
    """The path of a table with these columns, some of them changed."""
    table = pl.DataFrame(columns() | changes)
    table.write_csv(tmp_path / "some.csv")
    return tmp_path / "some.csv"


def load(path, *condition, **options):
    return user_tables.load(Input(data=path, condition=condition, **options))


def kinds(data):
    return {column.name: column.kind for column in data.schema.columns}


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_kinds_are_inferred_and_roles_are_those_of_the_options(tmp_path, suffix):
    path = tmp_path / f"some{suffix}"
    getattr(pl.DataFrame(columns()), f"write_{suffix[1:]}")(path)
    data = load(path, "cut", "age", exposure="months", optional=("sex",))
    assert kinds(data) == {
        "id": "omitted", "age": "real", "price": "positive", "visits": "count", "months": "positive", "sex": "binary",
        "cut": "categorical",
    }  # fmt: skip
    assert [column.name for column in data.columns] == ["price", "visits"]
    assert [type(part) for part in data.condition.parts] == [
        cvae.Continuous, cvae.Exposure, cvae.Optional, cvae.Label
    ]  # fmt: skip
    assert (data.what, data.event_shape) == ("row", (2,))
    read = pl.read_csv(path) if suffix == ".csv" else pl.read_parquet(path)
    np.testing.assert_array_equal(data.test[0][:, 0], read["price"].to_numpy()[TEST])
    values = {column.name: each for column, each in data.conditions(data.test[1]).items()}
    assert list(values) == ["age", "months", "sex", "cut"]
    np.testing.assert_array_equal(values["cut"], TEST % 3)
    text = user_tables.describe(data.schema)
    assert "| sex " in text
    assert "optional condition" in text
    assert "consecutive numbers" in text


def test_a_kind_is_corrected_and_a_whole_schema_taken(tmp_path):
    path = write(tmp_path)
    data = load(path, "cut", column=("visits=real", "age=omitted"))
    assert kinds(data) | {"visits": "real", "age": "omitted"} == kinds(data)
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(to_json(data.schema)))
    again = load(path, schema=file)
    assert again.schema == data.schema
    assert (again.condition, again.likelihood) == (data.condition, data.likelihood)
    pl.read_csv(path).with_columns(new=1).write_csv(path)
    assert load(path, schema=file).schema.columns[-1] == Column("new", "omitted", "not in the schema")


def test_ranges_are_those_of_the_training_part_and_a_constant_condition_is_dropped_with_a_note(tmp_path):
    age = np.linspace(20, 30, N).round(2)
    age[TEST] += 1000
    late = np.zeros(N)
    late[TEST] = 0.25 + np.arange(len(TEST))
    data = load(write(tmp_path, age=age, same=np.ones(N), late=late), "cut", "same", "late")
    assert data.schema.column("age").high == age[TRAIN].max()
    assert isinstance(data.condition, cvae.Label)
    assert "condition 'same' is left out: constant, 1.0" in data.notes
    assert "condition 'late' is left out: constant in the training part" in data.notes


def test_categories_without_a_training_row_are_named(tmp_path):
    cut = columns()["cut"].astype("U9")
    cut[TEST[0]] = "rare"
    data = load(write(tmp_path, cut=cut), "cut")
    assert data.condition.num_classes == 4
    assert "no training row has cut rare: what is drawn or scored of it means nothing" in data.notes


def test_missing_cells_are_counted_wherever_they_are(tmp_path):
    visits = [None if row == TEST[0] else int(value) for row, value in enumerate(columns()["visits"])]
    data = load(write(tmp_path, visits=visits), "age")
    assert isinstance(data.likelihood, cvae.Missing)  # though only the test part has one
    assert any(note.startswith("1 of 300 cells are missing") for note in data.notes)
    sex = [None if row % 5 == 0 else str(value) for row, value in enumerate(columns()["sex"])]
    optional = load(write(tmp_path, sex=sex), optional=("sex",))
    assert (optional.train[1]["sex"] == -1).sum() == (TRAIN % 5 == 0).sum()
    (values,) = optional.conditions(optional.train[1]).values()
    assert np.isnan(values).sum() == (TRAIN % 5 == 0).sum()


REFUSED = {
    "no column": ({}, ["cot"], {}, "--condition must name one of id, age, .*, got 'cot'"),
    "two roles": ({}, ["age"], {"optional": ("age",)}, "--optional must name another column .*, got 'age'"),
    "two kinds": ({}, [], {"column": ("age=real", "age=count")}, "--column must give every column once, got 'age'"),
    "no kind": ({}, [], {"column": ("price=positiv",)}, "--column must be NAME=KIND .* among real, .*, got 'price="),
    "negative count": ({"visits": np.arange(N) - 3}, [], {"column": ("visits=count",)}, "0 on .*, got -3 at row 0"),
    "words": ({}, [], {"column": ("cut=real",)}, "column 'cut' must hold numbers to be real"),
    "missing": ({"age": [None, *[1.5, 2.5] * 29, 3]}, ["age"], {}, "must be known .*missing value at row 0"),
    "no exposure": ({"months": np.arange(N) % 12}, [], {"exposure": "months"}, "numbers above 0.*got 0 at row 0"),
    "all": ({}, ["age", "price", "visits", "months", "sex", "cut"], {}, "none of 'id' .*rows.*, 'age' .condition"),
    "mixed": ({"age": ["x", *map(str, range(N - 1))]}, [], {}, "column 'age' of .* numbers only, .*'x' at row 0"),
    "x": ({}, [], {"x": "age"}, "--x must be left out for a table"),
    "likelihood": ({}, [], {"likelihood": "normal"}, "--likelihood must be left out for a table"),
    "few": ({}, [], {"validation": 0.01}, "some.csv must leave two .*see --validation and --test"),
    "no schema": ({}, [], {"schema": "absent.json"}, "--schema must be a file, .*, got absent.json"),
    "both": ({}, ["age"], {"schema": "absent.json"}, "--condition must be left out with --schema"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "condition", "options", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_refused(changes, condition, options, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, **changes), *condition, **options)


def test_a_schema_that_contradicts_the_file_is_refused(tmp_path):
    path = write(tmp_path)
    file = tmp_path / "schema.json"
    file.write_text(json.dumps(to_json(load(path, "cut").schema)))
    cut = columns()["cut"].astype("U9")
    cut[7] = "new"
    with pytest.raises(ValueError, match=r"column 'cut' must be one of 'a', 'b', 'c', .*, got 'new' at row 7"):
        load(write(tmp_path, cut=cut), schema=file)
    pl.read_csv(path).drop("price").write_csv(path)
    with pytest.raises(ValueError, match=r"some.csv must have the columns of .*schema.json, got none named 'price'"):
        load(path, schema=file)
    file.write_text('{"columns": [{"name": "age", "kind": "reel"}]}')
    with pytest.raises(ValueError, match=r"schema\.json"):
        load(path, schema=file)
