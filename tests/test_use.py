"""Use of a fitted model: what goes in comes out, in the file's own terms; probabilities are exact ones."""

import warnings

import jax
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.special import softmax

import cvae
from cvae import schema, use
from cvae.settings import replace
from tests.conftest import build, weights
from tests.oracles import BATCH, CONDITIONS, EVENT, linear_gaussian
from tests.test_classification import exact_scores

SIZE = 60


def table(size=SIZE, seed=0):
    """Columns of every kind, some cells missing; a number of its own for each row, which is omitted."""
    rng = np.random.default_rng(seed)
    frame = pl.DataFrame(
        {
            "id": np.arange(size),
            "sex": rng.choice(["female", "male"], size, p=[0.25, 0.75]),
            "mass": rng.normal(4000, 300, size).round(),
            "price": np.exp(rng.normal(3, 1.5, size)).round(2) + 0.01,
            "eggs": rng.poisson(3, size),
            "island": rng.choice(["Biscoe", "Dream", "Torgersen"], size),
            "age": rng.uniform(1, 9, size).round(1),
        }
    )
    known = rng.random((size, 4)) < 0.8
    return frame.with_columns(
        pl.when(pl.Series(known[:, k])).then(pl.col(name)).alias(name)
        for k, name in enumerate(["mass", "price", "eggs", "island"])
    )


@pytest.fixture(scope="module")
def fitted():
    """A model of the table with weights that are not trained."""
    found = schema.infer(table(), conditions=("sex", "age"), optional=("age",), kinds={"mass": "real"})
    x, c = found.encode(table())
    model = cvae.make(
        cvae.Architecture(
            (x.shape[1],), found.condition(c), 2, (6,), likelihood=found.likelihood(x, c), schema=found
        )
    )  # fmt: skip
    return model, weights(model), jax.random.key(3)


def test_the_schema_is_as_the_tests_take_it(fitted):
    kinds = {column.name: column.kind for column in fitted[0].architecture.schema.columns}
    assert kinds == {
        "id": "omitted", "sex": "binary", "mass": "real", "price": "positive", "eggs": "count",
        "island": "categorical", "age": "real",
    }  # fmt: skip
    sex = fitted[0].architecture.schema.column("sex")
    assert sex.counts == tuple(int((table()["sex"] == word).sum()) for word in sex.categories)


def test_generated_rows_have_the_conditions_and_types_of_the_table(fitted):
    rows = use.generate(*fitted, 7, sex="male", age=4.5)
    assert rows.columns == ["sex", "mass", "price", "eggs", "island", "age"]
    assert rows.schema == table().drop("id").schema
    assert rows["sex"].to_list() == ["male"] * 7
    assert rows["age"].to_list() == [4.5] * 7
    assert (rows["mass"] == rows["mass"].round()).all()
    assert (rows["price"] > 0).all()
    many = use.generate(*fitted, 2, {"sex": ["male", "female"]})
    assert many["sex"].to_list() == ["male", "female"]
    assert many["age"].null_count() == 2  # optional


def test_a_condition_outside_its_range_warns_and_is_used(fitted):
    with pytest.warns(UserWarning, match="condition 'age' is 12, outside its range in training, from 1"):
        rows = use.generate(*fitted, 2, sex="male", age=12)
    assert rows["age"].to_list() == [12, 12]


