"""Fitting a user's arrays: nats and draws in the units of the file, runs that other data leave alone, the figures."""

import hashlib
import json
import math
import re
import sys

import jax
import numpy as np
import polars as pl
import pytest

import cvae
from cvae import plotting
from cvae.columns import Column
from experiments import fit
from experiments.harness import Trained, cli, user_figures

SIZE, NOISE = 1500, 4.95
# Columns whose density is known: r | age ~ N(offset + slope (age - 40), std^2), a constant between them.
OFFSET, SLOPE, STD = np.array([5.0, 1e6]), np.array([0.0, 50.0]), np.array([NOISE, 400.0])
ENTROPY = float(np.sum(0.5 * np.log(2 * math.pi * math.e) + np.log(STD)))
COMMAND = ["--data", "table.npz", "--x", "rows", "--condition", "continuous=age"]
QUICK = ["--hidden", "32", "--latent-size", "2", "--epochs", "40", "--samples", "20"]
IMAGES = ["--data", "images.npz", "--x", "x", "--condition", "label=digit", "--latent-size", "2", "--samples", "5"]


def table(seed=7):
    rng = np.random.default_rng(seed)
    age = rng.normal(40, 12, SIZE)
    rows = OFFSET + (age[:, None] - 40) * SLOPE + rng.normal(size=(SIZE, 2)) * STD
    return {"rows": np.insert(rows, 1, 7.0, axis=1), "age": age}


def images(seed=3, shape=(7, 5)):
    rng = np.random.default_rng(seed)
    return {"x": rng.integers(0, 256, (40, *shape), dtype=np.uint8), "digit": np.arange(40) % 3}


def call(folder, *arguments):
    """The command line, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "argv", ["fit", *arguments])
        cli.protected(fit.main)


def contents(folder):
    """Digests of all files but the lock's."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.startswith(".lock")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a finished run of a table and one of images, without figures."""
    folder = tmp_path_factory.mktemp("fit")
    np.savez(folder / "table.npz", **table())
    np.savez(folder / "images.npz", **images())
    call(folder, *COMMAND, *QUICK, "--no-figures")
    call(folder, *IMAGES, "--body", "convolutional", "--hidden", "3", "4", "--epochs", "2", "--no-figures")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return folder / "runs" / "fit_table"


def test_nats_are_in_the_units_of_the_file(run):
    summary = json.loads((run / "summary.json").read_text())
    test = summary["test"]["cvae"]
    value, error = test["log_likelihood"].values()
    assert -ENTROPY - 0.3 - 5 * error < value < -ENTROPY + 5 * error  # the constant column is worth 0 nats
    assert test["elbo"]["value"] == pytest.approx(-test["rate"]["value"] - test["distortion"]["value"], abs=1e-3)
    assert summary["unit"] == "nats per row, x in the units of the file"
    assert summary["examples"] == {"train": 1200, "validation": 150, "test": 150}
    assert any("column 1 of 'rows'" in note for note in summary["notes"])
    assert not (run / "figures").exists()
    assert not (run / "preprocessing.json").exists()


def test_a_loaded_model_takes_and_draws_the_rows_of_the_file(run):
    model, params = cvae.load(run)
    rows, age = table().values()
    test = cvae.data.split_rows(SIZE, 0).test
    c = {"age": age[test, None]}
    scored = cvae.log_likelihood(model, params, jax.random.key(5), rows[test], c, num_samples=20)
    reported = json.loads((run / "summary.json").read_text())["test"]["cvae"]["log_likelihood"]
    assert abs(scored.value.mean() - reported["value"]) < reported["standard_error"]
    drawn = user_figures.generate(Trained(model, params, [], []), jax.random.key(1), rows, {"age": age[:, None]})
    assert drawn.shape == (1, *rows.shape)
    drawn = drawn[0]
    assert (drawn[:, 1] == 7).all()
    assert drawn[:, 0].std() == pytest.approx(NOISE, rel=0.08)  # a column of noise: draws, not means
    assert drawn[:, 2].std() == pytest.approx(rows[:, 2].std(), rel=0.08)


