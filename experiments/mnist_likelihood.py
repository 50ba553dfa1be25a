"""Likelihood, classification and samples of a strong label-conditional model, each measured in several ways.

    python -m experiments.mnist_likelihood                       # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_likelihood --latent-size 20 --latent-layers 2 --epochs 10 --samples 100
    python -m experiments.mnist_likelihood --binarization static --out runs/mnist_likelihood_static

A residual network with four layers of latents and a learned prior p(z | y). Pixels of training images are binarised
anew at each use (dynamic) or once (static), those of the other splits once; training images are moved by up to a pixel,
and the networks are conditioned on the shift. Reported on the test split, each with its standard error: lower bounds of
log p(x | y) and log p(x) by importance sampling; rate, distortion and active units; accuracy and calibration of Bayes'
rule argmax_y log p(x | y); and generated digits by an independent reference classifier, beside real ones: conditioning
accuracy and diversity within a class. Expected on MNIST: -log p(x | y) of 79.3 nats, 25 minutes of training.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any

import jax
import numpy as np
from matplotlib.figure import Figure
from pydantic import Field

import cvae
from cvae import checks, plotting
from cvae.classification import class_log_likelihoods, classify
from cvae.evaluation import mean
from cvae.objectives import ImportanceEstimate
from cvae.settings import Count, CountOrZero, replace
from experiments import harness
from experiments.harness import Row, tables
from experiments.harness.generated import generate, measure
from experiments.harness.label_figures import curves
from experiments.harness.run import binarized
from experiments.measures import reference_classifier

COLUMNS = 12  # generated images of each class that are shown


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment."""

    architecture: cvae.Architecture = cvae.Architecture(
        condition=cvae.Label(10), latent_size=64, hidden=(500, 500), body="residual", prior="learned", latent_layers=4
    )
    training: cvae.Training = cvae.Training(
        epochs=80, batch_size=200, learning_rate=1.5e-3, schedule="warmup_cosine", weight_decay=0.1, ema_decay=0.999,
        binarization="dynamic", shift=1, shift_prob=0.7,
    )  # fmt: skip
    samples: Count = 500
    """importance samples of log p(x | y), and of log p(x) for the true label"""
    many_samples: CountOrZero = 5000
    """importance samples of the first images; 0 leaves them out"""
    first_images: Annotated[int, Field(ge=2)] = 1000
    """how many the first images are"""
    class_samples: Count = 100
    """importance samples of log p(x | y) for every class, to classify"""
    proposal: harness.Proposal = "posterior"
    """how they are drawn; mixture is half each"""
    generated: Annotated[int, Field(ge=2)] = 1000
    """images generated per class, for the reference classifier"""


MNIST = Settings()
CONFIGS = {
    "mnist": MNIST,
    "digits": Settings(
        architecture=replace(MNIST.architecture, latent_size=16, latent_layers=2, hidden=(256,)),
        training=replace(MNIST.training, epochs=300),
    ),
    "smoke": Settings(
        architecture=replace(MNIST.architecture, latent_size=4, latent_layers=2, hidden=(32,)),
        training=replace(MNIST.training, epochs=2),
        samples=20, many_samples=40, first_images=50, class_samples=5, generated=20, smoke=True,
    ),
}  # fmt: skip


def models(settings: Settings, dataset: cvae.data.Dataset) -> dict[str, cvae.Architecture]:
    """One model, conditioned on the label, and on the shift where images are moved."""
    label = cvae.Label(dataset.num_classes)
    condition = cvae.Mixed((label, cvae.Continuous(2, name="shift"))) if settings.training.shift > 0 else label
    return {"cvae": replace(settings.architecture, event_shape=dataset.train.x.shape[1:], condition=condition)}


def check(settings: Settings, dataset: cvae.data.Dataset) -> None:
    """Refuse grey training images, because test images are binarised."""
    chosen = settings.training.binarization
    checks.require(chosen != "none", "--binarization", "be dynamic or static", chosen)


def evaluate(job: harness.Job) -> dict[str, Any]:
    """Nats, active units, classification, and generated images beside real ones."""
    settings, trained = job.settings, job.trained["cvae"]
    x, c = binarized(*job.split("cvae", "test"))
    model, params, key = trained.model, trained.params, job.key("test")
    options: dict[str, Any] = {"proposal": settings.proposal, "progress": True}
    scores = class_log_likelihoods(model, params, key, x, c, num_samples=settings.class_samples, **options)
    estimate = cvae.log_likelihood(model, params, key, x, c, num_samples=settings.samples, **options)
    results = harness.elbo_summary(trained, key, x, c) | likelihoods(estimate, scores, c["label"], settings.samples)
    classified = classify(scores, c["label"])
    results["classification"] = classified._asdict() | {"num_samples": settings.class_samples}
    if settings.many_samples > 0:
        first = slice(settings.first_images)
        some = jax.tree.map(lambda values: values[first], (x, c))
        many = cvae.log_likelihood(model, params, key, *some, num_samples=settings.many_samples, **options)
        few = ImportanceEstimate(*(values[first] for values in estimate))
        results["of_first_images"] = {
            "few": likelihoods(few, scores, c["label"], settings.samples),
            "many": likelihoods(many, scores, c["label"], settings.many_samples),
        }
    return {"cvae": results | generated_digits(job)}