def test_conditions_of_a_table_outside_their_range_warn_once(fitted):
    """Those of age are missing, outside, outside, and the rest inside."""
    later = table().with_columns(age=pl.Series([None, 30.0, -7.0, *table()["age"][3:]]))
    with pytest.warns(
        UserWarning, match=r"'age' is 30, outside its range in training, .*, in 2 of 60 rows: "
    ) as caught:
        use.encode(*fitted, later)
    assert len(caught) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        use.encode(*fitted, table())


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({}, r"conditions must be given for \['sex'\], such as sex='female', got none"),
        ({"sex": "mail"}, "column 'sex' must be one of 'female', 'male', the values in the training rows, got 'mail'"),
        ({"sex": "male", "mass": 3}, "condition must be one of sex, age, got 'mass', which is modelled"),
        ({"sex": "male", "height": 3}, "condition must be one of sex, age, got 'height'"),
        ({"sex": "male", "age": "old"}, "condition 'age' must be a number, got 'old'"),
        ({"sex": ["male"] * 3}, "condition 'sex' must be one value, or a sequence of 2, got 3 values"),
    ],
)
def test_conditions_that_cannot_be_are_refused(fitted, conditions, message):
    with pytest.raises(ValueError, match=message):
        use.generate(*fitted, 2, conditions)


def test_encodings_and_scores_have_a_row_for_every_row(fitted):
    encoded = use.encode(*fitted, table())
    assert encoded.columns == ["z0_mean", "z0_std", "z1_mean", "z1_std"]
    odd = table().with_columns(mass=pl.when(pl.int_range(SIZE) == 5).then(9000.0).otherwise("mass"))
    scored = use.score(*fitted, odd, num_samples=20)
    assert len(encoded) == len(scored) == SIZE
    x, c = fitted[0].architecture.schema.encode(odd)
    expected = cvae.log_likelihood(*fitted, x, c, num_samples=20)
    np.testing.assert_allclose(scored["log_likelihood"], expected.value, rtol=1e-5)
    assert scored["log_likelihood"].arg_min() == 5
    assert scored["unusual"][5].startswith("mass")
    assert scored["contribution_mass"].arg_min() == 5


def test_the_standard_error_of_a_score_is_the_spread_of_its_repetitions():
    oracle = linear_gaussian(exact=False)
    model, params, *_ = oracle
    x, c = oracle.repeated(400)
    scored = use.score(model, params, jax.random.key(0), x, c, num_samples=100)
    spread = scored["log_likelihood"].reshape(BATCH, 400).std(axis=1)
    claimed = scored["standard_error"].reshape(BATCH, 400).mean(axis=1)
    np.testing.assert_allclose(claimed, spread, rtol=0.2)
    assert scored["contribution"].shape == x.shape


def test_only_missing_cells_are_filled_in(fitted):
    given = table()
    done = use.impute(*fitted, given, num_draws=3, num_samples=20)
    modelled = ["mass", "price", "eggs", "island"]
    assert done.rows.schema == given.schema
    assert done.rows.null_count().sum_horizontal().item() == 0
    for name in given.columns:
        known = given[name].is_not_null()
        assert (done.rows[name] == given[name]).filter(known).all()
    assert len(done.cells) == given.select(modelled).null_count().sum_horizontal().item()
    assert len(done.draws) == 3 * SIZE
    assert done.draws["id"].to_list() == np.repeat(np.arange(SIZE), 3).tolist()
    numbers = done.cells.filter(pl.col("column") != "island")
    assert (numbers["low"] <= numbers["high"]).all()
    assert numbers["probability"].null_count() == len(numbers)
    words = done.cells.filter(pl.col("column") == "island")
    assert words["mean"].null_count() == len(words)
    assert ((words["probability"] > 0) & (words["probability"] <= 1)).all()
    first = done.cells.row(0, named=True)
    assert str(done.rows[first["column"]][first["row"]]) == first["value"]


def test_omitted_words_of_a_file_stay_as_they_are(fitted, tmp_path):
    model, params, key = fitted
    ids = schema.Schema(tuple(replace(each, dtype="String") if each.name == "id" else each
                              for each in model.architecture.schema.columns))  # fmt: skip
    model = cvae.make(replace(model.architecture, schema=ids))
    table(4).with_columns(pl.Series("id", ["007", "008", "009", "010"])).write_csv(tmp_path / "later.csv")
    changed = use.counterfactual(model, params, key, tmp_path / "later.csv", sex="female")
    filled = use.impute(model, params, key, tmp_path / "later.csv", num_samples=20).rows
    assert changed["id"].to_list() == filled["id"].to_list() == ["007", "008", "009", "010"]


