"""Grids of images, completions of partly hidden images, and typed digits drawn as handwriting."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from cvae import checks
from cvae.plotting.style import LABEL, TICK, new_figure

HIDDEN = (0.80, 0.88, 0.96)  # the tint of hidden pixels, which no grey pixel has


def tile(images: np.ndarray, gap: int | tuple[int, int] = 1, fill: float = 1.0) -> np.ndarray:
    """Arrange images in one, with gaps of `fill` between rows and between columns.

    Shapes: [R, C, H, W, K] -> [R (H + gap) - gap, C (W + gap) - gap, K].
    """
    checks.require(images.ndim == 5, "images", "have shape [rows, columns, H, W, channels]", images.shape)
    rows, columns, height, width, channels = images.shape
    down, across = (gap, gap) if isinstance(gap, int) else gap
    canvas = np.full((rows, height + down, columns, width + across, channels), fill, dtype=np.float32)
    canvas[:, :height, :, :width] = images.transpose(0, 2, 1, 3, 4)
    page = canvas.reshape(rows * (height + down), columns * (width + across), channels)
    return page[: -down or None, : -across or None]


def to_rgb(images: np.ndarray, ink: bool) -> np.ndarray:
    """Turn images into colours; `ink` says that 1 is black in a single channel.  Shapes: [..., 1 or 3] -> [..., 3]."""
    checks.require(images.shape[-1] in (1, 3), "images", "have 1 or 3 channels, last", images.shape)
    images = images / 255 if images.dtype == np.uint8 else images
    light = 1 - images if ink and images.shape[-1] == 1 else images
    return np.broadcast_to(np.clip(light, 0, 1), (*images.shape[:-1], 3))


def write(path: str | os.PathLike[str], images: np.ndarray, height: int = 112) -> None:
    """Write rows of images as a plain PNG, ink dark on white, without axes or title.

    Each image is enlarged smoothly to about `height` pixels; a gap of about an eighth of that keeps rows apart.

    Shapes: images [rows, columns, H, W, 1]; values outside [0, 1] are clipped.
    """
    gap = max(2, images.shape[2] // 8)
    ink = np.clip(tile(images, gap=(gap, 0), fill=0.0)[..., 0], 0, 1)
    page = Image.fromarray(np.rint(255 * (1 - np.pad(ink, gap))).astype(np.uint8))
    scale = max(1, round(height / images.shape[2]))
    page.resize((page.width * scale, page.height * scale), Image.Resampling.BICUBIC).save(Path(path), optimize=True)


def grid(
    images: np.ndarray,
    title: str,
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    axis_labels: tuple[str, str] = ("", ""),
    gap: int = 1,
    cell: float = 0.42,
    ink: bool = True,
) -> Figure:
    """Draw a grid of images.

    Args:
        images: [rows, columns, H, W, 1 or 3], floats in [0, 1] (other values are clipped) or uint8.
        title: title of the figure.
        row_labels: one label per row, or none.
        column_labels: one label per column, or none.
        axis_labels: what changes to the right, and what changes downwards.
        gap: pixels between images.
        cell: height of an image in inches.
        ink: whether 1 is black, as in MNIST; images of three channels are drawn as they are.
    """
    page = tile(to_rgb(images, ink), gap)
    rows, columns, height, width = images.shape[:4]
    left = 0.2 * bool(axis_labels[1]) + 0.08 * max(map(len, row_labels), default=0) + 0.2
    below = 0.2 * bool(axis_labels[0]) + 0.2 * bool(column_labels)
    figure = new_figure(max(columns * cell * width / height + left, 4.0), rows * cell + below + 0.45, title)
    axes = figure.subplots()
    axes.imshow(page, interpolation="nearest")
    axes.set(xticks=[], yticks=[])
    axes.set_xlabel(axis_labels[0], fontsize=LABEL)
    axes.set_ylabel(axis_labels[1], fontsize=LABEL)
    axes.spines[:].set_visible(False)
    if row_labels:
        axes.set_yticks(np.arange(rows) * (height + gap) + (height - 1) / 2, row_labels, fontsize=LABEL)
    if column_labels:
        axes.set_xticks(np.arange(columns) * (width + gap) + (width - 1) / 2, column_labels, fontsize=LABEL)
    axes.tick_params(length=0)
    return figure


def completions(
    observed: np.ndarray,
    hidden: np.ndarray,
    drawn: np.ndarray,
    truth: np.ndarray,
    title: str,
    num_shown: int | None = None,
    prediction: np.ndarray | None = None,
    ink: bool = True,
) -> Figure:
    """Draw images with a part hidden, one per row: the observed part, completions, their mean and spread, the truth.

    Hidden pixels are tinted, so that they are not read as white. The standard deviation over all K completions, pixel
    by pixel, has a colour scale of its own.

    Args:
        observed: [R, H, W, 1 or 3] in [0, 1], as are `truth` and `prediction`.
        hidden: bool [R, H, W, 1].
        drawn: the K completions of each image, [R, K, H, W, 1 or 3].
        truth: the whole images.
        title: title of the figure.
        num_shown: how many completions are shown, all by default.
        prediction: of a deterministic network, shown after the observed part.
        ink: whether 1 is black; see `grid`.
    """
    deviation = drawn.std(axis=1).mean(axis=-1)
    heat = ScalarMappable(Normalize(0, float(deviation.max()) or 1.0), "OrRd")
    shown = to_rgb(drawn[:, :num_shown], ink)
    groups = [
        {"observed": np.where(hidden, HIDDEN, to_rgb(observed, ink))},
        {str(k + 1): shown[:, k] for k in range(shown.shape[1])},
        {"mean": to_rgb(drawn.mean(axis=1), ink), "std. dev.": np.asarray(heat.cmap(heat.norm(deviation)))[..., :3]},
        {"truth": to_rgb(truth, ink)},
    ]
    if prediction is not None:
        groups[0]["prediction"] = to_rgb(prediction, ink)
    figure = _columns(groups, title)
    axes = figure.axes[0]
    first, last = (axes.get_xticks()[len(groups[0]) + k] for k in (0, shown.shape[1] - 1))
    axes.set_xlabel("completions", fontsize=LABEL, x=(first + last) / 2 / np.ptp(axes.get_xlim()))
    axes.xaxis.set_label_position("top")
    bar = figure.colorbar(heat, ax=axes, fraction=0.02, pad=0.01, aspect=12, shrink=min(1, 2 / len(drawn)))
    bar.set_label("std. dev.", fontsize=TICK)
    bar.ax.tick_params(labelsize=TICK, length=2)
    bar.outline.set_visible(False)
    return figure


def _columns(groups: Sequence[dict[str, np.ndarray]], title: str, cell: float = 0.6) -> Figure:
    """Draw columns of images under their headings, groups of columns further apart.

    Shapes: each column [R, H, W, 3]; `cell` is the height of an image in inches.
    """
    rows, height, width = next(iter(groups[0].values())).shape[:3]
    gap = max(1, width // 14)
    columns = sum(map(len, groups))
    canvas = np.ones((rows * (height + gap) - gap, columns * (width + gap) + (2 * len(groups) - 3) * gap, 3))
    centres, left = [], 0
    for group in groups:
        for images in group.values():
            canvas[:, left : left + width] = tile(images[:, None], gap)
            centres.append(left + (width - 1) / 2)
            left += width + gap
        left += 2 * gap
    scale = cell / height
    figure = new_figure(scale * canvas.shape[1] + 0.9, scale * canvas.shape[0] + 0.75, title)
    axes = figure.subplots()
    axes.imshow(canvas, interpolation="nearest")
    axes.set_xticks(centres, [name for group in groups for name in group], fontsize=TICK)
    axes.tick_params(top=False, bottom=False, labeltop=True, labelbottom=False)
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    return figure
