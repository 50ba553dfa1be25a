"""What all figures share: colours, sizes of text, titles, plain axes, and writing to files."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator
from io import BytesIO
from itertools import cycle
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.patheffects import withStroke
from PIL import Image

from cvae import checks

# Petroff 2021: ten colours tested for colour-blind readers; slightly darker, so that the pale ones show on white.
PALETTE = [tuple(0.85 * np.array(to_rgb(colour))) for colour in matplotlib.color_sequences["petroff10"]]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")  # a line is recognisable without its colour
GREY = "0.35"
DASHED = (0, (4, 2))
TITLE, LABEL, TICK = 11, 9, 8  # points
RESOLUTION = 200  # dots per inch


def new_figure(width: float, height: float, title: str) -> Figure:
    """Create a figure, in inches, with its title wrapped to its width; every further line adds to the height."""
    text = wrap(title, width, TITLE)
    layout = ConstrainedLayoutEngine(h_pad=0.08, w_pad=0.08)  # panel titles stay clear of the title
    figure = Figure(figsize=(width, height + 0.18 * text.count("\n")), layout=layout)
    figure.suptitle(text, fontsize=TITLE)
    return figure


def wrap(text: str, width: float, size: float) -> str:
    """Break text of a size in points into lines that fit a width in inches; keeps the line breaks it has."""
    characters = max(10, int(width * 72 / (0.54 * size)))
    return "\n".join(textwrap.fill(line, characters) for line in text.split("\n"))


def plain(axes: Axes, x_label: str = "", y_label: str = "", title: str = "") -> None:
    """Label a panel, and draw small ticks, two spines and a faint grid behind the data."""
    for text, write in ((x_label, axes.set_xlabel), (y_label, axes.set_ylabel), (title, axes.set_title)):
        if text:
            write(text, fontsize=LABEL)
    axes.tick_params(labelsize=TICK, length=3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)


def corner_note(axes: Axes, text: str) -> None:
    """Write into the upper left corner of a panel."""
    note = axes.text(0.03, 0.97, text, transform=axes.transAxes, fontsize=LABEL, va="top")
    note.set_path_effects([withStroke(linewidth=3, foreground="white")])


def legend_below(figure: Figure, columns: int, note: str = "") -> None:
    """Explain the lines of the first panel below all panels, where they hide no data, with a note above them."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    rows = -(-len(names) // columns)
    legend = figure.legend(
        handles,
        names,
        fontsize=TICK,
        loc="outside lower center",
        ncols=-(-len(names) // rows),
        frameon=False,
        title=wrap(note, figure.get_figwidth() - 0.5, TICK),
        title_fontsize=TICK,
    )
    legend.get_title().set_multialignment("center")


def dots(axes: Axes, points: np.ndarray, colours: Any, total: float) -> None:
    """Draw points [N, 2] as dots that cover about `total` square points together."""
    area = float(np.clip(total / max(len(points), 1), 2, 14))
    axes.scatter(points[:, 0], points[:, 1], s=area, c=colours, alpha=0.4, linewidths=0, rasterized=True)


def padded(values: np.ndarray, share: float) -> tuple[float, float]:
    """Return the range of values with a share of its length added on either side, or 1 where they are all equal."""
    margin = share * float(np.ptp(values)) or 1.0
    return float(values.min()) - margin, float(values.max()) + margin


def line_styles() -> Iterator[tuple[tuple[float, ...], str]]:
    """Yield pairs of a colour and a marker without end."""
    return zip(cycle(PALETTE), cycle(MARKERS), strict=False)


def minus(text: str) -> str:
    """Replace hyphens in a formatted number by minus signs, as matplotlib does in ticks."""
    return text.replace("-", "\N{MINUS SIGN}")


def save(figure: Figure, path: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write a figure as PNG and as PDF; returns both paths.

    The PNG has at most 256 colours, which makes scatter plots several times smaller. Text in the PDF is embedded as
    TrueType, as publishers require, and neither file contains a date, so equal figures give equal files.

    Args:
        figure: the figure to write.
        path: the path without its suffix; a suffix .png or .pdf is replaced. Missing folders are created.
    """
    target = checks.path("path", path)
    if target.suffix in (".png", ".pdf"):
        target = target.with_suffix("")
    target.parent.mkdir(parents=True, exist_ok=True)
    png, pdf = target.with_name(f"{target.name}.png"), target.with_name(f"{target.name}.pdf")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=RESOLUTION)
    page = Image.open(buffer).convert("RGB")
    # By coverage: by the median cut, the few pixels of a legend take the colours of the many of a colour bar.
    page.quantize(256, method=Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        png, optimize=True, dpi=(RESOLUTION, RESOLUTION)
    )
    with matplotlib.rc_context({"pdf.fonttype": 42}):
        figure.savefig(pdf, dpi=RESOLUTION, metadata={"CreationDate": None})
    return png, pdf
