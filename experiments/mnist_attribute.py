"""Continuous conditions: a CVAE conditioned on the thickness and slant of the stroke, alone and beside the label.

    python -m experiments.mnist_attribute                      # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_attribute --digit 2 --latent-size 16 --conditioning film

Both attributes are measured on the images (Morpho-MNIST's definitions) and are two numbers of the condition. Residual
networks, 16 latents, grey targets, and a learned prior p(z | c): with N(0, I) a latent that is drawn for one thickness
may be one that only another has, and images follow their condition less closely. Reported on the test split: nats, of
which the grey cross-entropy is importance-weighted and no log-likelihood; and, for an image generated with the
attributes of every test image, those that are measured on it against those that were requested. Expected on MNIST:
Pearson's r of 0.96 for thickness and 0.99 for slant with the label, 0.91 and 0.99 without, in 15 minutes on two cores.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import checks, plotting
from cvae.evaluation import Estimate, mean
from cvae.plotting.style import minus
from cvae.settings import Count, CountOrZero, replace
from experiments import harness
from experiments.harness import Row, cli, tables
from experiments.harness.label_figures import check_digit, curves
from experiments.measures import fidelity, strokes

UNITS, TO_UNITS = ("px", "°"), np.array([1, 180 / math.pi])  # strokes are measured in pixels and radians
SHOWN = (7, 9)  # thicknesses by slants in the grid
QUANTILES = (0.02, 0.98)  # of the training images' attributes, between which the grid lies


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment."""

    architecture: cvae.Architecture = cvae.Architecture(
        condition=cvae.Continuous(2, name="stroke"), latent_size=16, hidden=(500,), body="residual",
        conditioning="concat_all", prior="learned",
    )  # fmt: skip
    training: cvae.Training = cvae.Training(epochs=12, batch_size=100, schedule="cosine", ema_decay=0.999)
    samples: Count = 100
    """importance samples of the grey cross-entropy"""
    proposal: harness.Proposal = "posterior"
    """how they are drawn; mixture is half each"""
    digit: CountOrZero = 5
    """the class that is drawn across the grid of thickness and slant"""


MNIST = Settings()
CONFIGS = {
    "mnist": MNIST,
    "digits": Settings(
        architecture=replace(MNIST.architecture, latent_size=4, hidden=(128,)),
        training=replace(MNIST.training, epochs=200),
    ),
    "smoke": Settings(
        architecture=replace(MNIST.architecture, latent_size=2, hidden=(64,)),
        training=replace(MNIST.training, epochs=3),
        samples=5,
        smoke=True,
    ),
}


def check(settings: Settings, dataset: cvae.data.Dataset) -> None:
    """Refuse a digit that is no class, and targets that are not grey."""
    check_digit(settings.digit, dataset)
    chosen = settings.training.binarization
    checks.require(chosen == "none", "--binarization", "be none, because strokes are of grey images", chosen)


class Measured(NamedTuple):
    """A split with the strokes of its images."""

    x: np.ndarray
    label: np.ndarray
    stroke: np.ndarray  # [N, 2], thickness in pixels and slant in radians


def load(settings: Settings) -> Any:
    """The data set with measured strokes; images whose stroke cannot be measured are left out, with a warning."""
    dataset = cli.load(settings)
    check(settings, dataset)  # before a minute of measuring
    splits: dict[str, Any] = {}
    for part in ("train", "validation", "test"):
        x, label = getattr(dataset, part)
        stroke = strokes.measure(x, progress=True)
        valid = np.isfinite(stroke).all(axis=1)
        if not valid.all():
            lost = int((~valid).sum())
            warnings.warn(f"leaving out {lost} {part} images whose stroke cannot be measured", stacklevel=2)
        splits[part] = Measured(x[valid], label[valid], stroke[valid])
    return dataset._replace(**splits)


def models(settings: Settings, dataset: Any) -> dict[str, cvae.Architecture]:
    """Two models, alike but for the label."""
    stroke = cvae.Continuous.fitted(dataset.train.stroke, "stroke")
    both = cvae.Mixed((cvae.Label(dataset.num_classes), stroke))
    base = replace(settings.architecture, event_shape=dataset.train.x.shape[1:])
    return {"attribute": replace(base, condition=stroke), "attribute_label": replace(base, condition=both)}