def test_the_same_command_prints_its_table(folder, run, capsys):
    before = contents(run)
    call(folder, *COMMAND, *QUICK, "--no-figures")
    printed = capsys.readouterr().out
    assert "finished on" in printed
    assert "log-likelihood, lower bound" in printed
    assert contents(run) == before


OTHERS = {
    "a thousandfold": (COMMAND + QUICK, {"table.npz": table() | {"rows": table()["rows"] * 1000}}),
    "other rows": (COMMAND + QUICK, {"table.npz": table(seed=8)}),
    "other images": (
        [*IMAGES, "--body", "convolutional", "--hidden", "3", "4", "--epochs", "2"], {"images.npz": images(4)}
    ),
}  # fmt: skip


@pytest.mark.parametrize(("command", "files"), OTHERS.values(), ids=OTHERS.keys())
def test_other_data_in_the_same_file_are_refused_and_the_run_is_left_alone(command, files, folder, capsys):
    (name, arrays) = next(iter(files.items()))
    path, before = folder / name, contents(folder / "runs")
    original = path.read_bytes()
    np.savez(path, **arrays)
    try:
        with pytest.raises(SystemExit) as stop:
            call(folder, *command, "--no-figures")
    finally:
        path.write_bytes(original)
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert "finished" not in captured.out
    assert "--fresh" in captured.err.splitlines()[-1]
    assert contents(folder / "runs") == before


REFUSED = {
    "--binarization dynamic": "--binarization must be none for a normal likelihood, got dynamic",
    "--out run[1]": r"run folder must be a path without any of [ ] * ? \, got run[1]",
    "--batch-size 5000": "--batch-size must be at most 1200 rows, got 5000",
    "--body convolutional": "must be an image (H, W, C) for a convolutional body",
    "--condition image=top_half": "--condition must be random_pixels or given for x of shape (3,), got 'top_half'",
    "--samples 0": "samples",
}


@pytest.mark.parametrize(("options", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, capsys):
    np.savez(tmp_path / "table.npz", **table())
    with pytest.raises(SystemExit) as stop:
        call(tmp_path, *COMMAND, *options.split())
    assert stop.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())  # tyro breaks lines
    assert [path.name for path in tmp_path.iterdir()] == ["table.npz"]


def test_the_summary_is_written_before_the_figures(tmp_path, monkeypatch):
    np.savez(tmp_path / "table.npz", **table())

    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(plotting, "marginals", fail)
    with pytest.raises(MemoryError):
        call(tmp_path, *COMMAND, "--hidden", "4", "--epochs", "1", "--samples", "2")
    assert (tmp_path / "runs" / "fit_table" / "summary.json").exists()


def test_defaults_depend_on_the_data(folder, tmp_path):
    which = fit.Which(data=folder / "images.npz", x="x")
    settings = fit.preset(which, fit.load(which))
    assert (settings.architecture.hidden, settings.architecture.latent_size) == ((256,), 16)
    assert settings.training.clip_norm is None
    assert fit.preset(cvae.replace(which, body="convolutional"), fit.load(which)).architecture.hidden[-1] == 256
    np.savez(tmp_path / "small.npz", x=np.random.default_rng(0).standard_normal((30, 4)))
    which = fit.Which(data=tmp_path / "small.npz")
    settings = fit.preset(which, fit.load(which))
    training = settings.training
    assert (training.batch_size, training.epochs, training.patience, training.clip_norm) == (2, 500, 50, 10.0)
    assert (settings.architecture.latent_size, settings.architecture.hidden) == (4, (128, 128))
    assert settings.out.name == "fit_small"


def job(tmp_path, condition=(), **arrays):
    """A run of arrays with a model that is not trained, as `figures` takes it."""
    np.savez(tmp_path / "some.npz", **arrays)
    return job_of(tmp_path, fit.Which(data=tmp_path / "some.npz", x="x", condition=condition))


