"""Figures of tables: generated rows beside real ones, column by column, pair by pair, and condition by condition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cvae import checks
from cvae.plotting.style import GREY, LABEL, PALETTE, TICK, dots, legend_below, minus, new_figure, plain, wrap

MOST_PANELS = 12  # columns of a table with a histogram each
MOST_COLUMNS = 200  # of a table, in a matrix of correlations
MOST_BINS = 40
MOST_BARS = 12  # categories of a column
MOST_LETTERS = 12  # of a category
MOST_WIDTH = 30  # letters side by side under a panel
MOST_WRITTEN = 10  # columns of a matrix with its numbers in it
DARK = 0.6  # association from which its colour is dark
REAL = "0.78"  # colour of areas of test rows


def marginals(
    real: np.ndarray,
    drawn: np.ndarray,
    names: Sequence[str],
    title: str,
    categories: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Draw the distribution of each column in test and generated rows; of many columns, of those that agree least.

    Numbers have histograms, and panels state the Kolmogorov-Smirnov distance; categories have bars, and panels state
    the total variation distance. The legend has the 95 % quantile of the first for equal distributions. Missing cells
    (NaN) are left out.

    Shapes: real [N, D], drawn [M, D], in the units of the table; D names of columns.

    Args:
        real: test rows.
        drawn: generated rows.
        names: of the columns.
        title: title of the figure.
        categories: of every column the words of its numbers 0, 1, 2 and so on; empty where they are numbers.
    """
    words = [()] * len(names) if categories is None else categories
    pairs = [tuple(rows[np.isfinite(rows[:, k]), k] for rows in (real, drawn)) for k in range(len(names))]
    distances = np.array([(_variation if words[k] else _ks_distance)(*pair) for k, pair in enumerate(pairs)])
    chosen = np.sort(np.argsort(-distances, kind="stable")[:MOST_PANELS])
    if len(chosen) < len(names):
        title += f"; the {MOST_PANELS} of {len(names):,} columns that agree least"
    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    figure = new_figure(max(6.2, 2.5 * across), 1.2 + 1.9 * down, title)
    panels = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, k in zip(panels, chosen, strict=False):
        (_bars if words[k] else _histograms)(axes, *pairs[k], *([words[k]] if words[k] else []))
        plain(axes)
        axes.grid(visible=False)
        measure = "TV" if words[k] else "KS"
        axes.set_title(f"{wrap(names[k], 1.6, LABEL)}: {measure} {distances[k]:.3f}", fontsize=LABEL)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    limit = 1.36 * (1 / len(real) + 1 / len(drawn)) ** 0.5
    note = f"KS: Kolmogorov-Smirnov distance; below {limit:.3f} in 95 % of comparisons of equal distributions"
    legend_below(figure, 2, note + "; TV: total variation distance" * any(map(bool, words)))
    return figure


def _histograms(axes: Axes, real: np.ndarray, drawn: np.ndarray) -> None:
    bins = _bins(real, drawn).tolist()
    axes.hist(real, bins, density=True, color=REAL, label="test")
    axes.hist(drawn, bins, density=True, histtype="step", color=PALETTE[0], linewidth=1.4, label="generated")
    axes.xaxis.set_major_locator(MaxNLocator(4))


def _bars(axes: Axes, real: np.ndarray, drawn: np.ndarray, words: Sequence[str]) -> None:
    """Frequencies of categories, of the most frequent if there are many."""
    shares = [np.bincount(values.astype(int), minlength=len(words)) / max(len(values), 1) for values in (real, drawn)]
    frequent = np.sort(np.argsort(-shares[0], kind="stable")[:MOST_BARS])
    places = np.arange(len(frequent))
    axes.bar(places, shares[0][frequent], 0.8, color=REAL, label="test")
    axes.bar(places, shares[1][frequent], 0.8, fill=False, edgecolor=PALETTE[0], linewidth=1.4, label="generated")
    shown = [words[k] if len(words[k]) <= MOST_LETTERS else f"{words[k][: MOST_LETTERS - 1]}…" for k in frequent]
    crowded = sum(map(len, shown)) + 2 * len(shown) > MOST_WIDTH
    axes.set_xticks(places, shown, rotation=90 if crowded else 0)
    if len(frequent) < len(words):
        axes.set_xlabel(f"{len(frequent)} of {len(words):,} categories", fontsize=TICK)


def _variation(a: np.ndarray, b: np.ndarray) -> float:
    """Half the sum of the differences of the frequencies of categories; 0 if either is empty."""
    if not (len(a) and len(b)):
        return 0.0
    most = int(max(a.max(), b.max())) + 1
    shares = (np.bincount(values.astype(int), minlength=most) / len(values) for values in (a, b))
    return float(0.5 * np.abs(np.subtract(*shares)).sum())


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
        _cloud(axes, rows[:, [x, y]], colour, name)
        axes.set_xlabel(names[x], fontsize=LABEL)
    panels[0].set_ylabel(names[y], fontsize=LABEL)
    return figure


