"""The experiment that measures a label-conditional model in every way: its files, its numbers, its refusals."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import mnist_likelihood, study
from tests.commands import afresh


def settings(out, **measuring):
    return mnist_likelihood.Settings(
        output=study.Output(out=out, smoke=True),
        measuring=mnist_likelihood.Measuring(
            **{"num_samples": 50, "class_samples": 50, "many_samples": 100, "pictures": 40, "generated": 12} | measuring
        ),
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return mnist_likelihood.main(settings(tmp_path_factory.mktemp("runs") / "likelihood"))


def test_it_writes_everything(finished):
    assert len((finished / "metrics.jsonl").read_text().splitlines()) == 2
    for name in ("samples", "calibration", "curves"):
        assert min(Image.open(finished / "figures" / f"digits_{name}.png").size) > 300
    summary = json.loads((finished / "summary.json").read_text())
    assert {"commit", "versions", "machine", "date", "seed", "seconds"} <= set(summary)
    test = summary["test"]["cvae"]
    for name in ("log_likelihood", "elbo", "rate", "distortion", "effective_samples"):
        assert np.isfinite(test[name]["value"])
        assert test[name]["standard_error"] > 0
    for kind in ("agreement", "diversity"):
        assert set(test[kind]) >= {"generated", "real"}
    assert test["agreement"]["real"]["value"] > 0.95  # the judge can read
    assert sum(test["classification"]["calibration"]["examples"]) == 300


def test_numbers_are_those_of_the_saved_model(finished):
    """Scored again with other draws: equal within the noise."""
    model, params, config = cvae.load(finished, "cvae")
    assert config.training.targets == "dynamic"
    test = cvae.data.load("digits").test
    x, c = mnist_likelihood.examples(config, test._replace(x=cvae.preparation.binarise(config.seed, test.x)))
    assert set(np.unique(x)) == {0, 255}
    said = json.loads((finished / "summary.json").read_text())["test"]["cvae"]
    again = study.bound(model, params, jax.random.key(77), x, c)
    assert abs(said["rate"]["value"] - again["rate"].value) < 5 * said["rate"]["standard_error"]
    assert abs(said["elbo"]["value"] - again["elbo"].value) < 5 * said["elbo"]["standard_error"]
    better = cvae.log_likelihood(model, params, jax.random.key(78), x, c, num_samples=50).value
    assert abs(said["log_likelihood"]["value"] - better.mean()) < 5 * said["log_likelihood"]["standard_error"]
    assert said["log_likelihood"]["value"] > said["elbo"]["value"]
    first = said["of_first_pictures"]
    assert (first["few"]["examples"], first["many"]["examples"], first["many"]["num_samples"]) == (40, 40, 100)
    # p(x) is the mean of ten p(x | y), of which p(x | y) of the label is one.
    for scored in (said, *first.values()):
        assert scored["log_likelihood"]["value"] - np.log(10) < scored["log_marginal"]["value"]
    assert first["few"]["log_marginal"] != said["log_marginal"] != first["many"]["log_marginal"]


def test_the_same_command_started_over_gives_the_same_numbers(finished):
    before = json.loads((finished / "summary.json").read_text())["test"]
    mnist_likelihood.main(afresh(settings(finished)))
    assert json.loads((finished / "summary.json").read_text())["test"] == before


BAD = {
    "no samples": ({"num_samples": 0}, "--num-samples must be a whole number of at least 1, got 0"),
    "no class samples": ({"class_samples": -1}, "--class-samples must be a whole number of at least 1, got -1"),
    "one generated": ({"generated": 1}, "--generated must be a whole number of at least 2, got 1"),
}


@pytest.mark.parametrize(("measuring", "message"), BAD.values(), ids=BAD.keys())
def test_bad_options_leave_nothing_behind(tmp_path, measuring, message):
    with pytest.raises(ValueError, match=message):
        mnist_likelihood.main(settings(tmp_path / "out", **measuring))
    assert not (tmp_path / "out").exists()
