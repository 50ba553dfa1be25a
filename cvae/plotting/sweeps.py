"""Results of sweeps over latent sizes and conditions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import Affine2D

from cvae.plotting.style import GREY, LABEL, TICK, legend_below, line_styles, minus, new_figure, plain

STEPS = (1, 2, 5, 10)  # between ticks
Lines = Mapping[str, Mapping[str, np.ndarray]]


def _draw_lines(axes: Axes, lines: Lines, x: str, y: str) -> None:
    """Draw line[y] against line[x] for every line, with error bars where it has `<x>_error` or `<y>_error`."""
    for (colour, marker), (name, line) in zip(line_styles(), lines.items(), strict=False):
        axes.errorbar(
            line[x],
            line[y],
            xerr=line.get(f"{x}_error"),
            yerr=line.get(f"{y}_error"),
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            capsize=2,
            label=name,
        )


def against_latent_size(lines: Lines, y_label: str, title: str) -> Figure:
    """Draw a result against the number of latents, one line per kind of condition.

    Args:
        lines: by name, arrays of equal length: `latent_size`, `value`, and `value_error`, half an error bar.
        y_label: what the result is, with its unit.
        title: title of the figure.
    """
    figure = new_figure(5.2, 3.8, title)
    axes = figure.subplots()
    plain(axes, "number of latents", y_label)
    _draw_lines(axes, lines, "latent_size", "value")
    sizes = np.unique(np.concatenate([line["latent_size"] for line in lines.values()]))
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:g}" for size in sizes])
    axes.set_xticks([], minor=True)
    legend_below(figure, 4)
    return figure


def by_condition(panels: Mapping[str, Mapping[str, tuple[float, float]]], title: str) -> Figure:
    """Draw a result for every kind of condition, one row each; results that are not comparable have own panels.

    All panels have the same scale, so that lengths compare even where positions do not.

    Args:
        panels: by the result's name with its unit, then by the row's name: a mean and half the length of its error bar.
        title: title of the figure.
    """
    sizes = [len(rows) for rows in panels.values()]
    figure = new_figure(5.2, 0.36 * sum(sizes) + 0.6 * len(sizes) + 0.7, title)
    stack = np.ravel(figure.subplots(len(panels), 1, height_ratios=[size + 0.5 for size in sizes]))
    styles = line_styles()
    for axes, (label, rows) in zip(stack, panels.items(), strict=True):
        plain(axes, label)
        for place, ((colour, _), (mean, error)) in enumerate(zip(styles, rows.values(), strict=False)):
            axes.errorbar(mean, place, xerr=error, color=colour, marker="o", markersize=5, capsize=3)
            text, above = minus(f"{mean:.2f}"), (0, 5)
            axes.annotate(text, (mean, place), above, textcoords="offset points", ha="center", fontsize=7, color=GREY)
        axes.set_yticks(range(len(rows)), list(rows), fontsize=LABEL)
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.margins(x=0.08)
    limits = [axes.get_xlim() for axes in stack]
    half = max(right - left for left, right in limits) / 2
    for axes, (left, right) in zip(stack, limits, strict=True):
        axes.set_xlim((left + right) / 2 - half, (left + right) / 2 + half)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=STEPS))
    return figure


def rate_distortion(lines: Lines, title: str, unit: str = "nats per image") -> Figure:
    """Draw distortion against rate, one line per kind of condition and one point per latent size.

        rate = E KL(q(z | x, c) || p(z | c)),    distortion = -E log p(x | z, c),    -ELBO = rate + distortion

    Diagonals join points of equal ELBO.

    Args:
        lines: by name, arrays of equal length: `rate`, `distortion`, `latent_size`, and half the lengths of the error
            bars, `rate_error` and `distortion_error`.
        title: title of the figure.
        unit: the unit of both axes.

    References:
        Alemi, Poole, Fischer, Dillon, Saurous & Murphy 2018, "Fixing a broken ELBO".
    """
    figure = new_figure(6.4, 5.0, title)
    axes = figure.subplots()
    plain(axes, f"rate ({unit})", f"distortion ({unit})")
    _draw_lines(axes, lines, "rate", "distortion")
    axes.margins(0.08)
    _equal_elbo(axes)
    legend_below(figure, 4)
    _label_points(figure, axes, lines)
    return figure


def _equal_elbo(axes: Axes) -> None:
    """Draw faint diagonals rate + distortion = const across a panel with data, each labelled with its sum."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.grid(visible=False)
    totals = np.asarray(MaxNLocator(8, steps=STEPS).tick_values(left + bottom, right + top))
    label = "rate + distortion (nats)"
    for total in totals[(totals > left + bottom) & (totals < right + top)]:
        start, end = max(left, total - top), min(right, total - bottom)
        axes.plot([start, end], [total - start, total - end], color="0.75", linewidth=0.7, zorder=0.5, label=label)
        label = ""  # once in the legend is enough
        # The number stands where the diagonal leaves the panel: beside the panel, or above its lower edge.
        shift, across, along = ((3, 0), "left", "center") if end == right else ((0, 2), "right", "bottom")
        place: dict[str, Any] = {"xytext": shift, "textcoords": "offset points", "ha": across, "va": along}
        axes.annotate(minus(f"{total:g}"), (end, total - end), **place, fontsize=7, color="0.55")


