"""Charts: training curves, requested against measured attributes, calibration, and generated rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from cvae import checks
from cvae.plotting.style import (
    DASHED,
    GREY,
    LABEL,
    PALETTE,
    corner_note,
    dot_area,
    legend_below,
    minus,
    new_figure,
    plain,
)

TERMS = {"loss": "loss = KL \N{MINUS SIGN} log-likelihood", "log_likelihood": "log-likelihood", "kl": "KL"}
MOST_PANELS = 8  # columns of a table with a histogram each
MOST_COLUMNS = 200  # of a table, in a matrix of correlations
MOST_BINS = 40


def curves(
    histories: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]],
    title: str,
    note: str = "",
    unit: str = "nats per image",
) -> Figure:
    """Draw training curves: the loss and its two terms, one panel each.

    Args:
        histories: by model, then by split (the first is drawn solid, the second dashed), the arrays `loss`,
            `log_likelihood` and `kl` with one value per epoch.
        title: title of the figure.
        note: a sentence under the figure.
        unit: the unit of all values.
    """
    figure = new_figure(9.6, 3.5 + 0.2 * bool(note), title)
    for axes, (term, name) in zip(figure.subplots(1, 3), TERMS.items(), strict=True):
        for colour, (model, splits) in zip(cycle(PALETTE), histories.items(), strict=False):
            for style, (split, terms) in zip(("-", "--"), splits.items(), strict=False):
                epochs = np.arange(1, len(terms[term]) + 1)
                axes.plot(epochs, terms[term], style, color=colour, linewidth=1.4, label=f"{model}, {split}")
        # The first epochs fall so far that they would flatten the rest.
        late = [np.asarray(line.get_ydata(), float)[len(line.get_xdata()) // 20 + 1 :] for line in axes.lines]
        values = np.concatenate([np.empty(0), *late])
        values = values[np.isfinite(values)]
        if len(values):
            margin = 0.08 * float(np.ptp(values)) or 1.0
            axes.set_ylim(float(values.min()) - margin, float(values.max()) + margin)
        plain(axes)
        axes.set_title(name, fontsize=LABEL)
        axes.set_xlabel("epoch", fontsize=LABEL)
        axes.set_ylabel(unit, fontsize=LABEL)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10), integer=True))
    legend_below(figure, 4, note)
    return figure


def requested_against_measured(
    requested: np.ndarray, measured: np.ndarray, names: Sequence[str], units: Sequence[str], title: str
) -> Figure:
    """Draw requested attributes against those measured on the generated images, one panel each.

    Each panel states Pearson's r and its standard error (1 - r^2) / sqrt(n - 1). Pairs in which either is NaN, as
    where an image is blank, are left out and counted there.

    Shapes: requested, measured [N, A], A names and units; N > 2.
    """
    valid = np.isfinite(requested) & np.isfinite(measured)
    rule = f"be [N, {len(names)}], as `requested`, with three measurable examples per attribute"
    enough = requested.shape == measured.shape and requested.shape[1:] == (len(names),) and valid.sum(axis=0).min() > 2
    checks.require(bool(enough), "measured", rule, f"shapes {requested.shape} and {measured.shape}")
    figure = new_figure(3.4 * len(names), 3.95, title)
    panels = np.ravel(figure.subplots(1, len(names)))
    for k, (colour, axes) in enumerate(zip(cycle(PALETTE), panels, strict=False)):
        x, y = requested[valid[:, k], k], measured[valid[:, k], k]
        r = float(np.corrcoef(x, y)[0, 1])
        both = np.concatenate([x, y])
        margin = 0.05 * float(np.ptp(both)) or 1.0
        limits = (float(both.min()) - margin, float(both.max()) + margin)
        plain(axes)
        area = dot_area(len(x), 6000, 3, 16)
        axes.scatter(x, y, s=area, color=colour, alpha=0.35, linewidths=0, rasterized=True)
        axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=DASHED)
        axes.set(xlim=limits, ylim=limits, box_aspect=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))  # the same ticks on both
        axes.set_title(names[k], fontsize=LABEL)
        axes.set_xlabel(f"requested ({units[k]})", fontsize=LABEL)
        axes.set_ylabel(f"measured ({units[k]})", fontsize=LABEL)
        missing = len(measured) - len(x)
        count = f"\n{missing:,} of {len(measured):,} not measurable" if missing else ""
        error = (1 - r**2) / np.sqrt(len(x) - 1)
        corner_note(axes, minus(f"r = {r:.3f} ± {f'{error:.3f}' if round(error, 3) else '<0.001'}{count}"))
    return figure


def calibration(confidence: np.ndarray, accuracy: np.ndarray, count: np.ndarray, title: str) -> Figure:
    """Draw a reliability diagram: the accuracy of predictions against their confidence.

    Bins have equal widths and cover [0, 1]. The panel states the expected calibration error,

        sum_b (n_b / n) |accuracy_b - confidence_b|

    Shapes: mean confidence and accuracy, in [0, 1], and number of predictions per bin, each [bins]; the first two are
    ignored where a bin is empty.

    References:
        Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks".
    """
    figure = new_figure(4.2, 4.6, title)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3.2, 1])
    filled = count > 0
    x, y, n = 100 * confidence[filled], 100 * accuracy[filled], count[filled]
    width = 100 / len(count)
    centres = (np.arange(len(count))[filled] + 0.5) * width
    above.bar(centres, y, 0.92 * width, color=PALETTE[0], alpha=0.45)
    above.errorbar(x, y, yerr=np.sqrt(y * (100 - y) / n), fmt="o", color=PALETTE[0], markersize=4, capsize=2)
    above.plot([0, 100], [0, 100], color=GREY, linewidth=1, linestyle=DASHED)
    above.set(xlim=(0, 100), ylim=(0, 115), yticks=range(0, 101, 20))
    above.set_ylabel("accuracy (%)", fontsize=LABEL)
    corner_note(above, f"expected calibration error {np.sum(n * np.abs(y - x)) / n.sum():.1f} %")
    below.bar(centres, n, 0.92 * width, color=GREY, alpha=0.6)
    below.set_yscale("log")
    below.set_ylim(bottom=0.5)
    below.yaxis.set_major_locator(LogLocator(100))
    below.set_ylabel("predictions", fontsize=LABEL)
    below.set_xlabel("confidence (%)", fontsize=LABEL)
    for axes in (above, below):
        plain(axes)
    return figure


def marginals(real: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draw histograms of test and generated rows, one panel per column; of many columns, those that agree least.

    Panels state the Kolmogorov-Smirnov distance, and the legend its 95 % quantile for equal distributions. Missing
    cells (NaN) are left out.

    Shapes: real [N, D], drawn [M, D], in the units of the table; D names of columns.
    """
    _check_rows(real, drawn, names)
    pairs = [tuple(rows[np.isfinite(rows[:, k]), k] for rows in (real, drawn)) for k in range(len(names))]
    distances = np.array([_ks_distance(*pair) for pair in pairs])
    chosen = np.sort(np.argsort(-distances, kind="stable")[:MOST_PANELS])
    if len(chosen) < len(names):
        title += f"; the {MOST_PANELS} of {len(names):,} columns that agree least"
    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    figure = new_figure(max(6.2, 2.5 * across), 1.2 + 1.9 * down, title)
    panels = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, k in zip(panels, chosen, strict=False):
        bins = _bins(*pairs[k])
        axes.hist(pairs[k][0], bins, density=True, color="0.78", label="test")
        axes.hist(pairs[k][1], bins, density=True, histtype="step", color=PALETTE[0], linewidth=1.4, label="generated")
        plain(axes)
        axes.grid(visible=False)
        axes.set_title(f"{names[k]}: KS {distances[k]:.3f}", fontsize=LABEL)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    limit = 1.36 * (1 / len(real) + 1 / len(drawn)) ** 0.5
    note = f"KS: Kolmogorov-Smirnov distance; below {limit:.3f} in 95 % of comparisons of equal distributions"
    legend_below(figure, 2, note)
    return figure


