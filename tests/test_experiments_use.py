"""The commands on a fitted model, as a user calls them: on a table, on arrays, and on digits."""

import shutil

import jax
import numpy as np
import polars as pl
import pytest
from PIL import Image

import cvae
from cvae import runs, schema
from experiments import use
from tests.commands import assert_refused, call, untrained
from tests.conftest import build

SIZE = 400


def table():
    """Mass depends on sex, and length on mass; some cells are missing."""
    rng = np.random.default_rng(0)
    sex = rng.choice(["female", "male"], SIZE)
    mass = 3000 + 2000 * (sex == "male") + rng.normal(0, 200, SIZE)
    frame = pl.DataFrame({"id": [f"bird {k}" for k in range(SIZE)], "sex": sex, "mass": mass.round()})
    frame = frame.with_columns(length=(pl.col("mass") / 20 + pl.Series(rng.normal(0, 2, SIZE))).round(1))
    frame = frame.with_columns(wild=pl.Series(rng.random(SIZE) < 0.3), year=pl.Series(rng.integers(7, 10, SIZE)))
    gone = pl.Series(rng.random(SIZE) < 0.15)
    return frame.with_columns(length=pl.when(gone).then(None).otherwise(pl.col("length")))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a fitted model of a table, one of arrays that is not trained, and a file for each."""
    folder = tmp_path_factory.mktemp("use")
    rows = table()
    rows.head(50).write_csv(folder / "birds.csv")
    rows.head(50).write_parquet(folder / "birds.parquet")
    found = schema.infer(rows, conditions=("sex", "year"), optional=("year",), kinds={"mass": "real", "year": "real"})
    x, c = found.encode(rows)
    model = cvae.make(
        cvae.Architecture(
            (x.shape[1],), found.condition(c), 2, (16,), likelihood=found.likelihood(x, c), schema=found
        )
    )  # fmt: skip
    training = cvae.Training(epochs=60, batch_size=50, learning_rate=3e-3)
    params = cvae.fit(model, model.init(jax.random.key(0)), jax.random.key(1), x, c, training).params
    cvae.save(folder / "run", model, params)
    model, params, x, c = build(
        cvae.Continuous(1, name="age"), event_shape=(4,), likelihood=cvae.Missing(cvae.Normal())
    )
    x[1, 2] = np.nan
    cvae.save(folder / "arrays", model, params)
    np.savez(folder / "rows.npz", rows=x, age=c["age"][:, 0])
    return folder


def run(folder, command, *arguments):
    """The command on the model of the table; returns what it printed."""
    result = call(use, command, str(folder / "run"), *map(str, arguments))
    assert result.returncode == 0, result.stderr
    return result


def test_generate(folder):
    result = run(folder, "generate", "--count", 30, "--condition", "sex=male", "--condition", "year=8")
    out = folder / "run" / "use" / "generate.csv"
    assert f"30 rows: {out}" in result.stdout
    rows = pl.read_csv(out)
    assert rows.columns == ["sex", "mass", "length", "wild", "year"]
    assert rows.dtypes == pl.read_csv(folder / "birds.csv").drop("id").dtypes
    assert abs(rows["mass"].mean() - 5000) < 300
    again = run(folder, "generate", "--count", 30, "--condition", "sex=female", "--out", folder / "new" / "f.parquet")
    assert "30 rows" in again.stdout
    assert abs(pl.read_parquet(folder / "new" / "f.parquet")["mass"].mean() - 3000) < 300
    assert [path.name for path in (folder / "new").iterdir()] == ["f.parquet"]
    outside = run(folder, "generate", "--count", 2, "--condition", "sex=male", "--condition", "year=99")
    assert "warning: condition 'year' is 99, outside its range in training, from 7 to 9" in outside.stderr


def test_a_row_is_drawn_for_each_row_of_conditions(folder):
    birds = pl.read_csv(folder / "birds.csv")
    out = folder / "given.csv"
    run(folder, "generate", "--given", folder / "birds.csv", "--condition", "year=8", "--out", out)
    rows = pl.read_csv(out)
    assert rows["sex"].equals(birds["sex"])
    assert set(rows["year"]) == {8}


def test_encode(folder):
    run(folder, "encode", folder / "birds.parquet")
    encoded = pl.read_parquet(folder / "run" / "use" / "birds_encode.parquet")
    assert encoded.columns == ["z0_mean", "z0_std", "z1_mean", "z1_std"]
    assert len(encoded) == 50


def test_score(folder):
    odd = table().head(50).with_columns(mass=pl.when(pl.int_range(50) == 7).then(9000.0).otherwise("mass"))
    odd.write_csv(folder / "odd.csv")
    result = run(folder, "score", folder / "odd.csv", "--samples", 30)
    scored = pl.read_csv(folder / "run" / "use" / "odd_score.csv")
    assert scored["log_likelihood"].arg_min() == 7
    assert scored["unusual"][7].startswith("mass")
    assert "the least probable rows" in result.stdout


def test_impute(folder):
    result = run(folder, "impute", folder / "birds.csv", "--draws", 3, "--samples", 50)
    given, use_folder = pl.read_csv(folder / "birds.csv"), folder / "run" / "use"
    rows = pl.read_csv(use_folder / "birds_impute.csv")
    cells = pl.read_csv(use_folder / "birds_impute_cells.csv")
    assert rows.schema == given.schema
    assert rows["length"].null_count() == 0
    assert rows.drop("length").equals(given.drop("length"))
    assert len(cells) == given["length"].null_count() > 0
    filled = rows[cells["row"].to_list()]
    # Length follows mass closely: the imputed one is near, and the interval holds what the mass says.
    assert (filled["length"] - filled["mass"] / 20).abs().max() < 60
    assert ((cells["low"] < cells["mean"]) & (cells["mean"] < cells["high"])).all()
    assert len(pl.read_csv(use_folder / "birds_impute_draws.csv")) == 150
    assert "samples effective" in result.stdout


def test_counterfactual(folder):
    run(folder, "counterfactual", folder / "birds.csv", "--set", "sex=male")
    given, rows = pl.read_csv(folder / "birds.csv"), pl.read_csv(folder / "run" / "use" / "birds_counterfactual.csv")
    assert rows.columns == given.columns
    assert set(rows["sex"]) == {"male"}
    assert rows["id"].equals(given["id"])
    was_female = given["sex"] == "female"
    assert abs(rows["mass"].filter(was_female).mean() - 5000) < 400


def test_predict(folder):
    pl.read_csv(folder / "birds.csv").drop("sex").write_csv(folder / "unsexed.csv")
    result = run(folder, "predict", folder / "unsexed.csv", "sex", "--samples", 20)
    found = pl.read_csv(folder / "run" / "use" / "unsexed_predict_sex.csv")
    assert (found["predicted"] == table().head(50)["sex"]).mean() > 0.95
    np.testing.assert_allclose(found["probability_female"] + found["probability_male"], 1, rtol=1e-5)
    assert "predicted: female" in result.stdout
    result = run(folder, "predict", folder / "birds.csv", "sex", "--samples", 20)
    assert "% of the 50 known values" in result.stdout


def test_a_name_may_hold_an_equals_sign():
    names = ("sex", "a", "a=b")
    found = use.assignments("--set", ("a=b=c", "sex=x=y", "a=c=1"), names)
    assert found == {"a=b": "c", "sex": "x=y", "a": "c=1"}


REFUSED = {
    "generate RUN": "--condition must be given for sex, such as --condition sex='female', got none",
    "generate RUN --condition sex=mail": "column 'sex' must be one of 'female', 'male',",
    "generate RUN --condition sex": "--condition must be NAME=VALUE, such as cut=Ideal, got 'sex'",
    "generate RUN --condition sex=male --condition sex=female": "--condition must give every condition once, got 'sex'",
    "generate RUN --condition sex=male --condition mass=3": "must be one of sex, year, got 'mass', which is modelled",
    "generate RUN --condition sex=male --out rows.npz": "--out must end in .csv or .parquet, got 'rows.npz'",
    "generate RUN --condition sex=male --count 0": "count",
    "generate RUN --given whole.csv --condition sex=male --condition year=8": "--given must have a condition that",
    "generate nowhere": "nowhere must be the folder of a fitted model (experiments.fit makes one), got no such folder",
    "encode RUN nowhere.csv": "nowhere.csv must be a table, .csv, .parquet or a folder of these, as the model was",
    "encode RUN rows.npz": "rows.npz must be a table, .csv, .parquet or a folder of these, as the model was",
    "encode RUN birds.csv --out birds.csv": "--out must be another path than the one that is read, got birds.csv",
    "encode arrays birds.csv": "birds.csv must be arrays, .npz, .npy or a folder of them, or a folder of",
    "encode arrays rows.npz --x nothing": "--x must name an array of rows.npz of shape [N, 4], one of ['rows']",
    "score RUN ragged.csv": "ragged.csv must have 2 fields in every line, as in the line of names, got 3 in line 2",
    "score RUN new.csv": "column 'sex' must be one of 'female', 'male', the values in the training rows, got",
    "impute RUN whole.csv": "FILE must have a missing cell in a modelled column, got none",
    "counterfactual RUN birds.csv": "--set must change one of sex, year, got none",
    "counterfactual RUN birds.csv --set wild=true": "--set must change one of sex, year, got wild",
    "counterfactual RUN birds.csv --set year=old": "error: condition 'year' must be a number, got 'old'",
    "generate RUN --condition sex=male --condition year=old": "error: condition 'year' must be a number, got 'old'",
    "encode RUN birds.csv --model cvae": "--model must be left out for a folder of a single model, got 'cvae'",
    "predict RUN birds.csv wild": "COLUMN must be a label that the model is conditioned on, one of ['sex']",
}


@pytest.mark.parametrize(("command", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_bad_options_are_refused_and_nothing_is_written(command, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("birds.csv", "rows.npz"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "arrays").symlink_to(folder / "arrays")
    (tmp_path / "ragged.csv").write_text("sex,mass\nmale,1,2\n")
    table().head(3).with_columns(sex=pl.lit("unknown")).write_csv("new.csv")
    table().drop_nulls().head(3).write_csv("whole.csv")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    result = call(use, *[str(folder / "run") if word == "RUN" else word for word in command.split()])
    assert_refused(result, message)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_arrays(folder):
    """A model of arrays reads and writes `.npz`, with x in the dtype of the file."""
    here, file = str(folder / "arrays"), str(folder / "rows.npz")
    commands = [
        ("generate", here, "--count", "5", "--condition", "age=2"),
        ("encode", here, file),
        ("score", here, file, "--samples", "5"),
        ("impute", here, file, "--samples", "20", "--x", "rows"),
        ("counterfactual", here, file, "--set", "age=1.5"),
    ]
    for command in commands:
        result = call(use, *command)
        assert result.returncode == 0, result.stderr
    made = {path.stem: dict(np.load(path)) for path in (folder / "arrays" / "use").iterdir()}
    assert made["generate"]["x"].shape == (5, 4)
    assert made["generate"]["age"].tolist() == [2.0] * 5
    assert made["rows_encode"]["mean"].shape == (3, 4)
    assert made["rows_score"]["log_likelihood"].shape == (3,)
    given = np.load(folder / "rows.npz")["rows"]
    assert made["rows_impute"]["rows"].dtype == given.dtype
    changed = made["rows_impute"]["rows"] != given
    assert np.argwhere(changed).tolist() == [[1, 2]]
    assert np.argwhere(made["rows_impute_cells"]["missing"]).tolist() == [[1, 2]]
    assert made["rows_counterfactual"]["age"].tolist() == [1.5] * 3


def test_digits(tmp_path):
    """A run of `mnist_label`: images by their label, as arrays or as a picture."""
    folder = str(untrained(tmp_path / "run"))
    for name in ("threes.npz", "threes.png"):
        result = call(use, "generate", folder, "--count", "12", "--condition", "label=3", "--out", str(tmp_path / name))
        assert result.returncode == 0, result.stderr
    drawn = np.load(tmp_path / "threes.npz")
    assert set(drawn["label"]) == {3}
    picture = np.asarray(Image.open(tmp_path / "threes.png"))
    first = picture[28:140, 28:140].reshape(8, 14, 8, 14).mean(axis=(1, 3))  # enlarged 14 times, after a gap of two
    assert np.corrcoef(first.ravel(), drawn["x"][0].ravel())[0, 1] > 0.8
    images = np.rint(255 * drawn["x"][..., 0]).astype(np.uint8) // 2
    np.savez(tmp_path / "some.npz", images=images, label=np.arange(12) % 10)
    result = call(use, "predict", folder, str(tmp_path / "some.npz"), "label", "--samples", "2")
    assert result.returncode == 0, result.stderr
    found = np.load(tmp_path / "run" / "use" / "some_predict_label.npz")
    np.testing.assert_allclose(found["probability"].sum(axis=1), 1, rtol=1e-6)
    result = call(use, "counterfactual", folder, str(tmp_path / "some.npz"), "--set", "label=1")
    assert result.returncode == 0, result.stderr
    changed = np.load(tmp_path / "run" / "use" / "some_counterfactual.npz")["images"]
    assert (changed.dtype, changed.shape) == (np.uint8, images.shape)
    assert_refused(
        call(use, "generate", folder, "--condition", "label=12"), "condition 'label' must be integers in [0, 10)"
    )
    assert_refused(call(use, "impute", folder, str(tmp_path / "some.npz")), "must be fitted to data with missing cells")


def test_runs_that_are_not_finished_and_sweeps_say_what_to_do(tmp_path):
    run = untrained(tmp_path / "run")
    shutil.rmtree(run / "params")
    (run / "summary.json").unlink()
    generate = ("generate", str(run), "--condition", "label=3")
    rule = "run folder must hold final parameters (repeat the command that began the fit: it goes on where it stopped)"
    assert_refused(call(use, *generate), f"{rule}, got {run}, which has none of 'cvae' yet")
    config = cvae.replace(runs.read_config(run), sweep=cvae.Sweep())
    runs.write_json(run / "config.json", cvae.settings.to_json(config))
    assert_refused(call(use, *generate), "run folder must hold final parameters")
    (run / "params" / "cvae" / "z02_seed0").mkdir(parents=True)
    message = f"--model must name a model of {run}, such as --model cvae/z02_seed0, got none of the 1 of the sweep"
    assert_refused(call(use, *generate), message)
    assert_refused(call(use, *generate, "--model", "vae"), "such as --model cvae/z02_seed0, got vae")
    other = f"must be the folder of a fitted model, such as {run}, got another folder"
    assert_refused(call(use, "generate", str(tmp_path)), other)


def test_the_functions_of_the_command_are_those_of_the_library(folder):
    """With the same seed, the same rows."""
    run(folder, "generate", "--count", 4, "--condition", "sex=male", "--seed", 5, "--out", folder / "four.parquet")
    model, params = cvae.load(folder / "run")
    rows = cvae.use.generate(model, params, jax.random.key(5), 4, sex="male")
    assert pl.read_parquet(folder / "four.parquet").equals(rows)