def _label_points(figure: Figure, axes: Axes, lines: Lines) -> None:
    """Write its latent size near every point, at the nearest place free of lines and of other numbers.

    A thin leader joins number and point. At one fixed side, numbers would hide one another: once latents are left
    unused, more of them hardly move a point.
    """
    figure.draw_without_rendering()  # computes the layout, so that places on the page are final
    to_page = axes.transData + Affine2D().scale(72 / figure.dpi)  # in points, as fonts are measured
    ends = [to_page.transform(np.stack([line["rate"], line["distortion"]], axis=1)) for line in lines.values()]
    segments = [np.linspace(points[:-1], points[1:], 51).reshape(-1, 2) for points in ends]
    obstacles, numbers = np.concatenate(ends + segments), np.empty((0, 2))
    lowest, highest = to_page.transform(np.transpose([axes.get_xlim(), axes.get_ylim()]))
    angles = np.pi * (0.25 + np.arange(24) / 12)
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets = (np.arange(9, 61, 3)[:, None, None] * directions).reshape(-1, 2)  # from near to far
    leaders = np.linspace(0.2 * offsets, offsets, 20, axis=1)  # [offsets, 20, 2]
    for (colour, _), line in zip(line_styles(), lines.values(), strict=False):
        for rate, distortion, size in zip(line["rate"], line["distortion"], line["latent_size"], strict=True):
            point, text = to_page.transform((rate, distortion)), f"{size:g}"
            half = np.array([2.7 * len(text) + 1.5, 5.0])  # of the box around the number
            centres = point + offsets
            cost = (np.abs(obstacles - centres[:, None]) < half + 2).all(axis=2).sum(axis=1)
            cost += 10 * (np.abs(point + leaders[:, :, None] - numbers) < (7, 5)).all(axis=3).sum(axis=(1, 2))
            cost += 1000 * ((centres - half < lowest) | (centres + half > highest)).any(axis=1)
            best = int(cost.argmin())
            box = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2) * half
            obstacles = np.concatenate([obstacles, centres[best] + box, point + leaders[best]])
            numbers = np.concatenate([numbers, centres[[best]]])
            label = axes.annotate(
                text,
                (rate, distortion),
                tuple(offsets[best]),
                textcoords="offset points",
                fontsize=TICK,
                color=colour,
                ha="center",
                va="center_baseline",
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            )
            label.set_path_effects([withStroke(linewidth=2, foreground="white")])
            label.set_in_layout(False)