def _check_rows(real: np.ndarray, drawn: np.ndarray, names: Sequence[str]) -> None:
    shape = f"have shape [rows, {len(names)}], one column per name"
    for argument, rows in (("real", real), ("drawn", drawn)):
        valid = rows.ndim == 2 and len(rows) > 0 and rows.shape[1] == len(names)
        checks.require(valid, argument, shape, rows.shape)


def _ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference of two empirical distribution functions; 0 if either is empty."""
    both = np.concatenate([a, b])  # scipy's ks_2samp takes four times as long, which matters for 20,000 columns
    below = (np.searchsorted(np.sort(values), both, side="right") / max(len(values), 1) for values in (a, b))
    return float(np.abs(np.subtract(*below)).max()) if len(a) and len(b) else 0.0


def _bins(real: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return edges of bins for both: around the values where the real ones are few integers, else of equal width."""
    both = np.concatenate([real, drawn]) if len(real) + len(drawn) else np.zeros(1)
    low, high = np.quantile(both, [0.002, 0.998])
    if len(real) and np.array_equal(real, np.rint(real)) and np.ptp(real) <= MOST_BINS:
        return np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, 1 + int(np.clip(len(real) ** 0.5, 8, MOST_BINS)))


def pair(
    real: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str, scale: np.ndarray | None = None
) -> Figure:
    """Draw the two columns that correlate most in the test rows, for test and for generated rows, side by side.

    A matrix of all correlations could fill the memory. Of more than 200 columns, the pair is therefore one of the 200
    in which the generated rows have the largest variance, in units of `scale`, and the title says so.

    Args:
        real: test rows [N, D], NaN where a cell is missing.
        drawn: generated rows [M, D], in the same units.
        names: names of the D columns, at least two.
        title: title of the figure.
        scale: standard deviations of the columns in the training rows, [D]; by default in the test rows.
    """
    _check_rows(real, drawn, names)
    checks.require(len(names) > 1, "names", "name at least two columns", list(names))
    columns = np.arange(len(names))
    if len(names) > MOST_COLUMNS:
        unit = _centre(real)[1] if scale is None else np.asarray(scale, np.float64) ** 2
        standardised = np.divide(_centre(drawn)[1], unit, out=np.zeros(len(names)), where=unit > 0)
        columns = np.sort(np.argsort(-standardised, kind="stable")[:MOST_COLUMNS])
        title += f", of the {MOST_COLUMNS} of {len(names):,} columns with the largest variance in standardised units"
    x, y = columns[list(_strongest(real[:, columns]))]
    figure = new_figure(7.2, 3.7, title)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, name, rows, colour in zip(panels, ("test", "generated"), (real, drawn), (GREY, PALETTE[0]), strict=True):
        _cloud(axes, rows[:, [x, y]], colour, name)
        axes.set_xlabel(names[x], fontsize=LABEL)
    panels[0].set_ylabel(names[y], fontsize=LABEL)
    return figure


