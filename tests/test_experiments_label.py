"""The article's experiment: what a run leaves, and what its numbers and figures are of."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

import cvae
from experiments import mnist_label
from experiments.harness import Trained, cli
from experiments.harness.label_figures import plane
from experiments.mnist_label import CONFIGS, EXPERIMENT
from tests.conftest import weights

FIGURES = ("curves", "handwriting", "latents", "manifold_5", "reconstructions")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a smoke run."""
    out = tmp_path_factory.mktemp("label") / "run"
    return cli.execute(EXPERIMENT, cvae.replace(CONFIGS["smoke"], out=out))


def test_a_run_leaves_its_config_metrics_summary_and_figures(finished):
    config = cvae.runs.read_config(finished)
    assert (config.dataset, list(config.models)) == ("digits", ["cvae", "vae"])
    lines = [json.loads(line) for line in (finished / "metrics.jsonl").read_text().splitlines()]
    assert [(line["model"], line["epoch"]) for line in lines] == [(m, e) for m in ("cvae", "vae") for e in (1, 2, 3)]
    for terms in (line[split] for line in lines for split in ("train", "validation")):
        assert terms["loss"] == pytest.approx(terms["kl"] - terms["log_likelihood"], rel=1e-4)
    for name in FIGURES:
        assert min(Image.open(finished / "figures" / f"digits_{name}.png").size) > 300
        assert (finished / "figures" / f"digits_{name}.pdf").stat().st_size > 1000
    assert len(list((finished / "figures").iterdir())) == 2 * len(FIGURES)


def test_the_summary_is_what_the_saved_models_score(finished):
    summary = json.loads((finished / "summary.json").read_text())
    assert set(summary["seconds"]) == {"cvae", "vae", "total"}
    assert {"commit", "versions", "machine", "date", "seed"} <= set(summary)
    test = cvae.data.load("digits").test
    for name, row in summary["test"].items():
        model, params = cvae.load(finished, name)
        c = {"label": test.label} if name == "cvae" else {}
        # Other draws of z than the run's: equal within the noise.
        terms = cvae.evaluate(model, params, jax.random.key(99), test.x, c)
        assert row["images"] == len(test.x)
        assert row["kl"]["value"] == pytest.approx(float(terms.kl.mean()), rel=1e-4)
        assert row["loss"]["value"] == pytest.approx(row["kl"]["value"] - row["log_likelihood"]["value"])
        assert abs(row["loss"]["value"] + float(terms.value.mean())) < 5 * row["loss"]["standard_error"]


@pytest.mark.parametrize("latents", [1, 3])
def test_other_latent_sizes_are_drawn_too(latents, tmp_path):
    architecture = cvae.replace(CONFIGS["smoke"].architecture, latent_size=latents, hidden=(8,))
    settings = cvae.replace(CONFIGS["smoke"], architecture=architecture, out=tmp_path / "run", digit=7)
    dataset, config, out = cli.plan(EXPERIMENT, settings)
    metrics = cvae.training.Metrics(30.0, -28.0, 2.0)
    history = [cvae.loop.Epoch(number, metrics, metrics, 40.0, 1.0, 1.0) for number in (1, 2)]
    models = {name: cvae.make(each) for name, each in config.models.items()}
    trained = {name: Trained(model, weights(model), history, []) for name, model in models.items()}
    job = cli.Job(settings, dataset, cli.Run(config, out, settings, dataset), EXPERIMENT.examples, trained)
    drawn = [name for name, figure in mnist_label.figures(job) if figure.savefig(tmp_path / "figure", dpi=50) is None]
    assert sorted(drawn) == sorted(name.replace("5", "7") for name in FIGURES)


def test_plane_takes_the_latents_that_vary_most():
    means = np.random.default_rng(0).normal(size=(500, 4)) * [0.1, 2.0, 0.01, 1.0]
    assert plane(means) == (1, 3)
    assert plane(means[:, :1]) == (0,)
