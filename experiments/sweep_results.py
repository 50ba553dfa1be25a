"""The results of a sweep: means over seeds, their table, their figures."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

import cvae
from experiments import study

if TYPE_CHECKING:
    from cvae.config import Architecture
    from experiments.sweep import Finished, Plan


class Spread(NamedTuple):
    """A mean over seeds, and the standard deviation over them; None for a single one."""

    mean: float
    std: float | None


class Row(NamedTuple):
    """The members of a type that differ by their seed alone."""

    condition: str
    pixels_scored: str  # "all", or "hidden" where the model is given the others
    latent_size: int
    beta: float
    learning_rate: float
    seeds: int
    log_likelihood: Spread
    standard_error: float  # of the log-likelihood, over test pictures; root mean square over seeds
    elbo: Spread
    rate: Spread
    distortion: Spread
    active_units: Spread
    seconds: Spread


FIGURES = ("rate_distortion", "rate_distortion_hidden", "log_likelihood", "log_likelihood_hidden")
MEASURED = ("log_likelihood", "elbo", "rate", "distortion", "active_units", "seconds")


def over_seeds(models: Mapping[str, Architecture], finished: Mapping[str, list[Finished]]) -> list[Row]:
    """Means and spreads, a row a type, latent size, beta and learning rate, in the order of the members."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for name, members in finished.items():
        pixels = "hidden" if isinstance(models[name].condition, cvae.Image) else "all"
        for member in members:
            key = (name, pixels, member.latent_size, member.beta, member.learning_rate)
            groups.setdefault(key, []).append(member.row(name))
    rows = []
    for key, group in groups.items():
        spreads: dict[str, Any] = {}
        for quantity in MEASURED:
            values = [float(row[quantity]) for row in group]
            spreads[quantity] = Spread(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)
        error = statistics.mean(row["log_likelihood_error"] ** 2 for row in group) ** 0.5
        rows.append(Row(*key, seeds=len(group), standard_error=error, **spreads))
    return rows


def clear(asked: Plan) -> None:
    """Remove the results of an earlier command in the folder, which are of other members."""
    for name in ("results.csv", "results.md", *(f"figures/{asked.config.dataset}_{name}.png" for name in FIGURES)):
        (asked.out / name).unlink(missing_ok=True)