def likelihoods(estimate: ImportanceEstimate, scores: np.ndarray, label: np.ndarray, samples: int) -> dict[str, Any]:
    """Means of log p(x | y) and log p(x) over the images that are scored, the first ones.

    p(x) is the mean over the labels of p(x | y), nearly all of it of one label: that one has all the samples.
    """
    count = len(estimate.value)
    joint = scores[:count].copy()
    joint[np.arange(count), label[:count]] = estimate.value
    marginal = np.logaddexp.reduce(joint, axis=1) - np.log(joint.shape[1])
    return {
        "log_likelihood": mean(estimate.value),
        "log_marginal": mean(marginal),
        "effective_samples": mean(estimate.effective_samples),
        "num_samples": samples,
        "examples": count,
    }


def generated_digits(job: harness.Job) -> dict[str, Any]:
    """Conditioning accuracy and diversity within a class of generated digits, and of real ones, as means and draws."""
    classifier, test = reference_classifier.train(*job.dataset.train, job.settings.seed), job.dataset.test
    label = np.repeat(np.arange(job.dataset.num_classes), job.settings.generated)
    draw = partial(generate, *job.trained["cvae"][:2], job.key("figures"), label)
    measured = {
        "generated": measure(classifier, draw(mean=True), label),
        "generated_draws": measure(classifier, draw(mean=False), label),
        "real": measure(classifier, test.x, test.label),
        "real_binarized": measure(classifier, binarized(test.x, {})[0].astype(np.float32), test.label),
    }
    accuracy = {name: each.conditioning_accuracy for name, each in measured.items()}
    diversity = {name: each.diversity for name, each in measured.items()}
    return {"conditioning_accuracy": accuracy | {"images": len(label)}, "diversity": diversity}


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """Generated images, the calibration of Bayes' rule, and training curves."""
    classes = job.dataset.num_classes
    label = np.repeat(np.arange(classes), COLUMNS)
    for name, is_mean in (("samples", True), ("draws", False)):
        images = generate(*job.trained["cvae"][:2], job.key("figures"), label, mean=is_mean)
        what = "means of p(x | z, y)" if is_mean else "draws of p(x | y)"
        title, names = job.title(f"{what}, z ~ p(z | y)"), [str(k) for k in range(classes)]
        yield name, plotting.grid(images.reshape(classes, COLUMNS, *images.shape[1:]), title, row_labels=names)
    bins = cvae.runs.read_summary(job.run.out)["test"]["cvae"]["classification"]["calibration"]
    confidence, accuracy, count = (np.array(bins[name], float) for name in ("confidence", "accuracy", "examples"))
    title = job.title("p(y | x) by Bayes' rule, test split")
    yield "calibration", plotting.calibration(confidence, accuracy, count, title)
    yield "curves", curves(job.trained, job.title("training and validation"))


TABLE = [
    Row("-log p(x | y), upper bound", "log_likelihood", negate=True),
    Row("-log p(x), upper bound", "log_marginal", negate=True),
    Row("effective samples", "effective_samples", "one"),
    Row("-ELBO", "elbo", negate=True),
    Row("rate", "rate"),
    Row("distortion", "distortion"),
    Row("active units", "active_units.active", "count"),
    Row("accuracy of Bayes' rule", "classification.accuracy", "percent"),
    Row("expected calibration error", "classification.expected_calibration_error", "percent"),
    Row("conditioning accuracy, means", "conditioning_accuracy.generated", "percent"),
    Row("real grey images", "conditioning_accuracy.real", "percent"),
    Row("conditioning accuracy, draws", "conditioning_accuracy.generated_draws", "percent"),
    Row("real binarised images", "conditioning_accuracy.real_binarized", "percent"),
    Row("diversity, means", "diversity.generated", "nats"),
    Row("diversity, real grey", "diversity.real", "nats"),
    Row("diversity, draws", "diversity.generated_draws", "nats"),
    Row("diversity, real binarised", "diversity.real_binarized", "nats"),
    Row("training", "seconds", "seconds"),
]


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    return tables.by_model(TABLE, tables.with_seconds(summary), f"{summary['dataset']}, binarised test images, nats")


EXPERIMENT = harness.Experiment("mnist_likelihood", CONFIGS, models, evaluate, figures, table, check=check)

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
