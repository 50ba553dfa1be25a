"""Rows as a model takes and gives them: tables with other types, conditions by value, cells that are filled in."""

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import cvae
from cvae import rows, schema


@pytest.fixture(scope="module")
def architecture():
    """Of a table with one modelled column, a label that is a number, and an optional condition."""
    columns = (
        schema.Column("id", "omitted"),
        schema.Column("y", "real", low=0.0, high=9.0),
        schema.Column("grade", "categorical", "", "Int64", ("1", "2", "10"), role="condition"),
        schema.Column("age", "real", "", "Int64", (), 0, 18.0, 80.0, role="optional condition"),
    )
    condition = cvae.Mixed((cvae.Label(3, "grade"), cvae.Optional(cvae.Continuous(name="age"))))
    likelihood = cvae.Missing(cvae.Columns((cvae.Normal(),), ((0,),)))
    return cvae.Architecture((1,), condition, likelihood=likelihood, schema=schema.Schema(columns))


def test_values_of_conditions_may_be_words_as_on_a_command_line(architecture):
    for given in ({"grade": 10, "age": 40}, {"grade": "10", "age": "40"}, {"grade": [10, 10], "age": [40, 40]}):
        c = rows.condition_arrays(architecture, 2, given)
        np.testing.assert_array_equal(c["grade"], [2, 2])
        np.testing.assert_array_equal(c["age"], [[40], [40]])
    left_out = rows.condition_arrays(architecture, 2, {"grade": "1"})["age"]
    assert np.isnan(left_out).all()
    assert list(rows.condition_arrays(architecture, 2, {"age": 40}, whole=False)) == ["age"]


def test_the_range_of_training_is_named(architecture):
    with pytest.warns(UserWarning, match="condition 'age' is 17, outside its range in training, from 18 to 80"):
        rows.condition_arrays(architecture, 2, {"grade": 1, "age": [17, 40]})


def test_examples_of_a_table(architecture):
    table = pl.DataFrame({"age": [30, None], "grade": [2, 10], "y": pl.Series([None, None], dtype=pl.String)})
    x, c = rows.examples(architecture, table, None)
    assert np.isnan(x).all()
    np.testing.assert_array_equal(c["grade"], [1, 2])
    _, c = rows.examples(architecture, table.drop("grade"), None, without="grade")
    np.testing.assert_array_equal(c["grade"], [0, 0])
    with pytest.raises(ValueError, match=r"the table must have the columns .* got none named \['grade'\]"):
        rows.examples(architecture, table.drop("grade"), None)


def test_only_missing_cells_are_filled_and_only_columns_of_the_rows_replaced():
    table = pl.DataFrame({"id": [7, 8], "y": [1.25, None], "age": [30, 40]})
    made = pl.DataFrame({"y": [0.5, 0.75], "grade": [1, 2]})
    assert_frame_equal(rows.filled(table, made), pl.DataFrame({"id": [7, 8], "y": [1.25, 0.75], "age": [30, 40]}))
    twice = rows.filled(table, pl.DataFrame({"y": [0.1, 0.2, 0.3, 0.4]}))
    assert_frame_equal(twice, pl.DataFrame({"id": [7, 7, 8, 8], "y": [1.25, 1.25, 0.3, 0.4], "age": [30, 30, 40, 40]}))
    replaced = rows.replaced(table, made.select("y"))
    assert_frame_equal(replaced, pl.DataFrame({"id": [7, 8], "y": [0.5, 0.75], "age": [30, 40]}))


def test_columns_come_in_the_types_of_the_file():
    words, numbers = ["x", None, "y"], [1, None, 3]
    table = pl.DataFrame(
        {
            "cat": pl.Series(words, dtype=pl.Categorical),
            "enum": pl.Series(words, dtype=pl.Enum(["x", "y"])),
            "small": pl.Series(numbers, dtype=pl.Int8),
            "single": pl.Series(numbers, dtype=pl.Float32),
        }
    )
    made = pl.DataFrame({"cat": ["y"] * 3, "enum": ["y"] * 3, "small": [2, 2, 2], "single": [2.5, 2.5, 2.5]})
    for found in (rows.filled(table, made), rows.replaced(table, made)):
        assert found.schema == table.schema
    assert rows.filled(table, made)["enum"].to_list() == ["x", "y", "y"]
    assert rows.replaced(table, pl.DataFrame({"small": [2.5, 2.5, 2.5]}))["small"].to_list() == [2.5] * 3
