"""Scatter plots of the latent space, coloured by class or by condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from cvae import checks
from cvae.plotting.style import DASHED, GREY, LABEL, PALETTE, TICK, dot_area, new_figure, plain

DIGITS = 15  # points of each class drawn as the class number, which reads without colour
MOST_PLANES = 6  # conditions with a panel each
MOST_CLASSES = 9  # that have a colour of their own
SIDE = 4.0  # half the side of the panels of single classes, in standard deviations of the prior


def latents(
    samples: Mapping[str, np.ndarray],
    dimensions: Mapping[str, Sequence[int]],
    labels: np.ndarray,
    by_class: str,
    title: str,
) -> Figure:
    """Draw samples of q(z | x, c): one panel per model, then one panel per class for one of the models.

    Averaged over x, q(z | x, c) should be the prior, for a model conditioned on the label within every class. The
    posterior means are not: they are less spread out. Circles have radii of 1, 2 and 3 standard deviations of N(0, I).

    Args:
        samples: by model, one sample of z per example, [N, Z].
        dimensions: by model, which two latents to show, from 0; with only one, the other axis is random noise.
        labels: classes, integers [N].
        by_class: the model whose classes get panels of their own.
        title: title of the figure.
    """
    checks.require(by_class in samples, "by_class", f"be one of {', '.join(samples)}", repr(by_class))
    planes = {name: _plane(name, z, dimensions[name], len(labels)) for name, z in samples.items()}
    classes = np.unique(labels)
    figure = new_figure(7.6, 7.6, title)
    above, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1])))
    # All models have the same scale, so that their spread can be compared.
    limit = 1.05 * max(float(np.quantile(np.abs(points), 0.999)) for points in planes.values())
    for axes, (name, points) in zip(np.ravel(above.subplots(1, len(planes))), planes.items(), strict=True):
        _all_classes(axes, points, labels, limit)
        axes.set_title(f"{name}: samples of q(z | x, c), all classes", fontsize=LABEL)
        axis_names = [f"$z_{{{d + 1}}}$" for d in dimensions[name]] + ["random noise, to spread the points"]
        axes.set_xlabel(axis_names[0], fontsize=LABEL)
        axes.set_ylabel(axis_names[1], fontsize=LABEL)
    below.suptitle(f"{by_class}: samples of q(z | x, c) by class; circles are 1, 2, 3 sigma of N(0, I)", fontsize=LABEL)
    panels = np.ravel(below.subplots(2, (len(classes) + 1) // 2, sharex=True, sharey=True))
    for axes, k in zip(panels, classes, strict=False):
        _dots(axes, planes[by_class][labels == k], [PALETTE[k % len(PALETTE)]])
        _square(axes, SIDE)
        axes.text(0.04, 0.95, str(k), transform=axes.transAxes, fontsize=12, fontweight="bold", va="top")
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    return figure


def _plane(name: str, z: np.ndarray, dimensions: Sequence[int], count: int) -> np.ndarray:
    """Select two latents, or one beside random noise.  Shapes: [N, Z] -> [N, 2]."""
    argument = f"samples[{name!r}]"
    checks.require(z.ndim == 2 and len(z) == count, argument, f"have shape [{count}, Z], as labels have", z.shape)
    rule = f"name one or two latents below {z.shape[1]}"
    valid = len(dimensions) in (1, 2) and all(0 <= d < z.shape[1] for d in dimensions)
    checks.require(valid, f"dimensions[{name!r}]", rule, list(dimensions))
    shown = [z[:, d] for d in dimensions]
    return np.stack([*shown, np.random.default_rng(0).standard_normal(count)][:2], axis=1)


def _all_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, limit: float) -> None:
    """Draw every point as a dot, and a few of each class as the class number."""
    _dots(axes, points, [PALETTE[k % len(PALETTE)] for k in labels])
    outline: list[AbstractPathEffect] = [withStroke(linewidth=1.2, foreground="white")]
    for k in np.unique(labels):
        for x, y in points[labels == k][:DIGITS]:
            if max(abs(x), abs(y)) < limit:
                text = axes.text(x, y, str(k), color=PALETTE[k % len(PALETTE)], fontsize=7, ha="center", va="center")
                text.set_path_effects(outline)
                text.set_in_layout(False)  # it lies inside the panel, and is slow to measure
    _square(axes, limit)


def _dots(axes: Axes, points: np.ndarray, colours: Sequence[tuple[float, ...]]) -> None:
    area = dot_area(len(points), 3000, 2, 12)
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, alpha=0.4, linewidths=0, rasterized=True)


def _square(axes: Axes, limit: float) -> None:
    """Set equal scales, and draw the circles of the prior."""
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.tick_params(labelsize=7, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    for radius in (1, 2, 3):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=GREY, linewidth=0.8, linestyle=DASHED, zorder=3))


def latent_plane(
    points: np.ndarray, conditions: Mapping[str, tuple[np.ndarray, Sequence[str]]], labels: tuple[str, str], title: str
) -> Figure:
    """Draw points of the latent space once per condition, coloured by it.

    Args:
        points: two coordinates of every example, [N, 2].
        conditions: by name, a value per example, [N], NaN where it is missing, and the words of its numbers 0, 1, 2
            and so on if it is categorical, otherwise none. The first six have panels.
        labels: of the two axes.
        title: title of the figure.
    """
    shown = dict(list(conditions.items())[:MOST_PLANES]) or {"": (np.zeros(len(points)), ())}
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = new_figure(max(4.6, 3.9 * across), 0.7 + 3.0 * down, title)
    panels = np.ravel(figure.subplots(down, across, squeeze=False, sharex=True, sharey=True))
    area = dot_area(len(points), 3000, 1.5, 12)
    for axes, (name, (values, words)) in zip(panels, shown.items(), strict=False):
        plain(axes)
        style: dict[str, Any] = {"s": area, "alpha": 0.5, "linewidths": 0, "rasterized": True}
        known = np.isfinite(values)
        axes.scatter(*points[~known].T, color="0.8", **style)
        if words:
            _classes(axes, points[known], values[known].astype(int), words, style)
        elif name:
            low, high = np.quantile(values[known], [0.02, 0.98]) if known.any() else (0.0, 1.0)
            scale = ScalarMappable(Normalize(float(low), float(high)), "viridis")
            axes.scatter(*points[known].T, color=scale.to_rgba(values[known]), **style)
            bar = figure.colorbar(scale, ax=axes, pad=0.02)
            bar.ax.tick_params(labelsize=TICK)
        else:
            axes.scatter(*points.T, color=GREY, **style)
        axes.set_title(name, fontsize=LABEL)
        axes.set_xlabel(labels[0], fontsize=LABEL)
        axes.set_ylabel(labels[1], fontsize=LABEL)
        axes.label_outer()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def _classes(axes: Axes, points: np.ndarray, codes: np.ndarray, words: Sequence[str], style: dict[str, Any]) -> None:
    """The most frequent classes in a colour each, the others grey, and a legend beside the panel."""
    frequent = np.sort(np.argsort(-np.bincount(codes, minlength=len(words)), kind="stable")[:MOST_CLASSES])
    rest = ~np.isin(codes, frequent)
    axes.scatter(*points[rest].T, color="0.8", **style)
    colours = np.array([PALETTE[int(np.searchsorted(frequent, code)) % len(PALETTE)] for code in codes[~rest]])
    axes.scatter(*points[~rest].T, color=colours.reshape(-1, 3), **style)
    for number, k in enumerate(frequent):
        axes.scatter([], [], s=18, color=PALETTE[number], label=words[k] if len(words[k]) < 15 else f"{words[k][:13]}…")
    if rest.any():
        axes.scatter([], [], s=18, color="0.8", label="other")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False, handletextpad=0.1)
