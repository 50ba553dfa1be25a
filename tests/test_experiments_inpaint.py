"""Inpainting: a smoke run with random masks, and what is scored and drawn."""

import json
import math

import jax
import numpy as np
import pytest

import cvae
from experiments import mnist_inpaint
from experiments.harness import cli
from experiments.mnist_inpaint import CONFIGS

QUICK = cvae.replace(CONFIGS["smoke"], architecture=cvae.replace(CONFIGS["smoke"].architecture, body="mlp"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The settings and the folder of a smoke run."""
    out = tmp_path_factory.mktemp("inpaint") / "run"
    settings = cvae.replace(QUICK, mask="random_box", label=True, out=out)
    return settings, cli.execute(mnist_inpaint.EXPERIMENT, settings)


def test_the_summary_is_what_the_saved_model_scores(run):
    settings, out = run
    row = json.loads((out / "summary.json").read_text())["test"]["cvae"]
    (model, params), dataset = cvae.load(out), mnist_inpaint.load(settings)
    x, c = mnist_inpaint.EXPERIMENT.examples(model.architecture, dataset.test)
    assert set(c) == {"image", "observed", "label"}
    terms = cvae.evaluate(model, params, jax.random.key(99), x, c)  # other draws of z than the run's
    assert abs(row["elbo"]["value"] - terms.value.mean()) < 5 * row["elbo"]["standard_error"]
    assert row["log_likelihood"]["value"] > row["elbo"]["value"]
    hidden = (~dataset.test.observed).sum(axis=(1, 2, 3))
    assert row["hidden_pixels"]["value"] == pytest.approx(hidden.mean())
    expected = row["rate"]["value"] / hidden.mean()
    assert row["per_hidden_pixel"]["rate"]["value"] == pytest.approx(expected, rel=1e-5)
    assert {path.name for path in (out / "figures").glob("*.png")} == {"digits_completions.png", "digits_curves.png"}


def test_masks_and_pixels_that_are_scored_are_drawn_once(run):
    settings, _ = run
    first, second = (mnist_inpaint.load(cvae.replace(settings, seed=seed)) for seed in (0, 1))
    for part in ("validation", "test"):
        for one, other in zip(getattr(first, part), getattr(second, part), strict=True):
            np.testing.assert_array_equal(one, other)
    assert not np.array_equal(first.test.observed[0], first.test.observed[1])
    np.testing.assert_array_equal(first.test.x, cvae.data.binarize(2, cvae.data.load("digits").test.x))


def test_hidden_pixels_do_not_reach_the_completions(run):
    settings, out = run
    (model, params), test = cvae.load(out), mnist_inpaint.load(settings).test
    x, observed, label = test.x[:7], test.observed[:7], test.label[:7]
    sample = jax.jit(cvae.sample, static_argnums=0)
    drawn, other = (
        np.asarray(sample(model, params, jax.random.key(3), {"image": image, "observed": observed, "label": label}))
        for image in (x, x ^ ~observed)
    )
    np.testing.assert_array_equal(drawn, other)
    np.testing.assert_array_equal(drawn[observed], x[observed])


def test_nats_per_pixel_are_a_ratio_with_its_error():
    rng = np.random.default_rng(0)
    hidden = rng.integers(5, 40, 4000)
    ratios = [mnist_inpaint.per_pixel(0.3 * h + rng.normal(0, 2, len(h)), h) for h in hidden.reshape(40, 100)]
    values, errors = np.array(ratios).T
    assert abs(values.mean() - 0.3) < 5 * values.std(ddof=1) / math.sqrt(40)
    assert 0.6 < values.std(ddof=1) / errors.mean() < 1.5


def test_grey_targets_are_scored_by_a_grey_cross_entropy():
    summary = {"dataset": "digits", "seconds": {"cvae": 1.0}, "test": {"cvae": {}}}
    terms = {"grey_cross_entropy": {"value": 21.5, "standard_error": 0.25}}
    summary["test"]["cvae"] = terms | {"per_hidden_pixel": terms}
    text = mnist_inpaint.table(summary)
    assert "| grey cross-entropy, importance-weighted | 21.50 ± 0.25 |" in text
    assert "likelihood" not in text