def evaluate(job: harness.Job) -> dict[str, Any]:
    """Nats, and how closely generated images follow their attributes, by model."""
    results = {}
    for name, trained in job.trained.items():
        key, (x, c) = job.key("test"), job.split(name, "test")
        options: dict[str, Any] = {"num_samples": job.settings.samples, "proposal": job.settings.proposal}
        scores = harness.likelihood_summary(trained, key, x, c, **options)
        value, error = scores.pop("log_likelihood")
        results[name] = harness.elbo_summary(trained, key, x, c) | scores
        results[name] |= {"grey_cross_entropy": Estimate(-value, error)}
        results[name] |= follows(c["stroke"], generated_strokes(job, name))
    return results


def generated_strokes(job: harness.Job, name: str) -> np.ndarray:
    """The strokes of an image per condition of the test split, the mean of p(x | z, c) for z ~ p(z | c), [N, 2]."""
    (model, params, *_), c = job.trained[name], job.split(name, "test")[1]
    sample = jax.jit(cvae.sample, static_argnames=("model", "mean"))
    return strokes.measure(np.asarray(sample(model, params, job.key("figures"), c, mean=True)), progress=True)


def follows(requested: np.ndarray, measured: np.ndarray) -> dict[str, Any]:
    """How closely measured attributes follow the requested ones; what cannot be measured is counted apart.

    Shapes: [N, 2], [N, 2], in pixels and radians.
    """
    valid = np.isfinite(measured).all(axis=1)
    r = errors = [Estimate(math.nan, math.nan)] * len(strokes.NAMES)
    if valid.sum() > 2:  # a correlation needs three
        r = fidelity.correlation(requested[valid], measured[valid])
        errors = [mean(error) for error in np.abs(measured - requested)[valid].T * TO_UNITS[:, None]]
    return {
        "correlation": dict(zip(strokes.NAMES, r, strict=True)),
        "mean_absolute_error": dict(zip(("thickness_px", "slant_degrees"), errors, strict=True)),
        "not_measurable": int((~valid).sum()),
    }


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """One digit across a grid of attributes, requested against measured attributes, and training curves."""
    yield f"grid_{job.settings.digit}", grid(job, job.settings.digit)
    requested = job.split("attribute", "test")[1]["stroke"] * TO_UNITS
    for name, condition in (("attribute", "attributes"), ("attribute_label", "attributes and label")):
        measured = generated_strokes(job, name) * TO_UNITS
        title = job.title(f"conditioned on {condition}, mean images")
        figure = plotting.requested_against_measured(requested, measured, strokes.NAMES, UNITS, title)
        yield f"requested_{name}", figure
    yield "curves", curves(job.trained, job.title("training and validation"))


def grid(job: harness.Job, digit: int) -> Figure:
    """One digit across the thicknesses and slants of the training images; z is the mean of p(z | c)."""
    model, params, *_ = job.trained["attribute_label"]
    training: Any = job.dataset.train
    (thinnest, left), (thickest, right) = np.quantile(training.stroke, QUANTILES, axis=0)
    thickness, slant = np.linspace(thinnest, thickest, SHOWN[0]), np.linspace(left, right, SHOWN[1])
    requested = np.stack(np.meshgrid(thickness, slant, indexing="ij"), axis=-1).reshape(-1, 2)
    c = {"label": np.full(len(requested), digit), "stroke": requested.astype(np.float32)}
    drawn = np.asarray(cvae.sample(model, params, job.key("figures"), c, mean=True, temperature=0))
    return plotting.grid(
        drawn.reshape(*SHOWN, *drawn.shape[1:]),
        job.title(f"one {digit}, z is the mean of p(z | c)", "attribute_label"),
        row_labels=[f"{value:.3g}" for value in thickness],
        column_labels=[minus(f"{value:.0f}") for value in np.degrees(slant)],
        axis_labels=("requested slant (°)", "requested thickness (px)"),
        cell=0.55,
    )


NATS = [
    Row("grey cross-entropy", "grey_cross_entropy"),
    Row("-ELBO", "elbo", negate=True),
    Row("rate", "rate"),
    Row("distortion", "distortion"),
    Row("active", "active_units.active", "count"),
    Row("effective samples", "effective_samples", "one"),
    Row("training", "seconds", "seconds"),
]
STROKES = [
    Row("thickness: r", "correlation.thickness", "correlation"),
    Row("error, px", "mean_absolute_error.thickness_px"),
    Row("slant: r", "correlation.slant", "correlation"),
    Row("error, °", "mean_absolute_error.slant_degrees"),
    Row("not measurable", "not_measurable", "count"),
]


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    rows = tables.with_seconds(summary)
    nats = tables.by_row(NATS, rows, f"{summary['dataset']}, nats per image")
    return f"{nats}\n\n{tables.by_row(STROKES, rows, 'requested against measured')}"


EXPERIMENT = harness.Experiment("mnist_attribute", CONFIGS, models, evaluate, figures, table, load=load)

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
