"""The article's experiment: a run on a machine without MNIST, a second one, what it writes and draws."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from benchmarks import survival
from experiments import mnist_label, pictures, study, write
from tests.commands import assert_refused, call, run
from tests.conftest import weights

FIGURES = ("curves", "handwriting", "latents", "manifold_5", "reconstructions")
# What a smoke run is, but that it takes the digits only where there is no MNIST.
SHORT = ("--epochs", "3", "--hidden", "64")


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """A folder in which a short run of the experiment was made, and how the command ended."""
    folder = tmp_path_factory.mktemp("short")
    return folder, run("experiments.mnist_label", *SHORT, cwd=folder)


@pytest.fixture(scope="module")
def finished(short):
    """Its run folder."""
    folder, result = short
    assert result.returncode == 0, result.stderr
    return folder / "runs" / "mnist_label_digits"


def test_a_run_writes_everything(finished):
    config = json.loads((finished / "config.json").read_text())
    assert config["dataset"] == "digits"
    assert list(config["models"]) == ["cvae", "vae"]
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [(m, e) for m in ("cvae", "vae") for e in (1, 2, 3)]
    for line in lines:
        for split in ("train", "validation"):
            terms = line[split]
            assert terms["loss"] == pytest.approx(terms["kl"] - terms["log_likelihood"], rel=1e-4)
    for name in FIGURES:
        width, height = Image.open(finished / "figures" / f"digits_{name}.png").size
        assert min(width, height) > 300
    assert len(list((finished / "figures").iterdir())) == len(FIGURES)


def test_summary_is_what_the_saved_models_score(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["dataset"] == "digits"
    assert set(summary["seconds"]) == {"cvae", "vae", "total"}
    assert {"commit", "versions", "machine", "date", "seed"} <= set(summary)
    test = cvae.data.load("digits").test
    for name, row in summary["test"].items():
        model, params, _ = cvae.load(finished, name)
        c = pictures.given(model, test.label)
        # Another draw of z than the run's, so equal within the noise of both.
        terms = cvae.evaluate(model, params, jax.random.key(99), test.x, c, num_samples=20)
        assert row["pictures"] == len(test.x)
        assert row["loss"] == pytest.approx(-row["elbo"])
        assert row["kl"] == pytest.approx(float(terms.kl.mean()), rel=1e-4)
        assert abs(row["elbo"] - float(terms.value.mean())) < 5 * row["standard_error"]


def test_a_run_ends_with_a_table_and_the_pictures(short):
    _, result = short
    assert "digits, 300 test pictures, nats per picture" in result.stdout
    for name in ("cvae", "vae", "log-likelihood", *(f"digits_{figure}.png" for figure in FIGURES)):
        assert name in result.stdout
    assert "cvae on digits: 100%" in result.stderr


def test_without_mnist_auto_says_so_and_uses_digits(short, finished):
    _, result = short
    assert "warning: using scikit-learn's 1,797 digits of 8x8 pixels instead of MNIST" in result.stderr
    assert "--dataset mnist" in result.stderr
    assert json.loads((finished / "summary.json").read_text())["dataset"] == "digits"


def test_a_smoke_run_is_short_and_on_digits(finished):
    dataset, config, out = mnist_label.plan(mnist_label.Settings(output=mnist_label.Output(smoke=True)))
    assert (dataset.name, out.name) == ("digits", "mnist_label_digits_smoke")
    assert config == cvae.runs.read_config(finished)


def test_the_same_settings_again_give_the_same_numbers(finished):
    """In another process, where the digits are asked for by name."""
    before = json.loads((finished / "summary.json").read_text())["test"]
    result = call(mnist_label, "--dataset", "digits", *SHORT, "--out", str(finished))
    assert (result.returncode, result.stdout.startswith("finished already, ")) == (0, True), result.stderr
    result = call(mnist_label, "--dataset", "digits", *SHORT, "--fresh", "--out", str(finished))
    assert (result.returncode, "warning" in result.stderr) == (0, False), result.stderr
    assert f"discarding 6 epochs in {finished}" in result.stdout
    assert json.loads((finished / "summary.json").read_text())["test"] == before
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 6


def test_another_config_in_the_same_folder_is_refused(finished):
    result = call(mnist_label, "--dataset", "digits", *SHORT, "--latents", "3", "--out", str(finished))
    assert_refused(result, "models.cvae.latent_size 2, not 3; choose another folder or delete it")


def test_write_puts_its_picture_in_the_run_folder(short, finished, monkeypatch):
    monkeypatch.chdir(short[0])
    result = call(write, "42")
    assert result.returncode == 0, result.stderr
    out = finished / "figures" / "digits_write_42.png"
    assert str(out.relative_to(short[0])) in result.stdout
    out.unlink()


@pytest.mark.parametrize("latents", [1, 3])
def test_other_latent_sizes_are_drawn_too(latents, tmp_path):
    settings = mnist_label.Settings(
        models=mnist_label.Models(latents=latents, hidden=(8,)),
        output=mnist_label.Output(smoke=True, out=tmp_path / "run"),
    )
    dataset, config, _ = mnist_label.plan(settings)
    terms = cvae.evaluation.Terms(30.0, -28.0, 2.0)
    history = [cvae.training.Epoch(number, terms, terms, 1.0, 1.0) for number in (1, 2)]
    models = {name: cvae.make(architecture) for name, architecture in config.models.items()}
    trained = {name: study.Trained(model, weights(model), history) for name, model in models.items()}
    drawn = []
    for name, figure in pictures.Drawings(config, dataset, trained, jax.random.key(0)).figures(7):
        figure.savefig(tmp_path / f"{name}.png", dpi=50)
        drawn.append(name)
    assert sorted(drawn) == sorted(name.replace("5", "7") for name in FIGURES)


def test_plane_takes_the_latents_that_vary_most():
    means = np.random.default_rng(0).normal(size=(500, 4)) * [0.1, 2.0, 0.01, 1.0]
    points, axes = pictures.plane(means)
    assert axes == (1, 3)
    np.testing.assert_array_equal(points, means[:, [1, 3]])


def test_a_refused_command_leaves_the_summary(finished, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    monkeypatch.setattr(cvae, "__version__", "0.0.1")
    before = (run / "summary.json").read_text()
    result = call(mnist_label, "--dataset", "digits", *SHORT, "--digit", "3", "--out", str(run))
    assert_refused(result, "not '0.0.1'; --fresh starts over")
    assert (run / "summary.json").read_text() == before


def test_what_is_trained_again_for_want_of_checkpoints_is_said(finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    shutil.rmtree(run / "progress")
    result = call(mnist_label, "--dataset", "digits", *SHORT, "--digit", "3", "--out", str(run))
    assert result.returncode == 0, result.stderr
    assert "cvae is trained again: of its training there is no checkpoint in" in result.stdout
    assert survival.difference(survival.result(run), survival.result(finished)) in (None, "summary")


def test_a_folder_of_something_else_is_refused_and_nothing_is_left_there(tmp_path):
    (tmp_path / "thesis.tex").touch()
    for fresh in ([], ["--fresh"]):
        result = call(mnist_label, "--dataset", "digits", *SHORT, *fresh, "--out", str(tmp_path))
        assert_refused(result, "run folder must hold a config.json, got none")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
