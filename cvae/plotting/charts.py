"""Charts: training curves, requested against measured attributes, calibration, and generated rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from cvae import checks
from cvae.plotting.style import (
    DASHED,
    GREY,
    PALETTE,
    corner_note,
    dots,
    legend_below,
    minus,
    new_figure,
    padded,
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
            axes.set_ylim(padded(values, 0.08))
        plain(axes, "epoch", unit, name)
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
    fewest = int(valid.sum(axis=0).min())
    checks.require(fewest > 2, "measured", "have three measurable examples per attribute", fewest)
    figure = new_figure(3.4 * len(names), 3.95, title)
    panels = np.ravel(figure.subplots(1, len(names)))
    for k, (colour, axes) in enumerate(zip(cycle(PALETTE), panels, strict=False)):
        points = np.stack([requested[valid[:, k], k], measured[valid[:, k], k]], axis=1)
        r = float(np.corrcoef(points.T)[0, 1])
        limits = padded(points, 0.05)
        plain(axes, f"requested ({units[k]})", f"measured ({units[k]})", names[k])
        dots(axes, points, [colour], 6000)
        axes.plot(limits, limits, color=GREY, linewidth=1, linestyle=DASHED)
        axes.set(xlim=limits, ylim=limits, box_aspect=1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5))  # the same ticks on both
        missing = len(measured) - len(points)
        count = f"\n{missing:,} of {len(measured):,} not measurable" if missing else ""
        error = (1 - r**2) / np.sqrt(len(points) - 1)
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
    plain(above, y_label="accuracy (%)")
    corner_note(above, f"expected calibration error {np.sum(n * np.abs(y - x)) / n.sum():.1f} %")
    below.bar(centres, n, 0.92 * width, color=GREY, alpha=0.6)
    below.set_yscale("log")
    below.set_ylim(bottom=0.5)
    below.yaxis.set_major_locator(LogLocator(100))
    plain(below, "confidence (%)", "predictions")
    return figure


def marginals(real: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draw histograms of test and generated rows, one panel per column; of many columns, those that agree least.

    Panels state the Kolmogorov-Smirnov distance, and the legend its 95 % quantile for equal distributions. Missing
    cells (NaN) are left out.

    Shapes: real [N, D], drawn [M, D], in the units of the table; D names of columns.
    """
    pairs = [tuple(rows[np.isfinite(rows[:, k]), k] for rows in (real, drawn)) for k in range(len(names))]
    distances = np.array([_ks_distance(*pair) for pair in pairs])
    chosen = np.sort(np.argsort(-distances, kind="stable")[:MOST_PANELS])
    if len(chosen) < len(names):
        title += f"; the {MOST_PANELS} of {len(names):,} columns that agree least"
    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    figure = new_figure(max(6.2, 2.5 * across), 1.2 + 1.9 * down, title)
    for place, k in enumerate(chosen):
        axes = figure.add_subplot(down, across, place + 1)
        bins = _bins(*pairs[k])
        axes.hist(pairs[k][0], bins, density=True, color="0.78", label="test")
        axes.hist(pairs[k][1], bins, density=True, histtype="step", color=PALETTE[0], linewidth=1.4, label="generated")
        plain(axes, title=f"{names[k]}: KS {distances[k]:.3f}")
        axes.grid(visible=False)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    limit = 1.36 * (1 / len(real) + 1 / len(drawn)) ** 0.5
    note = f"KS: Kolmogorov-Smirnov distance; below {limit:.3f} in 95 % of comparisons of equal distributions"
    legend_below(figure, 2, note)
    return figure


def _ks_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference of two empirical distribution functions; 0 if either is empty."""
    both = np.concatenate([a, b])  # scipy's ks_2samp takes four times as long, which matters for 20,000 columns
    below = (np.searchsorted(np.sort(values), both, side="right") / max(len(values), 1) for values in (a, b))
    return float(np.abs(np.subtract(*below)).max()) if len(a) and len(b) else 0.0


def _bins(real: np.ndarray, drawn: np.ndarray) -> list[float]:
    """Return edges of bins for both: around the values where the real ones are few integers, else of equal width."""
    both = np.concatenate([real, drawn]) if len(real) + len(drawn) else np.zeros(1)
    low, high = np.quantile(both, [0.002, 0.998])
    if len(real) and np.array_equal(real, np.rint(real)) and np.ptp(real) <= MOST_BINS:
        edges = np.arange(np.floor(low), np.ceil(high) + 2) - 0.5
    else:
        edges = np.histogram_bin_edges(both, int(np.clip(len(real) ** 0.5, 8, MOST_BINS)), (low, high))
    return [float(edge) for edge in edges]


def pair(real: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str) -> Figure:
    """Draw the two columns that correlate most in the test rows, for test and for generated rows, side by side.

    A matrix of all correlations could fill the memory. Of more than 200 columns, the pair is therefore one of the 200
    in which the generated rows have the largest variance, in units of that of the test rows, and the title says so.
    Panels state the number of rows without a missing cell (NaN) and their correlation.

    Shapes: real [N, D], drawn [M, D], in the units of the table; D names of columns, at least two.
    """
    columns = np.arange(len(names))
    if len(names) > MOST_COLUMNS:
        unit = _centre(real)[1]
        standardised = np.divide(_centre(drawn)[1], unit, out=np.zeros(len(names)), where=unit > 0)
        columns = np.sort(np.argsort(-standardised, kind="stable")[:MOST_COLUMNS])
        title += f", of the {MOST_COLUMNS} of {len(names):,} columns with the largest variance in standardised units"
    x, y = columns[list(_strongest(real[:, columns]))]
    figure = new_figure(7.2, 3.7, title)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, name, rows, colour in zip(panels, ("test", "generated"), (real, drawn), (GREY, PALETTE[0]), strict=True):
        points = rows[:, [x, y]]
        points = points[np.isfinite(points).all(axis=1)]
        varies = len(points) > 2 and bool((points.std(axis=0) > 0).all())
        r = f"r = {np.corrcoef(points.T)[0, 1]:.3f}" if varies else "r is undefined"
        dots(axes, points, [colour], 4000)
        plain(axes, names[x], "" if axes is panels[1] else names[y], minus(f"{len(points):,} {name} rows, {r}"))
    return figure


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
