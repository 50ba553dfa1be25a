"""Figures: host arrays in, matplotlib figures out. Knows no models, and opens no window.

Figures are made without pyplot, so they hold no global state and need no display; `figure.savefig(path)` writes
one, and a notebook shows the one it is given. Ten classes are told apart by position and by the digit itself
wherever colour alone would not do, in a palette chosen for colour-blind readers. Here are pictures, latents and
training; numbers against numbers are in `charts`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Circle
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Petroff 2021: ten colours, tested for colour-blind readers; a little darker, so that the pale ones show on white.
PALETTE = [tuple(0.85 * np.array(to_rgb(colour))) for colour in matplotlib.color_sequences["petroff10"]]
GREY = "0.35"
HIDDEN = (0.80, 0.88, 0.96)  # the tint of hidden pixels: paler than ink, yet no paper
LABELLED = 30  # points a class drawn as the digit itself, so the classes read without colour


def _figure(width: float, height: float, title: str) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    return figure


def _dot(count: int) -> float:
    """Area of a dot that suits a panel of so many points."""
    return float(np.clip(3000 / count, 2, 12))


def _scatter(axes: Axes, means: np.ndarray, labels: np.ndarray, limit: float) -> None:
    """Every point a dot, and a few of each class the digit itself."""
    classes = np.unique(labels)
    colours = np.array([PALETTE[k % len(PALETTE)] for k in labels])
    axes.scatter(means[:, 0], means[:, 1], s=_dot(len(means)), c=colours, alpha=0.4, linewidths=0, rasterized=True)
    halo: list[AbstractPathEffect] = [withStroke(linewidth=1.2, foreground="white")]
    for k in classes:
        for x, y in means[labels == k][:LABELLED]:
            if max(abs(x), abs(y)) < limit:
                text = axes.text(x, y, str(k), color=PALETTE[k % len(PALETTE)], fontsize=7, ha="center", va="center")
                text.set_path_effects(halo)
                text.set_in_layout(False)  # inside the panel anyway, and slow to measure by the hundred
    _square(axes, limit)


def _square(axes: Axes, limit: float) -> None:
    axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
    axes.tick_params(labelsize=7, length=2)
    axes.spines[["top", "right"]].set_visible(False)


def _contours(axes: Axes) -> None:
    """The one, two and three standard deviations of N(0, I)."""
    for radius in (1, 2, 3):
        axes.add_patch(Circle((0, 0), radius, fill=False, color=GREY, linewidth=0.8, linestyle=(0, (4, 2)), zorder=3))


def latents(
    means: Mapping[str, np.ndarray],
    dimensions: Mapping[str, Sequence[int]],
    labels: np.ndarray,
    by_class: str,
    title: str,
) -> Figure:
    """Posterior means coloured by class, a panel a model; then one model's classes one by one over N(0, I).

    Args:
        means: posterior means [N, 2] by the model's name.
        dimensions: which latents these are, counted from 0; where there is but one, the other axis is noise.
        labels: classes [N].
        by_class: whose classes are drawn one by one.
        title: of the whole figure.
    """
    classes = np.unique(labels)
    columns = (len(classes) + 1) // 2
    figure = _figure(9, 8.6, title)
    above, below = np.asarray(figure.subfigures(2, 1, height_ratios=[1.15, 1])).ravel()
    # One scale for all models, so that their spread can be compared.
    limit = 1.05 * max(float(np.quantile(np.abs(points), 0.999)) for points in means.values())
    for axes, (name, points) in zip(np.atleast_1d(above.subplots(1, len(means))), means.items(), strict=True):
        _scatter(axes, points, labels, limit)
        axes.set_title(f"{name}: posterior means, all classes", fontsize=9)
        axis_names = [f"$z_{{{d + 1}}}$" for d in dimensions[name]] + ["noise, to spread the points"]
        axes.set_xlabel(axis_names[0], fontsize=8)
        axes.set_ylabel(axis_names[1], fontsize=8)
    below.suptitle(f"{by_class}, class by class, over the 1, 2 and 3 sigma circles of N(0, I)", fontsize=9)
    panels = below.subplots(2, columns, sharex=True, sharey=True).ravel()
    for axes, k in zip(panels, classes, strict=False):
        points = means[by_class][labels == k]
        axes.scatter(
            points[:, 0],
            points[:, 1],
            s=_dot(len(points)),
            color=PALETTE[k % len(PALETTE)],
            alpha=0.45,
            linewidths=0,
            rasterized=True,
        )
        _contours(axes)
        _square(axes, 4.0)
        axes.text(0.04, 0.95, str(k), transform=axes.transAxes, fontsize=12, fontweight="bold", va="top")
    for axes in panels[len(classes) :]:
        axes.set_visible(False)
    return figure


def tile(images: np.ndarray, gap: int = 1) -> np.ndarray:
    """Lay pictures out as one.

    Shapes: [rows, columns, H, W, 1] -> [rows (H + gap) - gap, columns (W + gap) - gap], gaps white (0).
    """
    rows, columns, height, width = images.shape[:4]
    canvas = np.zeros((rows, height + gap, columns, width + gap), dtype=np.float32)
    canvas[:, :height, :, :width] = images[..., 0].transpose(0, 2, 1, 3)
    return canvas.reshape(rows * (height + gap), columns * (width + gap))[: -gap or None, : -gap or None]


def write_ink(path: Path, images: np.ndarray, height: int = 112) -> None:
    """Write a grid of pictures as a plain PNG, ink dark on white, without axes or title.

    Shapes: images [rows, columns, H, W, 1]; each is enlarged smoothly to about `height` pixels. What is below 0 is
    white, and what is above 1 black: means of a Normal may be either.
    """
    page = Image.fromarray(np.rint(255 * (1 - np.clip(tile(images, gap=0), 0, 1))).astype(np.uint8))
    scale = max(1, round(height / images.shape[2]))
    page.resize((page.width * scale, page.height * scale), Image.Resampling.BICUBIC).save(path)


def grid(
    images: np.ndarray,
    title: str,
    *,
    row_labels: Sequence[str] | None = None,
    column_labels: Sequence[str] | None = None,
    x_label: str = "",
    y_label: str = "",
    gap: int = 1,
    cell: float = 0.42,
) -> Figure:
    """A grid of pictures, ink dark on white.

    Shapes: images [rows, columns, H, W, 1] in [0, 1]; `cell` is a picture's size in inches.
    """
    rows, columns, height, width = images.shape[:4]
    edges = 0.45 + 0.2 * bool(x_label) + 0.2 * (column_labels is not None)  # the title, and what is written below
    figure = _figure(max(columns * cell + 0.6, 4.0), rows * cell + edges, title)
    axes = figure.subplots()
    axes.imshow(tile(images, gap), cmap="gray_r", vmin=0, vmax=1, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(x_label, fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.spines[:].set_visible(False)
    if row_labels is not None:
        axes.set_yticks(np.arange(rows) * (height + gap) + (height - 1) / 2, row_labels, fontsize=9)
    if column_labels is not None:
        axes.set_xticks(np.arange(columns) * (width + gap) + (width - 1) / 2, column_labels, fontsize=9)
    axes.tick_params(length=0)
    return figure


def completions(
    observed: np.ndarray,
    hidden: np.ndarray,
    drawn: np.ndarray,
    truth: np.ndarray,
    title: str,
    shown: int | None = None,
    guess: np.ndarray | None = None,
) -> Figure:
    """Pictures with a part hidden, a row each: what was seen, what was drawn, its mean and spread, and the truth.

    With a `guess`, of a deterministic network say, that stands after what was seen.

    Hidden pixels are tinted, lest they be taken for white paper. The spread is the standard deviation of all K
    drawn pictures, pixel by pixel, in colours of its own; the first `shown` of them are shown, or all.

    Shapes: observed, truth, guess [R, H, W, 1] in [0, 1]; hidden bool [R, H, W, 1]; drawn [R, K, H, W, 1] in [0, 1].
    """
    rows, _, height, width = drawn.shape[:4]
    draws = drawn[:, :shown].shape[1]
    spread = drawn.std(axis=1)
    heat = ScalarMappable(Normalize(0, float(spread.max()) or 1.0), "OrRd")
    groups = [
        {"observed": np.where(hidden, HIDDEN, 1 - observed)} | ({} if guess is None else {"guess": 1 - guess}),
        {str(k + 1): 1 - drawn[:, k] for k in range(draws)},
        {"mean": 1 - drawn.mean(axis=1), "spread": np.asarray(heat.cmap(heat.norm(spread[..., 0])))[..., :3]},
        {"truth": 1 - truth},
    ]
    gap = max(1, width // 14)
    columns = sum(map(len, groups))
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) + 5 * gap, 3))
    centres, left = [], 0
    for group in groups:
        for pictures in group.values():
            for row, picture in enumerate(pictures):
                canvas[row * (height + gap) :, left:][:height, :width] = picture
            centres.append(left + (width - 1) / 2)
            left += width + gap
        left += 2 * gap
    cell = 0.6  # inches
    figure = _figure((columns + 0.5) * cell + 0.9, rows * cell * (1 + gap / height) + 0.55, title)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks(centres, [name for group in groups for name in group], fontsize=9)
    axes.set_xlabel(
        "completions",
        fontsize=9,
        x=(centres[len(groups[0])] + centres[len(groups[0]) + draws - 1]) / 2 / canvas.shape[1],
    )
    axes.xaxis.set_label_position("top")
    axes.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    bar = figure.colorbar(heat, ax=axes, fraction=0.02, pad=0.01, aspect=12, shrink=min(1, 2 / rows))
    bar.set_label("spread", fontsize=9)
    bar.ax.tick_params(labelsize=8, length=2)
    bar.outline.set_visible(False)
    return figure


def attribute_grid(
    images: np.ndarray,
    rows: Sequence[float] | np.ndarray,
    columns: Sequence[float] | np.ndarray,
    row_name: str,
    column_name: str,
    title: str,
) -> Figure:
    """One digit drawn across a grid of two attributes, each row and column marked with the value asked for.

    Args:
        images: pictures [R, C, H, W, 1] in [0, 1].
        rows: the R values asked for, from top to bottom.
        columns: the C values asked for, from left to right.
        row_name: what changes downwards, with its unit.
        column_name: what changes to the right, with its unit.
        title: of the whole figure.
    """
    marks = [[f"{value:.3g}".replace("-", "\N{MINUS SIGN}") for value in values] for values in (rows, columns)]
    return grid(
        images, title, row_labels=marks[0], column_labels=marks[1], x_label=column_name, y_label=row_name, cell=0.55
    )


def curves(histories: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]], title: str) -> Figure:
    """Training curves: the loss and its two terms, a panel each.

    Args:
        histories: by model, then by split (the first drawn solid, the second dashed), the arrays `loss`,
            `log_likelihood` and `kl` with one value an epoch.
        title: of the whole figure.
    """
    panels = {"loss": "loss = KL - log-likelihood", "log_likelihood": "log-likelihood", "kl": "KL"}
    figure = _figure(9.6, 3.2, title)
    for axes, (term, name) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for colour, (model, splits) in zip(cycle(PALETTE), histories.items(), strict=False):
            for style, (split, terms) in zip(("-", "--"), splits.items(), strict=True):
                epochs = np.arange(1, len(terms[term]) + 1)
                axes.plot(epochs, terms[term], style, color=colour, linewidth=1.4, label=f"{model}, {split}")
        # The first epochs fall so far that they would flatten the rest.
        shown = np.concatenate([line.get_ydata()[len(line.get_ydata()) // 20 + 1 :] for line in axes.lines])
        if len(shown):
            margin = 0.08 * float(np.ptp(shown)) or 1.0
            axes.set_ylim(float(shown.min()) - margin, float(shown.max()) + margin)
        axes.set_title(name, fontsize=9)
        axes.set_xlabel("epoch", fontsize=8)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.5)
    figure.axes[0].set_ylabel("nats per picture", fontsize=8)
    figure.axes[0].legend(fontsize=7, frameon=False)
    return figure
