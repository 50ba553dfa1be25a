"""Charts of results, numbers against numbers: host arrays in, matplotlib figures out, as in `plotting`.

Knows no models. A line is told from the others by its marker as well as by its colour.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator
from matplotlib.transforms import Affine2D

from cvae.plotting import GREY, PALETTE

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
ROUND = (1, 2, 5, 10)  # steps between ticks


def _chart(width: float, height: float, title: str, panels: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure with panels side by side."""
    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=11)
    row = list(np.ravel(figure.subplots(1, panels)))
    for axes in row:
        _plain(axes)
    return figure, row


def _plain(axes: Axes) -> None:
    axes.tick_params(labelsize=8, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)


def _note(axes: Axes, text: str) -> None:
    """Write into the upper left corner of a panel."""
    note = axes.text(0.03, 0.97, text, transform=axes.transAxes, fontsize=9, va="top")
    note.set_path_effects([withStroke(linewidth=3, foreground="white")])


def asked_against_measured(
    asked: np.ndarray, measured: np.ndarray, names: Sequence[str], units: Sequence[str], title: str
) -> Figure:
    """Attributes that were asked for against those of the pictures that were drawn, a panel each.

    In the panel stand Pearson's r and its standard error (1 - r^2) / sqrt(n - 1). Pairs in which either is NaN,
    as where a picture is blank, are left out and counted there.

    Shapes: asked, measured [N, A], A names and units; N > 2.
    """
    figure, panels = _chart(3.4 * len(names), 3.95, title, len(names))
    for colour, axes, name, unit, wanted, got in zip(
        cycle(PALETTE), panels, names, units, asked.T, measured.T, strict=False
    ):
        valid = ~np.isnan(wanted) & ~np.isnan(got)
        n = int(valid.sum())
        r = float(np.corrcoef(wanted[valid], got[valid])[0, 1])
        both = np.concatenate([wanted[valid], got[valid]])
        margin = 0.05 * float(np.ptp(both)) or 1.0
        limits = (float(both.min()) - margin, float(both.max()) + margin)
        size = float(np.clip(6000 / n, 3, 16))
        axes.scatter(wanted[valid], got[valid], s=size, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=(0, (4, 2)))
        axes.set(xlim=limits, ylim=limits, box_aspect=1)
        # The same ticks both ways, for the eye to follow the diagonal.
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))
        axes.set_title(name, fontsize=9)
        axes.set_xlabel(f"asked ({unit})", fontsize=9)
        axes.set_ylabel(f"measured ({unit})", fontsize=9)
        missing = f"\n{len(got) - n} of {len(got)} not measurable" if n < len(got) else ""
        _note(axes, f"r = {r:.4f} ± {(1 - r**2) / np.sqrt(n - 1):.4f}{missing}")
    return figure


def rate_distortion(points: Mapping[str, Mapping[str, np.ndarray]], title: str) -> Figure:
    """Rate against distortion, a line a kind of condition and a point a latent size; both in nats a picture.

        rate = E KL(q(z | x, c) || p(z | c)),    distortion = -E log p(x | z, c),    -ELBO = rate + distortion

    Diagonals join points of one ELBO. Alemi, Poole, Fischer, Dillon, Saurous & Murphy 2018.

    Args:
        points: by the line's name, arrays of one length, `rate`, `distortion`, `latent_size`, and the half-lengths
            of the error bars, `rate_error` and `distortion_error`.
        title: of the whole figure.
    """
    figure, (axes,) = _chart(6.4, 5.0, title)
    for colour, marker, (name, line) in zip(cycle(PALETTE), cycle(MARKERS), points.items(), strict=False):
        axes.errorbar(
            line["rate"],
            line["distortion"],
            xerr=line["rate_error"],
            yerr=line["distortion_error"],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            capsize=2,
            label=name,
        )
    axes.margins(0.08)
    _equal_elbo(axes)
    axes.set_xlabel("rate (nats)", fontsize=9)
    axes.set_ylabel("distortion (nats)", fontsize=9)
    # Outside, because a point may lie anywhere: a condition that says more takes rate and distortion away at once.
    figure.legend(fontsize=8, loc="outside lower center", ncols=5, frameon=False)
    _mark_points(figure, axes, points)
    return figure


