"""The strong label-conditional model: a smoke run, and what its numbers are."""

import json

import jax
import numpy as np
import pytest

import cvae
from cvae.objectives import ImportanceEstimate
from experiments import mnist_likelihood
from experiments.harness import cli
from experiments.harness.run import binarized
from experiments.mnist_likelihood import CONFIGS, EXPERIMENT

SMOKE = CONFIGS["smoke"]
QUICK = cvae.replace(
    SMOKE,
    architecture=cvae.replace(SMOKE.architecture, body="mlp", hidden=(16,)),
    samples=5,
    many_samples=10,
    class_samples=2,
    generated=3,
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run."""
    return cli.execute(EXPERIMENT, cvae.replace(QUICK, out=tmp_path_factory.mktemp("likelihood") / "run"))


def test_a_run_measures_in_every_way(finished):
    summary = json.loads((finished / "summary.json").read_text(), parse_constant=pytest.fail)  # also of empty bins
    test = summary["test"]["cvae"]
    for name in ("log_likelihood", "log_marginal", "elbo", "rate", "distortion", "effective_samples"):
        assert np.isfinite(test[name]["value"])
        assert test[name]["standard_error"] > 0
    for kind in ("conditioning_accuracy", "diversity"):
        assert set(test[kind]) - {"images"} == {"generated", "generated_draws", "real", "real_binarized"}
    assert test["conditioning_accuracy"]["real"]["value"] > 0.95
    assert sum(test["classification"]["calibration"]["examples"]) == 300
    first = test["of_first_images"]
    assert (first["few"]["examples"], first["many"]["examples"], first["many"]["num_samples"]) == (50, 50, 10)
    figures = {f"digits_{name}.png" for name in ("samples", "draws", "calibration", "curves")}
    assert {path.name for path in (finished / "figures").glob("*.png")} == figures
    assert "| -log p(x | y), upper bound " in mnist_likelihood.table(summary)


def test_numbers_are_those_of_the_saved_model_on_images_binarised_once(finished):
    (model, params), dataset = cvae.load(finished), cvae.data.load("digits")
    assert [part.name for part in model.architecture.condition.parts] == ["label", "shift"]
    x, c = binarized(*EXPERIMENT.examples(model.architecture, dataset.test))
    np.testing.assert_array_equal(x, cvae.data.binarize(2, dataset.test.x))
    np.testing.assert_array_equal(c["shift"], np.zeros((300, 2)))
    test = json.loads((finished / "summary.json").read_text())["test"]["cvae"]
    terms = cvae.evaluate(model, params, jax.random.key(77), x, c)  # other draws than the run's
    assert abs(test["rate"]["value"] - terms.kl.mean()) < 5 * test["rate"]["standard_error"]
    assert abs(test["elbo"]["value"] - terms.value.mean()) < 5 * test["elbo"]["standard_error"]
    assert test["log_likelihood"]["value"] > test["elbo"]["value"]


def test_the_marginal_is_the_mean_over_labels_with_the_best_estimate_of_the_true_one():
    scores = np.log([[0.2, 0.4], [0.1, 0.3], [0.5, 0.5]])
    few = ImportanceEstimate(np.log([0.6, 0.2]), np.array([3.0, 5.0]))
    found = mnist_likelihood.likelihoods(few, scores, np.array([0, 1, 1]), 7)
    assert found["log_marginal"].value == pytest.approx(np.log([0.5, 0.15]).mean())
    assert found["log_likelihood"].value == pytest.approx(np.log([0.6, 0.2]).mean())
    assert (found["effective_samples"].value, found["num_samples"], found["examples"]) == (4, 7, 2)


def test_without_shifts_the_label_is_the_only_condition():
    training = cvae.replace(QUICK.training, shift=0)
    models = mnist_likelihood.models(cvae.replace(QUICK, training=training), cvae.data.load("digits"))
    assert models["cvae"].condition == cvae.Label(10)
