"""The results of a sweep: its members line by line, means over seeds, a table and figures."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import plotting, sweeps
from cvae.sweeps import Member
from experiments.harness import cli, tables
from experiments.harness.run import plain, recorded
from experiments.harness.tables import Row

ESTIMATES = ("log_likelihood", "elbo", "rate", "distortion", "effective_samples")
SCORES = (*ESTIMATES, "active_units")
PROTOCOL = ("num_samples", "proposal")
DRAWN = {"value": "log_likelihood", "rate": "rate", "distortion": "distortion"}  # by its name in the charts


class Finished(NamedTuple):
    """All members of a type of condition by name, as their files describe them."""

    records: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Time of all training steps, without compilation."""
        return float(sum(record["seconds"] for record in self.records.values()))


def members_of(job: cli.Job) -> dict[str, Finished]:
    """The finished members by type."""
    found: Any = job.trained
    return dict(found)


def evaluate(job: cli.Job) -> dict[str, Any]:
    """The scores of every member, by type."""
    return {
        name: {member: record["test"] for member, record in finished.records.items()}
        for name, finished in members_of(job).items()
    }


def facts(job: cli.Job) -> dict[str, Any]:
    """Means over seeds, and what they are of; writes `results.csv` and `results.md`."""
    records = [(name, record) for name, each in members_of(job).items() for record in each.records.values()]
    found = {
        "results": plain(over_seeds(job)),
        "examples": len(job.dataset.test.x),
        "member_commits": sorted({str(record["commit"]) for _, record in records}),
    }
    tables.write_csv(job.run.out / "results.csv", [line(name, record) for name, record in records])
    summary = found | {"dataset": job.dataset.name, "settings": recorded(job.settings)}
    (job.run.out / "results.md").write_text(table(summary) + "\n", encoding="utf-8")
    return found


def line(name: str, record: dict[str, Any]) -> dict[str, Any]:
    """A member as a line of `results.csv`."""
    test = record["test"]
    values: dict[str, Any] = {"condition": name} | {axis: record[axis] for axis in Member._fields}
    for quantity in ESTIMATES:
        values |= {quantity: test[quantity]["value"], f"{quantity}_error": test[quantity]["standard_error"]}
    values |= {"active_units": test["active_units"]["active"]} | {entry: test[entry] for entry in PROTOCOL}
    return values | {"seconds": record["seconds"]}


def over_seeds(job: cli.Job) -> list[dict[str, Any]]:
    """Means and standard deviations over seeds, a row per type, latent size, beta and learning rate.

    `pixels_scored` is "hidden" where the model observes the others. `standard_error` is that of the log-likelihood over
    test images, its root mean square over seeds.
    """
    axes = ("condition", "pixels_scored", "latent_size", "beta", "learning_rate")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for name, each in members_of(job).items():
        pixels = "hidden" if isinstance(job.run.config.models[name].condition, cvae.Image) else "all"
        for record in each.records.values():
            member = line(name, record) | {"pixels_scored": pixels}
            groups.setdefault(tuple(member[axis] for axis in axes), []).append(member)
    rows = []
    for key, group in groups.items():
        errors = np.array([member["log_likelihood_error"] for member in group], float)
        row = dict(zip(axes, key, strict=True))
        row |= {"seeds": len(group), "standard_error": np.sqrt(np.mean(errors**2))}
        for quantity in (*SCORES, "seconds"):
            values = np.array([member[quantity] for member in group], float)
            row[quantity] = {"mean": values.mean(), "std": values.std(ddof=1) if len(values) > 1 else None}
        rows.append(row)
    return rows


# Table and figures


def likelihood_of(settings: dict[str, Any]) -> tuple[str, bool]:
    """What the importance-weighted estimate is, and whether its sign is turned where it is shown."""
    grey = settings["training"]["binarization"] == "none"
    return ("grey cross-entropy" if grey else "log-likelihood, lower bound"), grey


def varied(rows: list[dict[str, Any]]) -> list[str]:
    """Which of beta and learning rate have several values."""
    return [name for name in ("beta", "learning_rate") if len({row[name] for row in rows}) > 1]