def _equal_elbo(axes: Axes) -> None:
    """Faint diagonals rate + distortion = const across a panel whose data are all drawn, each marked with its sum."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.grid(visible=False)
    totals = np.asarray(MaxNLocator(8, steps=ROUND).tick_values(left + bottom, right + top))
    label = "rate + distortion, nats"
    for total in totals[(totals > left + bottom) & (totals < right + top)]:
        start, end = max(left, total - top), min(right, total - bottom)
        axes.plot([start, end], [total - start, total - end], color="0.75", linewidth=0.7, zorder=0.5, label=label)
        label = ""  # once in the legend is enough
        # Written where the diagonal leaves the panel: beside it, or above its lower edge.
        beside = end == right
        shift, across, along = ((3, 0), "left", "center") if beside else ((0, 2), "right", "bottom")
        axes.annotate(
            f"{total:g}",
            (end, total - end),
            shift,
            textcoords="offset points",
            fontsize=7,
            color="0.55",
            ha=across,
            va=along,
        )


def _mark_points(figure: Figure, axes: Axes, points: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write its latent size beside every point, at the nearest place that no line or other number takes.

    Where that is not beside the point, a thin leader joins the two, round the numbers that stand already.

    Once latents are left unused, more of them hardly move a point: at one fixed side, numbers would hide one another.
    """
    figure.draw_without_rendering()  # makes the layout, so that places on the page are final
    to_page = axes.transData + Affine2D().scale(72 / figure.dpi)  # in points, as fonts are measured
    along = np.linspace(0, 1, 51)[:, None, None]
    taken = []
    for line in points.values():
        ends = np.stack([line["rate"], line["distortion"]], axis=1)
        across, up = line["rate_error"][:, None] * (1, 0), line["distortion_error"][:, None] * (0, 1)
        for start, end in ((ends[:-1], ends[1:]), (ends - across, ends + across), (ends - up, ends + up)):
            taken.append(to_page.transform(((1 - along) * start + along * end).reshape(-1, 2)))
    obstacles = np.concatenate(taken)
    lowest, highest = to_page.transform(np.transpose([axes.get_xlim(), axes.get_ylim()]))
    turns = np.exp(1j * np.pi * (0.25 + np.arange(24) / 12))
    reaches = np.outer(np.arange(9, 61, 3), turns).ravel()  # from near to far, all around
    places = np.stack([reaches.real, reaches.imag], axis=1)
    leaders = np.linspace(0.2, 1, 20)[:, None] * places[:, None]
    numbers = np.empty((0, 2))
    for colour, line in zip(cycle(PALETTE), points.values(), strict=False):
        for rate, distortion, size in zip(line["rate"], line["distortion"], line["latent_size"], strict=True):
            point = to_page.transform((rate, distortion))
            text = f"{size:g}"
            half = np.array([2.7 * len(text) + 1.5, 5.0])  # of the box around the number
            centres = point + places
            hits = (np.abs(obstacles - centres[:, None]) < half + 2).all(axis=2).sum(axis=1)
            hits += 10 * (np.abs(point + leaders[:, :, None] - numbers) < (7, 5)).all(axis=3).sum(axis=(1, 2))
            hits += 1000 * ((centres - half < lowest) | (centres + half > highest)).any(axis=1)
            chosen = int(hits.argmin())
            box = np.stack(np.meshgrid([-1, 0, 1], [-1, 0, 1]), axis=-1).reshape(-1, 2) * half
            obstacles = np.concatenate([obstacles, centres[chosen] + box, point + leaders[chosen]])
            numbers = np.concatenate([numbers, centres[[chosen]]])
            mark = axes.annotate(
                text,
                (rate, distortion),
                tuple(places[chosen]),
                textcoords="offset points",
                fontsize=8,
                color=colour,
                ha="center",
                va="center_baseline",
                arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 0},
            )
            mark.set_path_effects([withStroke(linewidth=2, foreground="white")])
            mark.set_in_layout(False)