def job_of(tmp_path, which):
    """A run of any data with a model that is not trained."""
    data = fit.load(which)
    settings = cvae.replace(fit.preset(which, data), architecture=cvae.Architecture(latent_size=2, hidden=(4,)))
    ((name, architecture),) = fit.models(settings, data).items()
    config = cvae.config.Config("fit", data.name, 0, settings.training, {name: architecture})
    model = cvae.make(architecture)
    made = cli.Job(settings, data, cli.Run(config, tmp_path, settings, data), lambda _, split: split)
    metrics = cvae.training.Metrics(1.0, -1.0, 0.0)
    epoch = cvae.loop.Epoch(1, metrics, metrics, 1.0, 1.0, 1.0)
    made.trained[name] = Trained(model, jax.jit(model.init)(jax.random.key(0)), [epoch, epoch], [])
    return made


# Tables


def rows_of_a_table():
    """A table of which the conditional density is known but for its missing cells."""
    rng = np.random.default_rng(11)
    age, group = rng.normal(40, 12, SIZE), rng.integers(0, 3, SIZE)
    return pl.DataFrame({
        "age": age.round(3), "group": np.array(["north", "south", "west"])[group],
        "height": (0.5 * age + 4 * group + rng.normal(size=SIZE)).round(3),
        "weight": np.exp(0.02 * age + 0.3 * rng.normal(size=SIZE)).round(4), "visits": rng.poisson(1 + group),
        "smokes": np.array(["no", "yes"])[(rng.random(SIZE) < 0.3).astype(int)],
    }).with_columns(weight=pl.when(pl.int_range(SIZE) % 9 > 0).then("weight"))  # fmt: skip


SMALL = ["--data", "people.csv", "--condition", "age", "--condition", "group", "--hidden", "16", "--latent-size", "2"]
SMALL += ["--samples", "5", "--schedule", "constant", "--no-figures"]


@pytest.fixture(scope="module")
def people(tmp_path_factory):
    """A folder with a table and its finished run of two epochs."""
    folder = tmp_path_factory.mktemp("table")
    rows_of_a_table().write_csv(folder / "people.csv")
    call(folder, *SMALL, "--epochs", "2")
    return folder


def test_a_model_of_a_table_takes_its_own_frames(people):
    run = people / "runs" / "fit_people"
    summary = json.loads((run / "summary.json").read_text())
    model, params = cvae.load(run)
    frame = pl.read_csv(people / "people.csv")[cvae.data.split_rows(SIZE, 0).test]
    key = cvae.keys.named(jax.random.key(0), "test")
    for given in (frame, frame.to_pandas(), frame.select(reversed(frame.columns))):
        found = cvae.evaluation.mean(cvae.evaluate(model, params, key, given, {}).value)
        assert found.value == pytest.approx(summary["test"]["cvae"]["elbo"]["value"], abs=1e-4)
    schema = cvae.settings.from_json(cvae.schema.Schema, json.loads((run / "schema.json").read_text()))
    assert schema == model.architecture.schema
    assert summary["unit"] == "nats per row, x in the units of the file"
    assert any("cells are missing" in note for note in summary["notes"])


def test_a_model_that_a_baseline_equals_gets_a_note():
    test = {name: cvae.evaluation.Estimate(value, 0.1) for name, value in (("log_likelihood", -3.0), ("x", 0.0))}
    better, worse = (cvae.evaluation.Estimate(value, 0.1) for value in (-2.9, -3.1))
    assert fit.note_on_baselines(test | {"baselines": {"independent": worse}}) == []
    (note,) = fit.note_on_baselines(test | {"baselines": {"independent": worse, "gaussian": better}})
    assert note.startswith("the linear Gaussian baseline, which needs no network, is as good as this model")


def test_baselines_stand_beside_the_result_of_a_table(people, capsys):
    call(people, *SMALL, "--epochs", "2")
    printed = capsys.readouterr().out
    assert "finished on" in printed
    assert "| group  | categorical | 3 different words" in printed
    assert "baseline: independent columns" in printed
    assert "baseline: linear Gaussian" in printed
    assert re.search(r"use generate runs/fit_people .*--condition age=\d.* --condition group=south", printed)
    found = json.loads((people / "runs/fit_people/summary.json").read_text())["test"]["cvae"]["baselines"]
    # Given age and group, height varies by 1 in place of 7.
    assert found["gaussian"]["value"] > found["independent"]["value"] + 1.5


