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
