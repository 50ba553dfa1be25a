"""Charts: training curves, requested against measured attributes, and calibration."""

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