def report(asked: Plan, kept: study.Study, finished: Mapping[str, list[Finished]]) -> None:
    """Write and draw the results, and print the table."""
    rows = over_seeds(asked.config.models, finished)
    members = [member.row(name) for name, of_type in finished.items() for member in of_type]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(members[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(members)
    (asked.out / "results.csv").write_text(text.getvalue())
    table = markdown(asked, rows)
    (asked.out / "results.md").write_text(table + "\n")
    draw(asked, kept, rows)
    kept.keep(
        results=rows,
        num_samples=asked.num_samples,
        examples=len(asked.dataset.test.x),
        member_commits=sorted({str(member.commit) for of_type in finished.values() for member in of_type}),
        seconds={"training": sum(row["seconds"] for row in members)},
    )
    print(f"\n{table}")
    kept.say_where()


def trained(asked: Plan) -> str:
    """For how long."""
    epochs = asked.config.training.epochs
    return f"{epochs} epoch{'s' if epochs > 1 else ''}"


def markdown(asked: Plan, rows: list[Row]) -> str:
    """The table of means and spreads, with what its numbers are."""
    sweep, events = asked.sweep, {row.pixels_scored for row in rows}

    def cell(spread: Spread, digits: int) -> str:
        return f"{spread.mean:.{digits}f}" if spread.std is None else study.plus_minus(spread, digits)

    columns: dict[str, list[str]] = {
        "condition": [row.condition for row in rows],
        "latents": [str(row.latent_size) for row in rows],
    }
    if len(sweep.betas) > 1:
        columns["beta"] = [f"{row.beta:g}" for row in rows]
    if len(sweep.learning_rates) > 1:
        columns["learning rate"] = [f"{row.learning_rate:g}" for row in rows]
    if "hidden" in events:
        columns["pixels scored"] = [row.pixels_scored for row in rows]
    columns["log-likelihood"] = [cell(row.log_likelihood, 2) for row in rows]
    columns["standard error"] = [f"{row.standard_error:.2f}" for row in rows]
    columns["rate"] = [cell(row.rate, 2) for row in rows]
    columns["distortion"] = [cell(row.distortion, 2) for row in rows]
    columns["active units"] = [cell(row.active_units, 1) for row in rows]
    columns["seconds"] = [cell(row.seconds, 1) for row in rows]
    seeds = len(sweep.seeds)
    notes = [
        f"{asked.config.dataset}, {len(asked.dataset.test.x):,} test pictures, {trained(asked)}; "
        "nats a picture. "
        + (f"+- is the standard deviation over {seeds} seeds; " if seeds > 1 else "One seed; ")
        + f"the log-likelihood is importance-sampled, {asked.num_samples} samples, its standard error that over test "
        "pictures; seconds are of training, without compilation.",
    ]
    if "hidden" in events:
        notes.append(
            "A model that is given a part of the picture is scored on the hidden pixels alone: its nats are those of "
            "another event, not to be compared with the others'."
        )
    return "\n".join([*aligned(columns), "", *notes])


def aligned(columns: dict[str, list[str]]) -> list[str]:
    """The lines of a Markdown table whose columns are of one width; the first is text, the others are numbers."""
    widths = [max(map(len, [title, *cells])) for title, cells in columns.items()]
    lines = []
    for cells in (list(columns), *zip(*columns.values(), strict=True)):
        first, *others = (
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        lines.append("| " + " | ".join([first, *others]) + " |")
    rule = "|" + "|".join("-" * (width + 2) if i == 0 else "-" * (width + 1) + ":" for i, width in enumerate(widths))
    return [lines[0], rule + "|", *lines[1:]]


def draw(asked: Plan, kept: study.Study, rows: list[Row]) -> None:
    """The figures. Models that are scored on other pixels than the rest are drawn apart from them."""
    seeds = len(asked.sweep.seeds)
    bars = f"; bars: standard deviation over {seeds} seeds" if seeds > 1 else "; one seed"
    of_event: dict[str, list[Row]] = {}
    for row in rows:
        of_event.setdefault(row.pixels_scored, []).append(row)

    def title(what: str) -> str:
        return f"{asked.config.dataset}: {what}\n{trained(asked)}{bars}"

    labels = {"all": "log-likelihood (nats)", "hidden": "log-likelihood of the hidden pixels (nats)"}
    for event, those in of_event.items():
        suffix, where = ("", "") if event == "all" else ("_hidden", " of the hidden pixels")
        lines = by_line(those, asked)
        if len(those) > 1:
            figure = cvae.charts.rate_distortion(lines, title(f"test rate and distortion{where}"))
            kept.draw(f"rate_distortion{suffix}", figure)
        if len(asked.sweep.latent_sizes) > 1:
            figure = cvae.charts.against_latent_size(lines, labels[event], title("test log-likelihood"))
            kept.draw(f"log_likelihood{suffix}", figure)
    if len(asked.sweep.latent_sizes) == 1:
        panels = {
            labels[event]: {name: (line["mean"][0], line["spread"][0]) for name, line in by_line(those, asked).items()}
            for event, those in of_event.items()
        }
        latents = f"{asked.sweep.latent_sizes[0]} latent{'s' if asked.sweep.latent_sizes[0] > 1 else ''}"
        kept.draw("log_likelihood", cvae.charts.by_condition(panels, title(f"test log-likelihood, {latents}")))


def by_line(rows: list[Row], asked: Plan) -> dict[str, dict[str, np.ndarray]]:
    """What the charts draw: by type (and by beta and learning rate, if there are several), arrays over latent sizes."""
    sweep = asked.sweep
    lines: dict[str, list[Row]] = {}
    for row in rows:
        beta = f", beta {row.beta:g}" if len(sweep.betas) > 1 else ""
        rate = f", learning rate {row.learning_rate:g}" if len(sweep.learning_rates) > 1 else ""
        lines.setdefault(f"{row.condition}{beta}{rate}", []).append(row)

    def column(line: list[Row], quantity: str, part: str) -> np.ndarray:
        return np.array([getattr(getattr(row, quantity), part) or 0.0 for row in line])

    return {
        name: {
            "latent_size": np.array([row.latent_size for row in line]),
            "mean": column(line, "log_likelihood", "mean"),
            "spread": column(line, "log_likelihood", "std"),
            "rate": column(line, "rate", "mean"),
            "rate_error": column(line, "rate", "std"),
            "distortion": column(line, "distortion", "mean"),
            "distortion_error": column(line, "distortion", "std"),
        }
        for name, unsorted in lines.items()
        for line in [sorted(unsorted, key=lambda row: row.latent_size)]
    }