def test_a_column_without_any_cell_is_filled_in(fitted):
    empty = table(3).with_columns(mass=pl.lit(None, pl.String))
    assert use.impute(*fitted, empty, num_samples=20).rows["mass"].null_count() == 0


def test_missing_cells_that_the_model_does_not_know_are_refused(fitted):
    whole = table().drop_nulls()
    found = schema.infer(whole, conditions=("sex",), kinds={"mass": "real"})
    x, c = found.encode(whole)
    architecture = cvae.Architecture((x.shape[1],), found.condition(c), likelihood=found.likelihood(x, c), schema=found)
    model = cvae.make(architecture)
    with pytest.raises(ValueError, match=r"column '\w+' must hold no missing cell .*, got one at row \d+"):
        use.encode(model, weights(model), jax.random.key(0), table())
    with pytest.raises(ValueError, match="x must have a missing cell in a modelled column, got none"):
        use.impute(*fitted, whole)


def test_counterfactual_rows_differ_in_the_condition_and_keep_the_other_columns(fitted):
    rows = use.counterfactual(*fitted, table(), sex="female")
    assert rows.columns == table().columns
    assert set(rows["sex"]) == {"female"}
    for name in ("id", "age"):
        assert rows[name].equals(table()[name])
    with pytest.raises(ValueError, match="conditions must change one of sex, age, got none"):
        use.counterfactual(*fitted, table())


@pytest.mark.parametrize("prior", ["training", "uniform"])
def test_a_prediction_is_bayes_rule(prior):
    """Of the linear-Gaussian model, whose encoder is the exact posterior of every class."""
    oracle = linear_gaussian(exact=True, condition=CONDITIONS["label"])
    exact = exact_scores(oracle, "label", 4)
    counts = np.array([1, 5, 2, 40])
    columns = [schema.Column(f"x{k}", "real") for k in range(EVENT)]
    words = ("a", "b", "c", "d")
    label = schema.Column("label", "categorical", "", "String", words, role="condition", counts=tuple(counts.tolist()))
    architecture = cvae.replace(oracle.model.architecture, schema=schema.Schema((*columns, label)))
    model, params = oracle.model._replace(architecture=architecture), oracle.params
    rows = pl.DataFrame({f"x{k}": oracle.x[:, k] for k in range(EVENT)})
    found = use.predict(model, params, jax.random.key(0), rows, column="label", prior=prior, num_samples=3)
    expected = softmax(exact + (np.log(counts / counts.sum()) if prior == "training" else 0), axis=1)
    np.testing.assert_allclose(found.select(pl.exclude("predicted")), expected, rtol=1e-3, atol=1e-6)
    assert found["predicted"].to_list() == [words[k] for k in expected.argmax(axis=1)]
    arrays = use.predict(oracle.model, params, jax.random.key(0), oracle.x, {}, prior=prior, num_samples=3)
    np.testing.assert_allclose(arrays["probability"], softmax(exact, axis=1), rtol=1e-3, atol=1e-6)


def test_a_column_that_is_no_label_among_the_conditions_is_not_predicted(fitted):
    rule = r"column must be a label that the model is conditioned on, one of \['sex'\] \(impute fills in .*'island'"
    with pytest.raises(ValueError, match=rule):
        use.predict(*fitted, table(), column="island")


def test_pandas_gives_pandas(fitted):
    frame = pd.DataFrame(table().to_dict(as_series=False), index=range(7, 7 + SIZE))
    for found in (use.encode(*fitted, frame), use.predict(*fitted, frame, column="sex", num_samples=2)):
        assert isinstance(found, pd.DataFrame)
        assert found.index.equals(frame.index)


