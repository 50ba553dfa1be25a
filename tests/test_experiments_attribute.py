"""Thickness and slant as conditions: a smoke run, and what counts as a failure."""

import json

import jax
import numpy as np
import pytest

import cvae
from experiments import mnist_attribute
from experiments.harness import cli
from experiments.measures import strokes
from experiments.mnist_attribute import CONFIGS

QUICK = cvae.replace(CONFIGS["smoke"], architecture=cvae.replace(CONFIGS["smoke"].architecture, body="mlp"))

MODELS = ("attribute", "attribute_label")


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    return cvae.replace(QUICK, digit=3, out=tmp_path_factory.mktemp("attribute") / "run")


@pytest.fixture(scope="module")
def finished(settings):
    """The folder of a smoke run."""
    return cli.execute(mnist_attribute.EXPERIMENT, settings)


def test_the_summary_is_what_the_saved_models_score(finished, settings):
    summary, dataset = json.loads((finished / "summary.json").read_text()), mnist_attribute.load(settings)
    for name in MODELS:
        row, (model, params) = summary["test"][name], cvae.load(finished, name)
        x, c = mnist_attribute.EXPERIMENT.examples(model.architecture, dataset.test)
        terms = cvae.evaluate(model, params, jax.random.key(99), x, c)  # other draws of z than the run's
        assert abs(row["elbo"]["value"] - terms.value.mean()) < 5 * row["elbo"]["standard_error"]
        assert row["grey_cross_entropy"]["value"] < -row["elbo"]["value"]
        assert "log_likelihood" not in row
        assert (row["examples"], row["num_samples"], row["not_measurable"]) == (300, 5, 0)
        assert set(row["correlation"]) == set(strokes.NAMES)
    figures = {
        f"digits_{name}.png" for name in ("grid_3", "requested_attribute", "requested_attribute_label", "curves")
    }
    assert {path.name for path in (finished / "figures").glob("*.png")} == figures


def test_the_condition_is_standardised_by_the_training_images(finished, settings):
    stroke = mnist_attribute.load(settings).train.stroke.astype(np.float64)
    for name in MODELS:
        part = cvae.config.parts_of(cvae.load(finished, name)[0].architecture.condition)[-1]
        np.testing.assert_allclose(part.mean, stroke.mean(axis=0), rtol=1e-5)
        np.testing.assert_allclose(part.std, stroke.std(axis=0), rtol=1e-5)


def test_an_image_that_cannot_be_measured_is_left_out(settings, monkeypatch):
    dataset = cvae.data.load("digits")
    train = cvae.data.Split(dataset.train.x[:7].copy(), dataset.train.label[:7])
    train.x[2] = 0
    monkeypatch.setattr(cli, "load", lambda settings: dataset._replace(train=train))
    with pytest.warns(UserWarning, match="leaving out 1 train images whose stroke cannot be measured"):
        part = mnist_attribute.load(settings).train
    np.testing.assert_array_equal(part.x, np.delete(train.x, 2, axis=0))
    np.testing.assert_array_equal(part.label, np.delete(train.label, 2))
    np.testing.assert_array_equal(part.stroke, strokes.measure(part.x))


def test_what_cannot_be_measured_is_counted_and_the_rest_compared():
    requested = np.array([[1, 0.1], [2, 0.3], [4, -0.2], [3, 0.5], [2, 0.0]])
    measured = requested + np.array([0.5, np.pi / 180])
    measured[3, 1] = np.nan
    scores = mnist_attribute.follows(requested, measured)
    assert scores["not_measurable"] == 1
    for estimate in scores["correlation"].values():
        assert estimate == (pytest.approx(1), pytest.approx(0, abs=1e-7))
    assert scores["mean_absolute_error"]["thickness_px"] == (pytest.approx(0.5), pytest.approx(0, abs=1e-7))
    assert scores["mean_absolute_error"]["slant_degrees"] == (pytest.approx(1), pytest.approx(0, abs=1e-7))
    nothing = mnist_attribute.follows(requested, np.full_like(requested, np.nan))
    assert nothing["not_measurable"] == 5
    assert np.isnan(nothing["correlation"]["slant"].value)
