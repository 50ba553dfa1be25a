"""Scatter plots of the latent space, coloured by class or by condition."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import AbstractPathEffect, withStroke

from cvae.plotting.style import DASHED, GREY, LABEL, PALETTE, TICK, dots, new_figure, plain

DIGITS = 15  # points of each class drawn as the class number, which reads without colour
DOTS = 3000  # square points that the dots of a panel cover
PALE = "0.8"  # of points that have no colour of their own
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
    planes = {name: _plane(z, dimensions[name]) for name, z in samples.items()}
    classes = np.unique(labels)
    figure = new_figure(7.6, 7.6, title)
    above, below = np.ravel(np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1])))
    # All models have the same scale, so that their spread can be compared.
    limit = 1.05 * max(float(np.quantile(np.abs(points), 0.999)) for points in planes.values())
    for axes, (name, points) in zip(np.ravel(above.subplots(1, len(planes))), planes.items(), strict=True):
        _all_classes(axes, points, labels, limit)
        x, y, *_ = [f"$z_{{{d + 1}}}$" for d in dimensions[name]] + ["random noise, to spread the points"]
        _square(axes, limit, x, y, f"{name}: samples of q(z | x, c), all classes")
    below.suptitle(f"{by_class}: samples of q(z | x, c) by class; circles are 1, 2, 3 sigma of N(0, I)", fontsize=LABEL)
    for place, k in enumerate(classes):
        axes = below.add_subplot(2, (len(classes) + 1) // 2, place + 1)
        dots(axes, planes[by_class][labels == k], [PALETTE[k % len(PALETTE)]], DOTS)
        _square(axes, SIDE)
        axes.label_outer()
        axes.text(0.04, 0.95, str(k), transform=axes.transAxes, fontsize=12, fontweight="bold", va="top")
    return figure


def _plane(z: np.ndarray, dimensions: Sequence[int]) -> np.ndarray:
    """Select two latents, or one beside random noise.  Shapes: [N, Z] -> [N, 2]."""
    shown = [z[:, d] for d in dimensions]
    return np.stack([*shown, np.random.default_rng(0).standard_normal(len(z))][:2], axis=1)


def _all_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, limit: float) -> None:
    """Draw every point as a dot, and a few of each class as the class number."""
    dots(axes, points, [PALETTE[k % len(PALETTE)] for k in labels], DOTS)
    outline: list[AbstractPathEffect] = [withStroke(linewidth=1.2, foreground="white")]
    for k in np.unique(labels):
        for x, y in points[labels == k][:DIGITS]:
            if max(abs(x), abs(y)) < limit:
                text = axes.text(x, y, str(k), color=PALETTE[k % len(PALETTE)], fontsize=7, ha="center", va="center")
                text.set_path_effects(outline)
                text.set_in_layout(False)  # it lies inside the panel, and is slow to measure


def _square(axes: Axes, limit: float, *labels: str) -> None:
    """Label a panel, set equal scales, and draw the circles of the prior."""
    plain(axes, *labels)
    axes.tick_params(labelsize=7, length=2)
    axes.grid(visible=False)
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
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
    for axes, (name, (values, words)) in zip(panels, shown.items(), strict=False):
        plain(axes, *labels, name)
        known = np.isfinite(values)
        dots(axes, points[~known], [PALE], DOTS)
        if words:
            _classes(axes, points[known], values[known].astype(int), words)
        elif name:
            low, high = np.quantile(values[known], [0.02, 0.98]) if known.any() else (0.0, 1.0)
            scale = ScalarMappable(Normalize(float(low), float(high)), "viridis")
            dots(axes, points[known], scale.to_rgba(values[known]), DOTS)
            bar = figure.colorbar(scale, ax=axes, pad=0.02)
            bar.ax.tick_params(labelsize=TICK)
        else:
            dots(axes, points, [GREY], DOTS)
        axes.label_outer()
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    return figure


def _classes(axes: Axes, points: np.ndarray, codes: np.ndarray, words: Sequence[str]) -> None:
    """The most frequent classes in a colour each, the others grey, and a legend beside the panel."""
    frequent = np.sort(np.argsort(-np.bincount(codes, minlength=len(words)), kind="stable")[:MOST_CLASSES])
    rest = ~np.isin(codes, frequent)
    dots(axes, points[rest], [PALE], DOTS)
    colours = np.array([PALETTE[int(np.searchsorted(frequent, code)) % len(PALETTE)] for code in codes[~rest]])
    dots(axes, points[~rest], colours.reshape(-1, 3), DOTS)
    for number, k in enumerate(frequent):
        axes.scatter([], [], s=18, color=PALETTE[number], label=words[k] if len(words[k]) < 15 else f"{words[k][:13]}…")
    if rest.any():
        axes.scatter([], [], s=18, color=PALE, label="other")
    axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), fontsize=7, frameon=False, handletextpad=0.1)
