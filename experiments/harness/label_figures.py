"""Figures of models conditioned on a label: what they encode, reconstruct and draw.

Nothing is selected: images are the first of their class, latents are drawn from the run's seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import checks, plotting
from cvae.data import Dataset

if TYPE_CHECKING:
    from experiments.harness.cli import Job
    from experiments.harness.run import Trained

PER_CLASS = 2  # images of each class that are reconstructed
STYLES = 12  # columns of the handwriting grid
SIDE = 20  # images along a side of the manifold
SEAMLESS = 16  # images of at least this height have margins of their own, and need no gap between them
NOTE = (
    "Training values are means over an epoch in which the parameters still improve, and include the noise of training;"
    " so validation, measured after the epoch, may lie below."
)


def check_digit(digit: int, dataset: Dataset) -> None:
    """Refuse a digit to draw that is no class."""
    classes = dataset.num_classes
    checks.require(digit < classes, "--digit", f"be a class in [0, {classes})", digit)


def label_figures(job: Job, digit: int) -> Iterator[tuple[str, Figure]]:
    """The figures of a run with the models "cvae" and "vae"; `digit` is the class whose manifold is drawn."""
    samples, planes = {}, {}
    for name in job.trained:
        samples[name.upper()], means = latents_of(job, name)
        planes[name.upper()] = plane(means)
    title = job.title("test split, samples of the posterior")
    yield "latents", plotting.latents(samples, planes, job.dataset.test.label, "CVAE", title)
    yield "reconstructions", reconstructions(job)
    yield "handwriting", handwriting(job)
    yield f"manifold_{digit}", manifold(job, digit, planes["CVAE"])
    yield "curves", curves(job.trained, job.title("training and validation"))


def decode(model: cvae.CVAE, params: Any, z: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The mean image of every latent and label.  Shapes: [B, Z], [B] -> [B, H, W, 1]."""
    assert model.architecture is not None
    c = {name: label for name in model.architecture.condition.spec}
    return np.asarray(jax.jit(model.decode)(params, np.asarray(z, np.float32), c).mean)


def latents_of(job: Job, name: str) -> tuple[np.ndarray, np.ndarray]:
    """One draw each of q(z | x, c) of the test split, and the means, both [N, Z]."""
    model, params, *_ = job.trained[name]

    @jax.jit
    def encode(params: Any, key: Any, x: Any, c: Any) -> Any:
        z, q_z = model.encode(params, x, c).sample_with_conditional(key)
        return z, q_z.mean

    z, means = encode(params, job.key("figures"), *job.split(name, "test"))
    return np.asarray(z), np.asarray(means)


def plane(means: np.ndarray) -> tuple[int, ...]:
    """The two latents whose posterior means vary most, or the only one.  Shapes: [N, Z]."""
    return tuple(sorted(np.argsort(means.var(axis=0))[::-1][:2].tolist()))


def reconstructions(job: Job) -> Figure:
    """Test images over what each model makes of them."""
    label = job.dataset.test.label
    rows = np.concatenate([np.flatnonzero(label == k)[:PER_CLASS] for k in range(job.dataset.num_classes)])
    shown = [job.dataset.test.x[rows] / np.float32(255)]
    for name, (model, params, *_) in job.trained.items():
        x, c = jax.tree.map(lambda values: values[rows], job.split(name, "test"))
        shown.append(jax.jit(cvae.reconstruct, static_argnums=0)(model, params, job.key("figures"), x, c))
    names = ["test", *(name.upper() for name in job.trained)]
    return plotting.grid(np.stack(shown), job.title("test split, reconstructions"), row_labels=names)


def handwriting(job: Job) -> Figure:
    """A row per class, a column per latent that all classes share: the handwriting style is that of the column."""
    classes, latents = job.dataset.num_classes, job.run.config.models["cvae"].latent_size
    styles = np.random.default_rng(job.settings.seed).standard_normal((STYLES, latents))
    z, label = np.tile(styles, (classes, 1)), np.repeat(np.arange(classes), STYLES)
    drawn = decode(*job.trained["cvae"][:2], z, label)
    return plotting.grid(
        drawn.reshape(classes, STYLES, *drawn.shape[1:]),
        job.title(f"CVAE, {STYLES} handwriting styles"),
        row_labels=[str(k) for k in range(classes)],
        axis_labels=("mean of p(x | z, y); a column shares one z ~ N(0, I)", "label y"),
    )


def manifold(job: Job, digit: int, axes: tuple[int, ...]) -> Figure:
    """One class over the plane of two latents; the others, if any, stay at 0."""
    # Equal steps of probability, so that every image stands for as much of the prior as any other.
    steps = np.array([NormalDist().inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)])
    coordinates = np.meshgrid(steps, steps[::-1] if len(axes) > 1 else np.zeros(1))
    z = np.zeros((coordinates[0].size, job.run.config.models["cvae"].latent_size))
    for axis, coordinate in zip(axes, coordinates, strict=False):
        z[:, axis] = coordinate.ravel()
    drawn = decode(*job.trained["cvae"][:2], z, np.full(len(z), digit))
    labels = [f"$z_{{{axis + 1}}}$, quantiles of N(0, 1)" for axis in axes] + [""]
    return plotting.grid(
        drawn.reshape(*coordinates[0].shape, *drawn.shape[1:]),
        job.title(f"CVAE, the manifold of {digit}"),
        axis_labels=(labels[0], labels[1]),
        gap=0 if drawn.shape[1] >= SEAMLESS else 1,
    )


def curves(trained: dict[str, Trained], title: str, unit: str = "nats per image") -> Figure:
    """The loss and its two terms over the epochs of each model, on the training and the validation split."""

    def terms(metrics: list[Any]) -> dict[str, np.ndarray]:
        return dict(zip(cvae.training.Metrics._fields, np.array(metrics).T, strict=True))

    lines = {
        name.upper() if name in ("cvae", "vae") else name: {
            "train": terms([epoch.train for epoch in each.history]),
            "validation": terms([epoch.validation for epoch in each.history]),
        }
        for name, each in trained.items()
    }
    return plotting.curves(lines, title, note=NOTE, unit=unit)
