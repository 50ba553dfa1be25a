"""Figures of a model of a user's own data: what it draws beside what there is, and its latent space."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import plotting
from cvae.columns import Column
from cvae.config import parts_of
from cvae.data.augmentation import as_floats
from cvae.model import CVAE
from cvae.origin import at_origin
from experiments.harness.cli import Job
from experiments.harness.label_figures import curves
from experiments.harness.run import Trained
from experiments.harness.user_data import UserData, base_of
from experiments.measures import associations

COLUMNS = 10  # images side by side
ROWS = 6  # of images without labels
COMPLETIONS = 6  # of each image
MOST_CLASSES = 20  # that are drawn
MOST_ASSOCIATED = 20  # columns in a matrix of associations
FOLLOWED = 3  # columns that are drawn given each condition
MOST_CONDITIONS = 6  # that are drawn
GENERATED = 1000  # rows, at least
SHOWN = 5000  # test examples that figures are drawn from
NOTE = (
    "Spearman's correlation of two numeric columns, Cramér's V of two categorical ones, the correlation ratio of ranks "
    "where one is categorical"
)

_sample = jax.jit(cvae.sample, static_argnums=0, static_argnames=("mean", "num_samples"))
_reconstruct = jax.jit(cvae.reconstruct, static_argnums=0)


def figures(job: Job) -> Iterator[tuple[str, Figure]]:
    """Of rows their marginals, associations and means given the conditions; of images reconstructions and samples.

    Of all, the latent space and training curves.
    """
    ((name, trained),) = job.trained.items()
    data: Any = job.dataset
    x, c = jax.tree.map(lambda values: values[:SHOWN], data.test)
    first, second, third = jax.random.split(job.key("figures"), 3)
    if data.what == "row":
        yield from _rows(data, trained, first, x, c)
    elif data.what == "image" and x.shape[-1] in (1, 3):
        yield "reconstructions", reconstructions(data, trained, first, x, c)
        yield "samples", samples(data, trained, second, x, c)
    if job.run.config.models[name].latent_size > 0:
        yield "latents", latents(data, trained, third, x, c)
    yield "curves", curves(job.trained, f"{data.name}, training and validation", unit=f"nats per {data.what}")


# Rows


def _rows(data: UserData, trained: Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> Any:
    """Figures of generated rows beside test rows, of the columns that vary."""
    drawn = generate(trained, key, x, c)
    if data.schema is not None:
        drawn = as_written(drawn, data.columns)
    real = np.asarray(x, np.float64)
    varies = np.broadcast_to(np.array(getattr(base_of(data.likelihood), "scale", 1.0)) > 0, x.shape[1:])
    columns = [column for column, each in zip(data.columns, varies, strict=True) if each]
    real, drawn, names = real[:, varies], drawn[..., varies], [column.name for column in columns]
    rows = drawn.reshape(-1, len(names))
    title = f"{data.name}, {len(real):,} test rows and {len(rows):,} generated, drawn from p(x | z{', c' * bool(c)})"
    words = [column.categories if column.is_label else () for column in columns]
    yield "marginals", plotting.marginals(real, rows, names, title, words)
    if len(names) > 1:
        if data.schema is None:
            yield "pair", plotting.pair(real, rows, names, f"{data.name}, the pair of columns that correlates most")
        few = np.arange(len(names))[:MOST_ASSOCIATED]
        title = f"{data.name}, associations of {'' if len(few) == len(names) else f'the first {len(few)} '}columns"
        kinds = [columns[k] for k in few]
        matrices = [associations.matrix(each[:, few], kinds) for each in (real, rows)]
        yield "associations", plotting.associations(matrices[0], matrices[1], [names[k] for k in few], title, NOTE)
    if panels := _by_group(data, columns, real, drawn, c):
        yield "conditions", plotting.by_group(panels, f"{data.name}, rows generated given the conditions of test rows")


def generate(trained: Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> np.ndarray:
    """Draw at least 1,000 rows with the conditions of x, in float64: less noise than a small test part has.

    Shapes: x [N, D] -> [M, N, D].
    """
    model, copies = trained.model, -(-GENERATED // len(x))
    origin = model.architecture.likelihood.origin if model.architecture else None
    model, _, moved = at_origin(model, x, c)  # float32 has too few digits for a large location
    drawn = _sample(model, trained.params, key, moved, num_samples=copies if c else copies * len(x))
    rows: np.ndarray = np.asarray(drawn, np.float64).reshape(copies, *x.shape) + np.array(origin or 0.0)
    return rows


def as_written(drawn: np.ndarray, columns: Sequence[Column]) -> np.ndarray:
    """Generated rows with the decimals of the table.  Shapes: [M, N, D] -> [M, N, D]."""
    # All at once: polars takes a fixed time for each column, which is long for thousands of them.
    written = [column.encode(column.decode(drawn[..., k].ravel())) for k, column in enumerate(columns)]
    return np.stack(written, axis=-1).reshape(drawn.shape)


def _by_group(
    data: UserData, columns: list[Column], real: np.ndarray, drawn: np.ndarray, c: dict[str, np.ndarray]
) -> list[list[plotting.ByGroup]]:
    """The columns that depend most on each condition, as means in groups of test rows of like condition."""
    panels = []
    for condition, values in list(data.conditions(c).items())[:MOST_CONDITIONS]:
        rows, groups = associations.groups(values, condition)
        if len(rows) < 2:
            continue
        strength = [
            abs(associations.association(values, real[:, k], condition.is_label, column.is_label))
            for k, column in enumerate(columns)
        ]
        line = []
        for k in np.argsort(-np.nan_to_num(strength), kind="stable")[:FOLLOWED]:
            name, test, generated = columns[k].name, real[:, k], drawn[:, :, k]
            if columns[k].is_label:  # the category whose share varies most
                shares = [
                    np.ptp(associations.means(_is(test, code), rows)[0]) for code in range(len(columns[k].categories))
                ]
                code = int(np.nanargmax(shares))
                name = f"share of {name} {columns[k].categories[code]}"
                test, generated = _is(test, code), _is(generated, code)
            both = (associations.means(each, rows) for each in (test, generated))
            line.append(plotting.ByGroup(condition.name, name, groups, *both))
        panels.append(line)
    return panels


def _is(values: np.ndarray, code: int) -> np.ndarray:
    """1 where a category is this one, 0 where another, NaN where it is missing."""
    return np.where(np.isnan(values), np.nan, values == code)


# The latent space


def _draw_latents(model: CVAE, params: Any, key: jax.Array, x: Any, c: Any) -> jax.Array:
    return model.encode(params, x, c).sample(key)


def latents(data: UserData, trained: Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> Figure:
    """Samples of q(z | x, c) of test examples in their two principal components, coloured by each condition.

    Without conditions, by columns of a table.
    """
    z = cvae.over_examples(_draw_latents, trained.model, trained.params, key, x, c).astype(np.float64)
    points, shares = principal_plane(z)
    labels = [f"principal component {k + 1} ({100 * share:.0f} % of variance)" for k, share in enumerate(shares)]
    labels += ["random noise, to spread the points"] * (2 - len(labels))
    colours = data.conditions(c)
    if not colours and data.schema is not None:
        colours = {column: x[:, k] for k, column in enumerate(data.columns)}
    by = {column.name: (values, column.categories if column.is_label else ()) for column, values in colours.items()}
    title = f"{data.name}, samples of q(z | x{', c' * bool(c)}) of {len(x):,} test {data.what}s"
    return plotting.latent_plane(points, by, (labels[0], labels[1]), title.replace("seriess", "series"))


def principal_plane(z: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """The first two principal components and their shares of the variance; of one latent, noise is the second.

    Shapes: [N, Z] -> [N, 2].
    """
    centred = z - z.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov(centred.T).reshape(z.shape[1], z.shape[1]))
    points = (centred @ axes[:, ::-1])[:, :2]
    if z.shape[1] == 1:
        points = np.stack([points[:, 0], np.random.default_rng(0).standard_normal(len(z))], axis=1)
    return points, (variances[::-1] / variances.sum())[:2].tolist()


# Images


def reconstructions(
    data: UserData, trained: Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]
) -> Figure:
    """The first test images over what the model makes of them."""
    few = jax.tree.map(lambda values: values[:COLUMNS], (x, c))
    images = np.stack([as_floats(few[0]), _reconstruct(trained.model, trained.params, key, *few)])
    title = f"{data.name}, reconstructions"
    return plotting.grid(shown(data, images), title, row_labels=["test", "model"], ink=False)


def samples(data: UserData, trained: Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> Figure:
    """Means of p(x | z, c) with z from the prior, conditioned as test images are: a row per class, if there are labels.

    Where a part of the image is observed: that part, several completions, and the truth.
    """
    model, params = trained.model, trained.params
    if "image" in c:
        few, truth = {name: values[:ROWS] for name, values in c.items()}, shown(data, as_floats(x[:ROWS]))
        drawn = shown(data, np.asarray(_sample(model, params, key, few, mean=True, num_samples=COMPLETIONS)))
        observed = data.condition.observed(few)
        assert observed is not None
        hidden = ~np.asarray(observed[0])[..., :1]
        title = f"{data.name}, test images completed by means of p(x | z, c)"
        return plotting.completions(truth, hidden, np.moveaxis(drawn, 0, 1), truth, title, ink=False)
    labels = [part for part in parts_of(data.condition) if isinstance(part, cvae.Label)]
    names: list[str] = []
    rows = np.resize(np.arange(len(x)), ROWS * COLUMNS)
    if labels:
        values = c[labels[0].name]
        classes = np.unique(values)[:MOST_CLASSES]
        rows = np.concatenate([np.resize(np.flatnonzero(values == k), COLUMNS) for k in classes])
        names = [labels[0].categories[k] if labels[0].categories else str(k) for k in classes]
    chosen = {name: values[rows] for name, values in c.items()}
    images = np.asarray(_sample(model, params, key, chosen, mean=True, num_samples=1 if c else len(rows)))
    grid = shown(data, images).reshape(-1, COLUMNS, *x.shape[1:])
    title = f"{data.name}, means of p(x | z{', c' if c else ''}) with z from the prior"
    return plotting.grid(grid, title, row_labels=names, axis_labels=("", labels[0].name if labels else ""), ink=False)


def shown(data: UserData, images: np.ndarray) -> np.ndarray:
    """Images on [0, 1]; those of a Gaussian between two quantiles of the test images."""
    if not isinstance(base_of(data.likelihood), cvae.Normal):
        return images
    low, high = np.nanquantile(as_floats(data.test[0][:SHOWN]), [0.005, 0.995])
    return np.asarray(np.clip((images - low) / max(high - low, 1e-6 * abs(high), 1e-30), 0, 1))
