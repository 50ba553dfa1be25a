"""Tables: rows of (label, place in a summary, format), rendered to the terminal and to Markdown by the same code."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple


class Row(NamedTuple):
    """A line of a table: what it is called, where its value is, and how it is written."""

    label: str
    place: str  # keys joined by dots, such as "log_likelihood"
    format: str = "nats"  # a key of FORMATS
    negate: bool = False


def _number(digits: int, unit: str = "", scale: float = 1.0) -> Callable[[Any, int], str]:
    def write(value: Any, sign: int) -> str:
        number, error = parts(value)
        if number is None:  # an estimate of nothing
            return "-"
        spread = "" if error is None or math.isnan(error) else f" ± {scale * error:.{digits}f}"
        return f"{scale * sign * number:.{digits}f}{spread}{unit}"

    return write


def parts(value: Any) -> tuple[float | None, float | None]:
    """A number and its error: an estimate's standard error, or the standard deviation over the seeds of a sweep."""
    if not isinstance(value, dict):
        return value, None
    return (value["mean"], value["std"]) if "mean" in value else (value["value"], value["standard_error"])


FORMATS: dict[str, Callable[[Any, int], str]] = {
    "nats": _number(2),
    "small": _number(4),  # nats per pixel
    "percent": _number(2, " %", 100),
    "correlation": _number(3),
    "one": _number(1),
    "signed": lambda value, sign: f"{sign * value:+.2f}",
    "count": lambda value, _: f"{value:,.0f}",
    "seconds": lambda value, _: f"{value:.0f} s",
    "general": lambda value, _: f"{value:g}",
    "text": lambda value, _: str(value),
}


def cell(row: Row, record: dict[str, Any]) -> str:
    """The value of a row in a record, or a dash where there is none."""
    value: Any = record
    for part in row.place.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return "-" if value is None else FORMATS[row.format](value, -1 if row.negate else 1)


def render(head: Sequence[str], body: Sequence[Sequence[str]], text_columns: int = 1) -> str:
    """A Markdown table with aligned columns; the first columns are text, the others are numbers."""
    lines = [list(head), *map(list, body)]
    widths = [max(3, *(len(line[i]) for line in lines)) for i in range(len(head))]
    text = []
    for line in lines:
        cells = [
            part.ljust(w) if i < text_columns else part.rjust(w)
            for i, (part, w) in enumerate(zip(line, widths, strict=True))
        ]
        text.append("| " + " | ".join(cells) + " |")
    rule = [("-" * w if i < text_columns else "-" * (w - 1) + ":") for i, w in enumerate(widths)]
    return "\n".join([text[0], "| " + " | ".join(rule) + " |", *text[1:]])


def by_model(rows: Sequence[Row], results: dict[str, Any], corner: str = "") -> str:
    """A column per model, a line per row: `results` is {model: record}."""
    return render(
        [corner, *results], [[row.label, *(cell(row, record) for record in results.values())] for row in rows]
    )


def by_row(columns: Sequence[Row], results: dict[str, Any], corner: str = "") -> str:
    """A line per model, a column per row of the specification."""
    head = [corner, *(column.label for column in columns)]
    return render(head, [[name, *(cell(column, record) for column in columns)] for name, record in results.items()])


def with_seconds(summary: dict[str, Any]) -> dict[str, Any]:
    """The test results of a run by model, each with its seconds of training."""
    return {name: record | {"seconds": summary["seconds"][name]} for name, record in summary["test"].items()}


def write_csv(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write records as a line each; one that lacks a column of another has an empty cell there."""
    names = dict.fromkeys(name for record in records for name in record)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(names), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