def test_more_epochs_go_on_where_the_schedule_is_constant(tmp_path, capsys):
    rows_of_a_table().write_csv(tmp_path / "people.csv")
    run = tmp_path / "runs" / "fit_people"
    for epochs in ("1", "3"):
        call(tmp_path, *SMALL, "--epochs", epochs)
    assert "cvae goes on after epoch 1" in capsys.readouterr().out
    call(tmp_path, *SMALL, "--epochs", "3", "--out", "whole")
    lines = [(path / "metrics.jsonl").read_text().splitlines() for path in (run, tmp_path / "whole")]
    losses = [[json.loads(line)["train"]["loss"] for line in each] for each in lines]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    assert json.loads((run / "summary.json").read_text())["epochs"] == {"cvae": 3}
    before = contents(run)
    rows_of_a_table()[:1400].write_csv(tmp_path / "fewer.csv")
    (tmp_path / "people.csv").rename(tmp_path / "more.csv")
    (tmp_path / "fewer.csv").rename(tmp_path / "people.csv")
    with pytest.raises(SystemExit):
        call(tmp_path, *SMALL, "--epochs", "6")
    assert contents(run) == before  # of other data, nothing is written
    (tmp_path / "more.csv").rename(tmp_path / "people.csv")
    falling = [option.replace("constant", "cosine") for option in SMALL]
    for command in ([*SMALL, "--epochs", "2"], [*falling, "--epochs", "6"]):
        with pytest.raises(SystemExit) as stop:
            call(tmp_path, *command)
        message = capsys.readouterr().err
        assert stop.value.code == 2
        assert "--out" in message
        assert "--fresh" in message
    assert contents(run) == before


BAD_TABLES = {
    "ragged": ("a,b\n1,2\n3,4,5\n", "must have 2 fields in every line, as in the line of names, got 3 in line 3"),
    "binary": ("\0\1\2", "error: the table must have columns and rows, got shape (0, 1)"),
    "mixed": ("a,b\n" + "1,2\n" * 20 + "x,3\n", "column 'a' of bad.csv must hold numbers only, or words only"),
    "empty": ("", "bad.csv must start with a line of names, got an empty file"),
    "constant": (
        "a,b\n" + "1,2\n" * 30,
        "columns must be modelled, one at least, got none of 'a' (constant, 1), 'b' (constant, 2)",
    ),
}