def _cloud(axes: Axes, points: np.ndarray, colour: Any, name: str) -> None:
    """Draw the points without missing values, with their number and correlation as the panel's title."""
    points = points[np.isfinite(points).all(axis=1)]
    plain(axes)
    dots(axes, points, [colour], 4000)
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


def associations(real: np.ndarray, drawn: np.ndarray, names: Sequence[str], title: str, note: str) -> Figure:
    """Draw a matrix of associations of test rows beside that of generated ones.

    Shapes: real, drawn [D, D], from -1 to 1, NaN where there is none; D names.
    """
    shape = (len(names), len(names))
    for argument, matrix in (("real", real), ("drawn", drawn)):
        checks.require(matrix.shape == shape, argument, f"have shape {shape}", matrix.shape)
    side = float(np.clip(0.36 * len(names), 2.4, 5.4))
    off = ~np.eye(len(names), dtype=bool)
    difference = float(np.nanmean(np.abs(real - drawn)[off]))
    figure = new_figure(2 * side + 2.4, side + 1.5, f"{title}; mean absolute difference {difference:.3f}")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, matrix, name in zip(panels, (real, drawn), ("test", "generated"), strict=True):
        image = axes.imshow(matrix, cmap="RdBu_r", vmin=-1, vmax=1)
        axes.set_title(name, fontsize=LABEL)
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=TICK)
        axes.set_yticks(range(len(names)), names, fontsize=TICK)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        for row, column in np.argwhere(off & np.isfinite(matrix)) if len(names) <= MOST_WRITTEN else ():
            value = matrix[row, column]
            text = minus(f"{value:.2f}".replace("-0.00", "0.00")).replace("0.", ".", 1)
            colour = "white" if abs(value) > DARK else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=6.5, color=colour)
    bar = figure.colorbar(image, ax=panels, shrink=0.8, pad=0.02)
    bar.ax.tick_params(labelsize=TICK)
    figure.supxlabel(wrap(note, figure.get_figwidth(), TICK), fontsize=TICK)
    return figure


class ByGroup(NamedTuple):
    """A panel of `by_group`: the mean of a column, or the share of a category, in groups of rows of like condition."""

    condition: str
    column: str
    groups: Sequence[str] | np.ndarray  # [G]  words, or numbers
    real: np.ndarray  # [2, G]  means and their standard errors
    drawn: np.ndarray  # [2, G]


def by_group(panels: Sequence[Sequence[ByGroup]], title: str) -> Figure:
    """Draw means of columns given the condition, of test rows and of rows generated given their conditions.

    A row of panels per condition. Bars are two standard errors each way.
    """
    across = max(map(len, panels))
    figure = new_figure(max(6.2, 3.1 * across), 0.9 + 2.3 * len(panels), title)
    grid = figure.subplots(len(panels), across, squeeze=False)
    for line, row in zip(grid, panels, strict=True):
        for axes in line[len(row) :]:
            axes.set_visible(False)
        for axes, panel in zip(line, row, strict=False):
            words = None if isinstance(panel.groups, np.ndarray) else list(panel.groups)
            places = np.arange(len(words)) if words is not None else np.asarray(panel.groups, float)
            step = 0.12 if words is not None else 0.0
            style: dict[str, Any] = {"capsize": 2, "elinewidth": 1}
            line_style = "none" if words is not None else "-"
            for shift, colour, marker, name, (value, error) in (
                (-step, GREY, "o", "test", panel.real),
                (step, PALETTE[0], "s", "generated", panel.drawn),
            ):
                axes.errorbar(
                    places + shift, value, 2 * error, fmt=marker, color=colour, linestyle=line_style, linewidth=1,
                    markerfacecolor="white" if name == "test" else colour, label=name,
                    markersize=8 if name == "test" else 4.5, **style,  # seen around one that covers it
                )  # fmt: skip
            plain(axes)
            if words is not None:
                crowded = sum(map(len, words)) + 2 * len(words) > MOST_WIDTH
                axes.set_xticks(places, words, rotation=90 if crowded else 0)
                axes.margins(x=0.08)
            else:
                axes.xaxis.set_major_locator(MaxNLocator(5))
            axes.yaxis.set_major_locator(MaxNLocator(5))
            axes.set_xlabel(panel.condition, fontsize=LABEL)
            axes.set_title(wrap(panel.column, 2.6, LABEL), fontsize=LABEL)
    legend_below(figure, 2, "means given the condition; bars are two standard errors each way")
    return figure