def table(summary: dict[str, Any]) -> str:
    """The means and spreads as Markdown, with what the numbers are."""
    rows, settings = summary["results"], summary["settings"]
    hidden, seeds = any(row["pixels_scored"] == "hidden" for row in rows), rows[0]["seeds"]
    quantity, negate = likelihood_of(settings)
    columns = [
        Row("condition", "condition", "text"),
        Row("latents", "latent_size", "text"),
        *(Row(name.replace("_", " "), name, "general") for name in varied(rows)),
        *([Row("pixels scored", "pixels_scored", "text")] if hidden else []),
        Row(quantity, "log_likelihood", negate=negate),
        Row("standard error", "standard_error"),
        Row("effective samples", "effective_samples", "one"),
        Row("rate", "rate"),
        Row("distortion", "distortion"),
        Row("active units", "active_units", "one"),
        Row("seconds", "seconds", "one"),
    ]
    body = [[tables.cell(column, row) for column in columns] for row in rows]
    spreads = f"± is the standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    lines = [
        tables.render([column.label for column in columns], body),
        "",
        f"{summary['dataset']}, {summary['examples']:,} test images, {trained_for(settings)}; nats per image. "
        f"{spreads} The {quantity} is importance-weighted with {settings['samples']} samples of z each, from the "
        f"{settings['proposal']}; its standard error is that over test images. Seconds are those of training, without "
        "compilation.",
    ]
    if hidden:
        lines.append(
            "A model that observes a part of the image is scored on the hidden pixels alone: its nats are those of "
            "another event, not comparable with the others'."
        )
    return "\n".join(lines)


def trained_for(settings: dict[str, Any]) -> str:
    """The number of epochs."""
    epochs = settings["training"]["epochs"]
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def figures(job: cli.Job) -> Iterator[tuple[str, Figure]]:
    """Rate and distortion, and the likelihood by latent size or condition; other pixels scored are drawn apart."""
    if any(len(each.records) < len(sweeps.members(job.settings.sweep)) for each in members_of(job).values()):
        print("no figures are drawn before all members are finished")
        return
    settings, sizes, seeds = recorded(job.settings), job.settings.sweep.latent_sizes, len(job.settings.sweep.seeds)
    quantity, negate = likelihood_of(settings)
    bars = f"bars: standard deviation over {seeds} seeds" if seeds > 1 else "one seed"

    def title(what: str) -> str:
        return f"{job.dataset.name}: {what}\n{trained_for(settings)}; {bars}"

    rows, panels = over_seeds(job), {}
    for pixels, suffix, where in (("all", "", ""), ("hidden", "_hidden", " of the hidden pixels")):
        those = [row for row in rows if row["pixels_scored"] == pixels]
        lines, label = by_line(those, -1 if negate else 1), f"{quantity}{where} (nats)"
        if len(those) > 1:
            figure = plotting.rate_distortion(lines, title(f"test rate and distortion{where}"))
            yield f"rate_distortion{suffix}", figure
        if those and len(sizes) > 1:
            figure = plotting.against_latent_size(lines, label, title(f"test {quantity}{where}"))
            yield f"log_likelihood{suffix}", figure
        if those:
            panels[label] = {name: (line["value"][0], line["value_error"][0]) for name, line in lines.items()}
    if len(sizes) == 1:
        what = f"test {quantity}, {sizes[0]} latent{'s' * (sizes[0] != 1)}"
        yield "log_likelihood", plotting.by_condition(panels, title(what))


def by_line(rows: list[dict[str, Any]], sign: int) -> dict[str, dict[str, np.ndarray]]:
    """Lines of the charts: per type, beta and learning rate (where there are several), arrays over latent sizes."""
    lines: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: int(row["latent_size"])):
        more = [f", {name.replace('_', ' ')} {row[name]:g}" for name in varied(rows)]
        lines.setdefault(row["condition"] + "".join(more), []).append(row)
    arrays: dict[str, dict[str, np.ndarray]] = {}
    for name, each in lines.items():
        arrays[name] = {"latent_size": np.array([row["latent_size"] for row in each])}
        for array, quantity in DRAWN.items():
            arrays[name][array] = np.array([row[quantity]["mean"] for row in each])
            arrays[name][f"{array}_error"] = np.array([row[quantity]["std"] or 0.0 for row in each])
        arrays[name]["value"] *= sign
    return arrays