def _cloud(axes: Axes, points: np.ndarray, colour: Any, name: str) -> None:
    """Draw the points without missing values, with their number and correlation as the panel's title."""
    points = points[np.isfinite(points).all(axis=1)]
    plain(axes)
    area = dot_area(len(points), 4000, 2, 14)
    axes.scatter(points[:, 0], points[:, 1], s=area, color=colour, alpha=0.45, linewidths=0, rasterized=True)
    varies = len(points) > 2 and bool((points.std(axis=0) > 0).all())
    r = f"r = {np.corrcoef(points.T)[0, 1]:.3f}" if varies else "r is undefined"
    axes.set_title(minus(f"{len(points):,} {name} rows, {r}"), fontsize=LABEL)


def _centre(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Subtract the mean of each column, in float64; returns the rest, 0 where missing, and the variances, [D]."""
    present = np.isfinite(rows)
    count = np.maximum(present.sum(axis=0), 1)
    mean = np.where(present, rows, 0).sum(axis=0, dtype=np.float64) / count
    centred = np.where(present, rows - mean, 0)
    return centred, (centred**2).sum(axis=0) / count


def _strongest(rows: np.ndarray) -> tuple[int, int]:
    """Return the two columns with the largest absolute correlation; missing cells count as the column's mean."""
    centred, variance = _centre(rows)
    unit = np.divide(centred, np.sqrt(variance), out=np.zeros_like(centred), where=variance > 0)
    size = np.abs(unit.T @ unit) + 1  # above 0 even for constant columns, so that the pair is never one column twice
    first, second = divmod(int(np.triu(size, 1).argmax()), rows.shape[1])
    return first, second
