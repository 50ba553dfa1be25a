"""The pictures of models conditioned on a label: what they encode, reconstruct and draw on request.

Every title names the data set. Nothing is picked: pictures are the first of their class, latents are drawn from
the run's seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from statistics import NormalDist
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

import cvae

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.config import Config
    from cvae.data import Dataset
    from cvae.evaluation import Terms
    from cvae.model import CVAE
    from cvae.networks import Params
    from experiments import study

PER_CLASS = 2  # pictures of each class that are reconstructed
HANDS = 12  # columns of the handwriting grid
SIDE = 20  # pictures along a side of the manifold
SEAMLESS = 16  # pictures of at least this height have margins of their own, and need no gap between them


def given(model: CVAE, label: np.ndarray) -> dict[str, np.ndarray]:
    """The conditions a model is told: the label, or nothing."""
    assert model.architecture is not None
    return {"label": label} if isinstance(model.architecture.condition, cvae.Label) else {}


def decode(model: CVAE, params: Params, z: np.ndarray, label: np.ndarray) -> np.ndarray:
    """The mean picture of every latent and label.  Shapes: [B, Z], [B] -> [B, H, W, 1]."""
    import jax

    likelihood = jax.jit(model.decode)(params, np.asarray(z, np.float32), given(model, label))
    return np.asarray(likelihood.mean)


class Drawings(NamedTuple):
    """What the figures are drawn from: two trained models, one told the label and one not."""

    config: Config
    dataset: Dataset
    trained: dict[str, study.Trained]
    key: jax.Array

    def figures(self, digit: int) -> Iterator[tuple[str, Figure]]:
        """The five figures with their names, one at a time; `digit` is the class whose manifold is drawn."""
        means = {name: self.posterior_means(name) for name in self.trained}
        yield "latents", self.latents(means)
        yield "reconstructions", self.reconstructions()
        yield "handwriting", self.handwriting()
        yield f"manifold_{digit}", self.manifold(digit, plane(means["cvae"])[1])
        yield "curves", self.curves()

    def title(self, text: str) -> str:
        """A title that names the data set and the size of the models."""
        size = self.config.models["cvae"].latent_size
        plural = "s" if size > 1 else ""
        return f"{self.dataset.name}, {text}, {size} latent{plural}, {self.config.training.epochs} epochs"

    def pixels(self, rows: np.ndarray | slice) -> np.ndarray:
        """Test pictures in [0, 1], [B, H, W, 1]."""
        import jax.numpy as jnp

        return np.asarray(cvae.prepare(self.key, jnp.asarray(self.dataset.test.x[rows]), {})[0])

    def posterior_means(self, name: str) -> np.ndarray:
        """Means of q(z | x, c) of the test split, [N, Z]."""
        import jax

        model, params, _ = self.trained[name]
        c = given(model, self.dataset.test.label)
        return np.asarray(jax.jit(model.encode)(params, self.pixels(slice(None)), c).mean)

    def latents(self, means: dict[str, np.ndarray]) -> Figure:
        """Posterior means of both models by class, and the CVAE's class by class."""
        points = {name.upper(): plane(z)[0] for name, z in means.items()}
        axes = {name.upper(): plane(z)[1] for name, z in means.items()}
        title = self.title("test split: posterior means")
        return cvae.plotting.latents(points, axes, self.dataset.test.label, "CVAE", title)

    def reconstructions(self) -> Figure:
        """Test pictures over what each model makes of them."""
        import jax

        label = self.dataset.test.label
        rows = np.concatenate([np.flatnonzero(label == k)[:PER_CLASS] for k in range(self.dataset.num_classes)])
        x, reconstruct = self.pixels(rows), jax.jit(cvae.reconstruct, static_argnums=0)
        drawn = [reconstruct(m, params, self.key, x, given(m, label[rows])) for m, params, _ in self.trained.values()]
        names = ["test", *(name.upper() for name in self.trained)]
        return cvae.plotting.grid(np.stack([x, *drawn]), self.title("test split: reconstructions"), row_labels=names)

    def handwriting(self) -> Figure:
        """A row a class, a column a latent that all classes share: one hand runs down each column."""
        classes, latents = self.dataset.num_classes, self.config.models["cvae"].latent_size
        hands = np.random.default_rng(self.config.seed).standard_normal((HANDS, latents))
        z, label = np.tile(hands, (classes, 1)), np.repeat(np.arange(classes), HANDS)
        drawn = decode(*self.trained["cvae"][:2], z, label)
        return cvae.plotting.grid(
            drawn.reshape(classes, HANDS, *drawn.shape[1:]),
            self.title(f"CVAE: every class in {HANDS} hands"),
            row_labels=[str(k) for k in range(classes)],
            x_label="a column is one latent z ~ N(0, I)",
            y_label="a row is one label",
        )

    def manifold(self, digit: int, axes: tuple[int, ...]) -> Figure:
        """One class over the plane of two latents; the others, if any, stay at 0."""
        # Equal steps of probability, so that every picture stands for as much of the prior as any other.
        steps = np.array([NormalDist().inv_cdf((step + 0.5) / SIDE) for step in range(SIDE)])
        coordinates = np.meshgrid(steps, steps[::-1] if len(axes) > 1 else np.zeros(1))
        z = np.zeros((coordinates[0].size, self.config.models["cvae"].latent_size))
        for axis, coordinate in zip(axes, coordinates, strict=False):
            z[:, axis] = coordinate.ravel()
        drawn = decode(*self.trained["cvae"][:2], z, np.full(len(z), digit))
        labels = [f"$z_{{{axis + 1}}}$, quantiles of N(0, 1)" for axis in axes] + [""]
        return cvae.plotting.grid(
            drawn.reshape(*coordinates[0].shape, *drawn.shape[1:]),
            self.title(f"CVAE: the manifold of {digit}"),
            x_label=labels[0],
            y_label=labels[1],
            gap=0 if drawn.shape[1] >= SEAMLESS else 1,
            cell=0.3,
        )

    def curves(self) -> Figure:
        """The loss and its two terms over the epochs."""
        return curves(self.trained, self.title("training and validation"))


def curves(trained: dict[str, study.Trained], title: str) -> Figure:
    """The loss and its two terms over the epochs of each model, on the training and the validation split."""
    lines = {
        name.upper() if name in ("cvae", "vae") else name: {
            "train": _stack([epoch.train for epoch in model.history]),
            "validation": _stack([epoch.validation for epoch in model.history]),
        }
        for name, model in trained.items()
    }
    return cvae.plotting.curves(lines, title)


def _stack(terms: list[Terms] | list[Terms | None]) -> dict[str, np.ndarray]:
    return dict(zip(cvae.evaluation.Terms._fields, np.array(terms).T, strict=True))


def plane(means: np.ndarray) -> tuple[np.ndarray, tuple[int, ...]]:
    """The two latents whose posterior means vary most: the points in their plane, and which two they are.

    A single latent is shown against noise.  Shapes: [N, Z] -> [N, 2].
    """
    if means.shape[1] == 1:
        noise = np.random.default_rng(0).standard_normal(len(means))
        return np.stack([means[:, 0], noise], axis=1), (0,)
    first, second = sorted(np.argsort(means.var(axis=0))[::-1][:2].tolist())
    return means[:, [first, second]], (first, second)
