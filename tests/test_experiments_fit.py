"""Fitting a user's arrays: nats and draws in the units of the file, runs that other data leave alone, the figures."""

import hashlib
import json
import math
import sys

import jax
import numpy as np
import pytest

import cvae
from cvae import plotting
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
    "--samples 0": "samples",
}


@pytest.mark.parametrize(("options", "message"), REFUSED.items(), ids=REFUSED.keys())
def test_bad_options_are_refused_before_anything_is_written(options, message, tmp_path, capsys):
    np.savez(tmp_path / "table.npz", **table())
    with pytest.raises(SystemExit) as stop:
        call(tmp_path, *COMMAND, *options.split())
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
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
    which = fit.Which(data=tmp_path / "some.npz", x="x", condition=condition)
    data = fit.load(which)
    settings = cvae.replace(fit.preset(which, data), architecture=cvae.Architecture(latent_size=2, hidden=(4,)))
    ((name, architecture),) = fit.models(settings, data).items()
    config = cvae.config.Config("fit", data.name, 0, settings.training, {name: architecture})
    model = cvae.make(architecture)
    made = cli.Job(settings, data, cli.Run(config, tmp_path, settings, data), lambda _, split: split)
    metrics = cvae.training.Metrics(1.0, -1.0, 0.0)
    epoch = cvae.fitting.Epoch(1, metrics, metrics, 1.0, 1.0, 1.0)
    made.trained[name] = Trained(model, jax.jit(model.init)(jax.random.key(0)), [epoch, epoch], [])
    return made


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