def test_arrays_give_arrays(key):
    condition = cvae.Mixed((cvae.Label(3), cvae.Optional(cvae.Continuous(2, name="stroke"))))
    model, params, x, _ = build(condition)
    drawn = use.generate(model, params, key, 4, label=2)
    assert drawn["x"].shape == (4, *x.shape[1:])
    np.testing.assert_array_equal(drawn["label"], [2] * 4)
    assert np.isnan(drawn["stroke"]).all()
    assert use.generate(model, params, key, 4, label=[0, 1, 2, 0], stroke=[0.5, 1.5])["stroke"].shape == (4, 2)
    c = {"label": np.array([0, 1, 2]), "stroke": np.zeros((BATCH, 2), np.float32)}
    assert use.encode(model, params, key, x, c)["mean"].shape == (BATCH, 4)
    assert use.counterfactual(model, params, key, x, c, label=1)["label"].tolist() == [1, 1, 1]
    for bad, message in [
        ({}, r"conditions must be given for \['label'\]"),
        ({"label": 3}, r"c\['label'\] must be integers in \[0, 3\), got 3"),
        ({"label": "three"}, "condition 'label' must be a value of shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            use.generate(model, params, key, 4, bad)


def test_labels_that_have_words_are_given_and_returned_as_words(key):
    """And as numbers all the same, which every other function takes."""
    words = cvae.Label(3, "species", ("ant", "bee", "cow"))
    model, params, x, _ = build(words)
    assert use.generate(model, params, key, 2, species="bee")["species"].tolist() == ["bee", "bee"]
    c = {"species": np.array(["cow", "ant", "bee"])}
    numbers = {"species": np.array([2, 0, 1])}
    for name in ("encode", "score"):
        found = [getattr(use, name)(model, params, key, x, each) for each in (c, numbers)]
        np.testing.assert_array_equal(*[next(iter(each.values())) for each in found])
    changed = use.counterfactual(model, params, key, x, c, species=["cow", "cow", "ant"])
    assert changed["species"].tolist() == ["cow", "cow", "ant"]
    predicted = use.predict(model, params, key, x, {}, column="species", num_samples=2)["predicted"]
    assert set(predicted) <= {"ant", "bee", "cow"}
    with pytest.raises(ValueError, match=r"'species' must be one of 'ant', 'bee', 'cow', .*, got 'cat' at row 1"):
        use.encode(model, params, key, x, {"species": np.array(["cow", "cat", "bee"])})
    with pytest.raises(ValueError, match=r"be given for \['species'\], such as species='ant', got none"):
        use.generate(model, params, key, 2)
    optional, params, x, _ = build(cvae.Optional(words))
    assert use.generate(optional, params, key, 2)["species"].tolist() == ["", ""]
    use.encode(optional, params, key, x, {"species": np.array(["cow", "", "bee"])})


def test_functions_of_ones_own_are_refused(fitted):
    with pytest.raises(ValueError, match=r"model must be made by cvae.make"):
        use.encode(fitted[0]._replace(architecture=None), *fitted[1:], table())


def test_an_optional_label_is_predicted(key):
    """And the label that the examples hold makes no difference, nor that it is missing."""
    model, params, x, _ = build(cvae.Optional(cvae.Label(3)))
    found = use.predict(model, params, key, x, {}, num_samples=2)
    assert found["probability"].shape == (BATCH, 3)
    again = use.predict(model, params, key, x, {"label": np.array([-1, 0, 2])}, num_samples=2)
    np.testing.assert_array_equal(again["probability"], found["probability"])


def test_rows_of_an_unconditional_model_need_no_conditions():
    found = schema.infer(table())
    x, c = found.encode(table())
    model = cvae.make(
        cvae.Architecture((x.shape[1],), latent_size=2, hidden=(6,), likelihood=found.likelihood(x, c), schema=found)
    )
    assert use.generate(model, weights(model), jax.random.key(0), 5).columns == table().drop("id").columns


def test_conditions_beside_a_table_are_refused(fitted):
    model, params, key = fitted
    with pytest.raises(ValueError, match=r"c must be \{\} or None beside a table, which holds it"):
        cvae.evaluate(model, params, key, table(), {"sex": np.zeros(SIZE, int)})
