"""Inpainting: a CVAE conditioned on a part of an image draws the rest, many times over.

    python -m experiments.mnist_inpaint                        # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_inpaint --mask random_box --label --out runs/mnist_inpaint_box

By default the bottom left quadrant is observed and the other three are drawn (Sohn, Lee & Yan 2015): a residual network
with 50 latents and a learned prior p(z | c), on pixels binarised anew each time an image is used. Reported on the test
split, whose pixels and masks are drawn once, by seeds that do not depend on `--seed`: nats of the hidden pixels, per
image and per hidden pixel. Expected on MNIST: -log p(x | c) of at most 61.5 nats per image, in five minutes on two
cores. On the 8x8 digits targets are grey, and what is reported is a grey cross-entropy, not a log-likelihood.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae.evaluation import Estimate, mean
from cvae.keys import BINARIZATION_SEEDS, named
from cvae.settings import Count, replace
from experiments import harness
from experiments.harness import Row, cli, tables
from experiments.harness.completions import completions
from experiments.harness.label_figures import curves


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment."""

    mask: Literal[
        "quadrants_1", "quadrants_2", "quadrants_3", "top_half", "bottom_half", "left_half", "right_half", "centre_box",
        "random_box", "random_pixels",
    ] = "quadrants_1"  # fmt: skip
    """what is observed: quadrants_1 (bottom left), quadrants_2 (left), quadrants_3 (all but the bottom right), a half,
    centre_box (all but the middle), random_box (all but a box), random_pixels"""
    label: bool = False
    """condition on the label too"""
    architecture: cvae.Architecture = cvae.Architecture(
        condition=cvae.Image((28, 28, 1)), latent_size=50, hidden=(500,), body="residual", prior="learned"
    )
    training: cvae.Training = cvae.Training(batch_size=100, schedule="cosine", ema_decay=0.999, binarization="dynamic")
    samples: Count = 100
    """importance samples of log p(x | c)"""
    proposal: harness.Proposal = "posterior"
    """how they are drawn; mixture is half each"""


MNIST = Settings()
CONFIGS = {
    "mnist": MNIST,
    # Of 8x8 binary pixels, few digits are legible.
    "digits": Settings(
        architecture=replace(MNIST.architecture, latent_size=16, hidden=(128,)),
        training=replace(MNIST.training, epochs=200, binarization="none"),
    ),
    "smoke": Settings(
        architecture=replace(MNIST.architecture, latent_size=4, hidden=(32,)),
        training=replace(MNIST.training, epochs=3),
        samples=5,
        smoke=True,
    ),
}


class Masked(NamedTuple):
    """A split, with what is observed of every image; masks of the training split are drawn anew at every step."""

    x: np.ndarray
    label: np.ndarray
    observed: np.ndarray


def load(settings: Settings) -> Any:
    """The data set; the masks and, unless they stay grey, the pixels of validation and test are drawn once."""
    dataset: Any = cli.load(settings)

    def drawn(part: str, x: np.ndarray, label: np.ndarray) -> Masked:
        seed = BINARIZATION_SEEDS[part]
        observed = cvae.masks.draw(settings.mask, named(jax.random.key(seed), part), len(x), x.shape[1:])
        x = x if settings.training.binarization == "none" else cvae.data.binarize(seed, x)
        return Masked(x, label, np.asarray(observed))

    train = Masked(dataset.train.x, dataset.train.label, np.ones(dataset.train.x.shape, bool))
    validation, test = drawn("validation", *dataset.validation), drawn("test", *dataset.test)
    return dataset._replace(train=train, validation=validation, test=test)


def models(settings: Settings, dataset: cvae.data.Dataset) -> dict[str, cvae.Architecture]:
    """The model, conditioned on a part of the image, and maybe on the label."""
    shape = dataset.train.x.shape[1:]
    image = cvae.Image(shape, settings.mask)
    condition = cvae.Mixed((cvae.Label(dataset.num_classes), image)) if settings.label else image
    return {"cvae": replace(settings.architecture, event_shape=shape, condition=condition)}


def evaluate(job: harness.Job) -> dict[str, Any]:
    """Nats of the hidden pixels, per image and per hidden pixel, and active units."""
    (model, params, *_), settings, key = job.trained["cvae"], job.settings, job.key("test")
    x, c = job.split("cvae", "test")
    hidden = (~job.dataset.test.observed).sum(axis=(1, 2, 3))  # type: ignore[attr-defined]
    scored = cvae.log_likelihood(
        model, params, key, x, c, num_samples=settings.samples, proposal=settings.proposal, progress=True
    )
    terms = cvae.evaluate(model, params, key, x, c)
    grey = settings.training.binarization == "none"
    nats: dict[str, Any] = {"grey_cross_entropy": -scored.value} if grey else {"log_likelihood": scored.value}
    nats |= {"elbo": terms.value, "rate": terms.kl, "distortion": -terms.log_likelihood}
    results: dict[str, Any] = {name: mean(values) for name, values in nats.items()}
    results |= {
        "per_hidden_pixel": {name: per_pixel(values, hidden) for name, values in nats.items()},
        "hidden_pixels": mean(hidden),
        "effective_samples": mean(scored.effective_samples),
        "active_units": cvae.active_units(model, params, key, x, c),
        "num_samples": settings.samples,
        "examples": len(x),
    }
    return {"cvae": results}


def per_pixel(nats: np.ndarray, hidden: np.ndarray) -> Estimate:
    """Nats per hidden pixel, sum nats / sum hidden, with the standard error of a ratio.  Shapes: [N], [N]."""
    ratio = float(nats.sum() / hidden.sum())
    residual = mean(nats - ratio * hidden)
    return Estimate(ratio, residual.standard_error / float(hidden.mean()))


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """Completions of a test image of each class, and training curves."""
    observed = f"{job.settings.mask.replace('_', ' ')}{' and label' * job.settings.label} observed"
    test: Any = job.dataset.test
    truth = np.asarray(test.x / np.float32(255) if test.x.dtype == np.uint8 else test.x, np.float32)
    title = job.title(f"{observed}, test images completed by means of p(x | z, c)")
    yield "completions", completions(job, "test", truth, ~test.observed, title)
    yield "curves", curves(job.trained, job.title(f"{observed}, training and validation"))


NATS = [
    Row("-log-likelihood, upper bound", "log_likelihood", negate=True),
    Row("grey cross-entropy, importance-weighted", "grey_cross_entropy"),
    Row("-ELBO", "elbo", negate=True),
    Row("rate", "rate"),
    Row("distortion", "distortion"),
]
BESIDE = [
    Row("images", "examples", "count"),
    Row("hidden pixels", "hidden_pixels", "one"),
    Row("importance samples", "num_samples", "count"),
    Row("effective samples", "effective_samples", "one"),
    Row("active latents", "active_units.active", "count"),
    Row("training", "seconds", "seconds"),
]


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    test = tables.with_seconds(summary)
    per_image, per_pixel = test["cvae"], test["cvae"]["per_hidden_pixel"]
    lines = [
        [row.label, tables.cell(row, per_image), tables.cell(row._replace(format="small"), per_pixel)]
        for row in NATS
        if row.place in per_image
    ]
    nats = tables.render([f"{summary['dataset']}, nats of the hidden pixels", "per image", "per hidden pixel"], lines)
    return f"{nats}\n\n{tables.by_row(BESIDE, test)}"


EXPERIMENT = harness.Experiment("mnist_inpaint", CONFIGS, models, evaluate, figures, table, load=load)

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