@pytest.mark.parametrize(("text", "message"), BAD_TABLES.values(), ids=BAD_TABLES.keys())
def test_tables_that_cannot_be_used_are_refused_in_one_sentence(text, message, tmp_path, capsys):
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(SystemExit) as stop:
        call(tmp_path, "--data", "bad.csv")
    captured = capsys.readouterr().err
    assert stop.value.code == 2
    assert message in captured
    assert len(captured.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


def test_defaults_of_a_table_are_a_residual_network_and_a_learned_prior(people):
    which = fit.Which(data=people / "people.csv", condition=("age",))
    settings = fit.preset(which, fit.load(which))
    architecture, training = settings.architecture, settings.training
    assert (architecture.body, architecture.prior, architecture.hidden) == ("residual", "learned", (256, 256))
    assert (training.batch_size, training.schedule, training.ema_decay) == (120, "warmup_cosine", 0.999)
    assert training.epochs == fit.TABLE_STEPS[0] * 120 // 1200
    large = cvae.replace(which, batch_size=3)
    assert fit.preset(large, fit.load(large)).training.epochs == round(fit.TABLE_STEPS[0] * 3 / 1200)
    plain = fit.Which(data=people / "people.csv")
    assert fit.preset(plain, fit.load(plain)).architecture.prior == "standard"


def test_figures_of_a_table(tmp_path):
    rows_of_a_table().write_csv(tmp_path / "people.csv")
    which = fit.Which(data=tmp_path / "people.csv", condition=("age",), optional=("group",))
    figures = dict(fit.figures(job_of(tmp_path, which)))
    assert list(figures) == ["marginals", "associations", "conditions", "latents", "curves"]
    panels = [axes for axes in figures["conditions"].axes if axes.get_visible()]
    assert [axes.get_xlabel() for axes in panels] == ["age"] * 3 + ["group"] * 3
    assert panels[0].get_title() == "height"
    assert [axes.get_title() for axes in figures["latents"].axes[:2]] == ["age", "group"]


def test_8_bit_pixels_are_reported_in_bits_per_dimension(folder, capsys):
    quick = ["--likelihood", "discretized_logistic", "--hidden", "4", "--epochs", "1", "--no-figures", "--out", "bits"]
    call(folder, *IMAGES, *quick)
    test = json.loads((folder / "bits" / "summary.json").read_text())["test"]["cvae"]
    expected = test["log_likelihood"]["value"] / (35 * math.log(2))
    assert test["bits_per_dimension"]["value"] == pytest.approx(expected)
    assert re.search(rf"bits per dimension +\| +{-expected:.3f} ±", capsys.readouterr().out)


def test_generated_rows_are_written_a_column_at_a_time(monkeypatch):
    """Not a copy of the table at a time, which for 3,000 columns took most of a run."""
    calls, encode = [], Column.encode
    monkeypatch.setattr(Column, "encode", lambda self, values: calls.append(self.name) or encode(self, values))
    columns = (Column("price", "positive", decimals=1), Column("cut", "categorical", "", "String", ("a", "b", "c")))
    drawn = np.array([[[3.14, 2], [0.001, 0]], [[2.718, 1], [7.77, np.nan]], [[1.04, 1], [2.5, 2]]])
    written = user_figures.as_written(drawn, columns)
    np.testing.assert_array_equal(written[..., 0], [[3.1, 0.1], [2.7, 7.8], [1.0, 2.5]])
    np.testing.assert_array_equal(written[..., 1], drawn[..., 1])
    assert calls == ["price", "cut"]


def test_the_principal_plane_holds_most_of_the_variance():
    z = np.random.default_rng(0).normal(size=(500, 3)) * [0.1, 5, 1]
    points, shares = user_figures.principal_plane(z)
    np.testing.assert_allclose(np.abs(np.corrcoef(points[:, 0], z[:, 1])[0, 1]), 1, atol=1e-3)
    np.testing.assert_allclose(points.var(axis=0).sum() / z.var(axis=0).sum(), sum(shares))
    points, shares = user_figures.principal_plane(z[:, :1])
    assert (points.shape, len(shares)) == ((500, 2), 1)


# Figures


def test_figures_of_images_and_of_what_is_hidden(tmp_path):
    x = np.random.default_rng(0).normal(50, 9, (40, 6, 5, 3))
    assert [name for name, _ in fit.figures(job(tmp_path, x=x))] == ["reconstructions", "samples", "latents", "curves"]
    made = job(tmp_path, ("image=left_half",), x=x)
    figures = dict(fit.figures(made))
    assert "completed" in figures["samples"].get_suptitle()
    canvas = figures["samples"].axes[0].images[0].get_array()
    np.testing.assert_allclose(
        canvas[:6, :2], user_figures.shown(made.dataset, made.dataset.test[0])[0, :, :2], atol=1e-6
    )
    assert fit.facts(made)["unit"] == "nats per hidden part of each image, x in the units of the file"


def test_figures_of_a_wide_table_need_no_matrix_of_all_columns(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 3000))
    figures = dict(fit.figures(job(tmp_path, x=x)))
    assert list(figures) == ["marginals", "pair", "associations", "latents", "curves"]
    assert "of the 200 of 3,000 columns" in figures["pair"].get_suptitle().replace("\n", " ")


def test_several_conditions_and_a_learned_prior_give_no_warning(people, recwarn):
    which = fit.Which(data=people / "people.csv", condition=("age", "group"))
    default = cvae.replace(fit.preset(which, fit.load(which)), condition=())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["fit", "--condition", "age", "--condition", "group", "--prior", "learned"])
        settings = cli.options(fit.Settings, "", default=default)
    assert settings == cvae.replace(default, condition=("age", "group"))
    assert list(recwarn) == []