def against_latent_size(lines: Mapping[str, Mapping[str, np.ndarray]], y_label: str, title: str) -> Figure:
    """A result against the number of latents, a line a kind of condition.

    Args:
        lines: by the line's name, arrays of one length `latent_size`, `mean` and `spread`, half an error bar.
        y_label: what the result is, with its unit.
        title: of the whole figure.
    """
    figure, (axes,) = _chart(5.2, 3.6, title)
    for colour, marker, (name, line) in zip(cycle(PALETTE), cycle(MARKERS), lines.items(), strict=False):
        axes.errorbar(
            line["latent_size"],
            line["mean"],
            yerr=line["spread"],
            color=colour,
            marker=marker,
            markersize=5,
            linewidth=1.4,
            capsize=2,
            label=name,
        )
    sizes = np.unique(np.concatenate([line["latent_size"] for line in lines.values()]))
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(list(sizes)))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{size:g}" for size in sizes])
    axes.set_xlabel("number of latents", fontsize=9)
    axes.set_ylabel(y_label, fontsize=9)
    axes.legend(fontsize=8, frameon=False)
    return figure


def by_condition(panels: Mapping[str, Mapping[str, tuple[float, float]]], title: str) -> Figure:
    """A result of every kind of condition, a row each; results that are not comparable stand in panels of their own.

    All panels have one scale, so that lengths compare where places do not.

    Args:
        panels: by the result's name, with its unit, rows by theirs: a mean and half the length of its error bar.
        title: of the whole figure.
    """
    sizes = [len(rows) for rows in panels.values()]
    figure = Figure(figsize=(5.2, 0.36 * sum(sizes) + 0.6 * len(sizes) + 0.7), layout="constrained")
    figure.suptitle(title, fontsize=11)
    colours = cycle(PALETTE)
    stack = np.ravel(figure.subplots(len(panels), 1, height_ratios=[size + 0.5 for size in sizes]))
    for axes, (label, rows) in zip(stack, panels.items(), strict=True):
        _plain(axes)
        for place, (colour, (mean, spread)) in enumerate(zip(colours, rows.values(), strict=False)):
            axes.errorbar(mean, place, xerr=spread, color=colour, marker="o", markersize=5, capsize=3)
            axes.annotate(
                f"{mean:.2f}".replace("-", "\N{MINUS SIGN}"),
                (mean, place),
                (0, 5),
                textcoords="offset points",
                fontsize=7,
                ha="center",
                color=GREY,
            )
        axes.set_yticks(range(len(rows)), list(rows), fontsize=9)
        axes.set_ylim(len(rows) - 0.5, -0.75)
        axes.margins(x=0.08)
        axes.set_xlabel(label, fontsize=9)
    limits = [axes.get_xlim() for axes in stack]
    half = max(right - left for left, right in limits) / 2
    for axes, (left, right) in zip(stack, limits, strict=True):
        middle = (left + right) / 2
        axes.set_xlim(middle - half, middle + half)
        axes.xaxis.set_major_locator(MaxNLocator(7, steps=ROUND))
    return figure


def calibration(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray, title: str) -> Figure:
    """Reliability diagram: how often a classifier is right among predictions that it is equally sure of.

    Bins are of one width and cover [0, 1]. Below stands the expected calibration error,

        sum_b (n_b / n) |accuracy_b - confidence_b|

    Shapes: mean confidence, accuracy and number of predictions of a bin, each [bins]; what the first two hold where
    a bin is empty is not looked at. Guo, Pleiss, Sun & Weinberger 2017.
    """
    figure = Figure(figsize=(4.0, 4.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    filled = count > 0
    sure, right, n = confidence[filled], accuracy[filled], count[filled]
    width = 1 / len(count)
    centres = (np.arange(len(count))[filled] + 0.5) * width
    above.bar(centres, right, 0.92 * width, color=PALETTE[0], alpha=0.45)
    above.errorbar(
        sure, right, yerr=np.sqrt(right * (1 - right) / n), fmt="o", color=PALETTE[0], markersize=4, capsize=2
    )
    above.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=(0, (4, 2)))
    above.set(xlim=(0, 1), ylim=(0, 1.02))
    above.set_ylabel("accuracy", fontsize=9)
    _note(above, f"expected calibration error {np.sum(n * np.abs(right - sure)) / n.sum():.4f}")
    below.bar(centres, n, 0.92 * width, color=GREY, alpha=0.6)
    below.set_yscale("log")
    below.set_ylim(bottom=0.5)
    below.yaxis.set_major_locator(LogLocator(100))
    below.set_ylabel("count", fontsize=9)
    below.set_xlabel("confidence", fontsize=9)
    for axes in (above, below):
        _plain(axes)
    return figure
