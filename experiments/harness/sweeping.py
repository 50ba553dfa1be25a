"""Sweeps: members trained and scored one by one, or side by side on an accelerator, then tabulated and drawn.

    config.json                the axes, and one model per type of condition, as wide as the largest latent size
    params/TYPE/MEMBER         the parameters of a member, which `cvae.load(folder, "TYPE/MEMBER")` reads
    members/TYPE/MEMBER.json   its settings and its scores on the test split
    checkpoints/TYPE/MEMBER    the progress of a member that is not finished
    results.csv, results.md    all members, and their means over seeds

The JSON file of a member is written last: where it exists, the member is finished, and a later command in the same
folder does not train it again. Axes may be extended there, and types added. The largest latent size may not change: it
decides how the networks of all members are initialised.
"""

from __future__ import annotations

import csv
import io
import shutil
import statistics
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import checks, fitting, plotting, runs, sweeps, training
from cvae.config import Sizes
from cvae.data.datasets import Dataset
from cvae.settings import Count, CountOrZero
from cvae.sweeps import Member
from experiments.harness import cli, tables
from experiments.harness.run import Trained, binarized, elbo_summary, likelihood_summary, plain, recorded
from experiments.harness.tables import Row
from experiments.measures import strokes

Kind = Literal["none", "label", "attribute", "label+attribute", "image"]
Conditioning = Literal["concat", "concat_all", "film"]
MASK: Literal["quadrants_1"] = "quadrants_1"  # of the condition `image`: the lower left quadrant is observed
FIXED = {  # settings of training that have their defaults
    "patience": "be None",
    "frozen": "be empty",
    "beta": "be varied by --betas",
    "learning_rate": "be varied by --learning-rates",
}


@cvae.setting
class Settings(cli.Settings):
    """Options of a sweep."""

    conditions: tuple[Kind, ...] = ("none", "label", "attribute", "label+attribute", "image")
    """unconditional; on the class; on the stroke's thickness and slant; on both; on the lower left quadrant, scored on
    the others"""
    conditioning: tuple[Conditioning, ...] = ("concat",)
    """how the condition enters: beside the input of the first layer, of every layer, or as scale and shift of every
    layer's outputs"""
    sweep: cvae.Sweep = cvae.Sweep(latent_sizes=(8,), seeds=(0, 1))
    hidden: Sizes = (512,)
    """widths of the ReLU layers"""
    training: cvae.Training = cvae.Training(epochs=10)
    parallel: CountOrZero = 0
    """members trained side by side; 0 is one on a CPU, and all on an accelerator"""
    samples: Count = 100
    """importance samples per image; with another number, finished members are scored again"""
    proposal: Literal["posterior", "prior", "mixture"] = "posterior"
    """distribution of the importance samples; mixture is half posterior, half prior"""


class Measured(NamedTuple):
    """A split of a data set, with the strokes of its images."""

    x: np.ndarray
    label: np.ndarray
    stroke: np.ndarray  # float32 [N, 2], thickness and slant


class Finished(NamedTuple):
    """All members of a type of condition by name, as their files describe them."""

    records: dict[str, dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Time of all training steps, without compilation."""
        return float(sum(record["seconds"] for record in self.records.values()))


def experiment(name: str, configs: Mapping[str, Settings]) -> cli.Experiment:
    """An experiment that is a sweep."""
    return cli.Experiment(name, configs, models, evaluate, figures, table, load=load, fit=fit_type, facts=facts)


# What is trained


def check(settings: Settings) -> None:
    """Refuse what a sweep cannot train."""
    for option, chosen in (("--conditions", settings.conditions), ("--conditioning", settings.conditioning)):
        once = len(set(chosen)) == len(chosen) > 0
        checks.require(once, option, "be one or more names, each once", " ".join(chosen) or "none")
    several = len(settings.hidden) > 1 or "concat_all" not in settings.conditioning
    checks.require(several, "--conditioning", "be concat where --hidden has a single layer", "concat_all")
    for name, rule in FIXED.items():
        value = getattr(settings.training, name)
        checks.require(value == getattr(cvae.Training(), name), name, f"{rule} in a sweep", value)


def load(settings: Settings) -> Dataset:
    """The data set, its strokes measured if a condition needs them."""
    check(settings)  # before a minute of measuring
    dataset = cli.load(settings)
    if any("attribute" in condition for condition in settings.conditions):
        train, test = (
            Measured(*split, strokes.measure(split.x, progress=True)) for split in (dataset.train, dataset.test)
        )
        dataset = dataset._replace(train=train, test=test)  # type: ignore[arg-type]
    return dataset


def models(settings: Settings, dataset: Dataset) -> dict[str, cvae.Architecture]:
    """The widest model per type of condition, by name: that of the condition, and of how it enters unless by concat."""
    shape, label = dataset.event_shape, cvae.Label(dataset.num_classes)
    known = {"none": cvae.Unconditional(), "label": label, "image": cvae.Image(shape, MASK)}
    if isinstance(dataset.train, Measured):
        stroke = cvae.Continuous.fitted(dataset.train.stroke, "stroke")
        known |= {"attribute": stroke, "label+attribute": cvae.Mixed((label, stroke))}
    widest, found = max(settings.sweep.latent_sizes), {}
    for kind in settings.conditions:
        # Where nothing enters, how does not matter.
        for how in settings.conditioning if kind != "none" else ("concat",):
            name = kind if how == "concat" else f"{kind}_{how}"
            found[name] = cvae.Architecture(shape, known[kind], widest, settings.hidden, conditioning=how)
    return found


def fit_type(job: cli.Job, name: str) -> Any:
    """Train and score the members of a type that are not finished; returns `Finished`."""
    members = sweeps.members(job.settings.sweep)
    records = {member: found for member in members if (found := read_member(job, name, member)) is not None}
    if records:
        print(f"{name}: {len(records)} of {len(members)} members are finished")
    parallel = min(job.settings.parallel or sweeps.parallel_members(), len(members))
    # Groups are always the same, whichever of their members are missing, so that results are the same to the bit.
    for group in (members[first : first + parallel] for first in range(0, len(members), parallel)):
        if not records.keys() >= set(group):
            train_group(job, name, group, records)
    return Finished({member.name: records[member] for member in members})


def train_group(job: cli.Job, name: str, group: list[Member], records: dict[Member, dict[str, Any]]) -> None:
    """Train members side by side, or go on with them; score each that has no record yet and add it."""
    run, shared = job.run, job.settings.training
    model, (x, c) = cvae.make(run.config.models[name]), job.split(name, "train")
    own = group[0].training(shared) if len(group) == 1 else shared
    together = f"{name}/{group[0].name}" + (f"_and_{len(group) - 1}_more" if len(group) > 1 else "")

    def begin() -> training.TrainState:
        states = [training.init_state(member.init(model)[0], member.training(shared)) for member in group]
        return states[0] if len(group) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def epochs(start: fitting.Progress | None) -> Iterator[fitting.Progress]:
        return sweeps.group_epochs(model, group, x, c, shared, start)

    like = fitting.Progress(jax.eval_shape(begin), None, [], own)
    try:
        progress = run.train(together, epochs, like, runs.fingerprint((x, c, [member.name for member in group])))
    except FloatingPointError as error:
        raise FloatingPointError(f"{together}: {error}") from None
    for member, one in zip(group, sweeps.split(progress, group), strict=True):
        if member not in records:
            place = f"{name}/{member.name}"
            runs.save_params(run.out, place, one.result)
            run.notes += [f"{place}: {note}" for note in fitting.notes_on(one.history)]
            # The first epoch's time includes compilation, the median's does not.
            seconds = statistics.median_low(epoch.seconds for epoch in one.history) * len(one.history) / len(group)
            scores = score(job, name, one.result)
            sources = {"seconds": seconds, "commit": run.provenance["commit"], "data": run.data}
            records[member] = member._asdict() | {"test": scores} | sources
            write_member(run.out, name, member, records[member])
        if len(group) > 1:
            runs.rewrite_metrics(run.out, f"{name}/{member.name}", one.history)
    if len(group) > 1:
        runs.rewrite_metrics(run.out, together, [])
    shutil.rmtree(run.out / "checkpoints" / together)


# The files of members


def member_file(out: Path, name: str, member: Member) -> Path:
    """The file that describes a finished member."""
    return out / "members" / name / f"{member.name}.json"


def write_member(out: Path, name: str, member: Member, record: dict[str, Any]) -> None:
    """Write the file that says that a member is finished."""
    path = member_file(out, name, member)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs.write_json(path, record)


def read_member(job: cli.Job, name: str, member: Member) -> dict[str, Any] | None:
    """The record of a finished member, scored again if that was done otherwise; None if it is to be trained.

    Warns of a file or of parameters that are damaged or of other data; the member is then trained again.
    """
    path = member_file(job.run.out, name, member)
    if not path.exists():
        return None
    try:
        record = runs.read_json(path)
        whole = isinstance(record, dict) and {*member._fields, "test", "seconds", "commit", "data"} <= record.keys()
        whole = whole and isinstance(record["test"], dict) and {*SCORES, *PROTOCOL} <= record["test"].keys()
        checks.require(whole, path.name, "hold the scores of a member", checks.shown(record))
        same = all(record[axis] == value for axis, value in member._asdict().items())
        checks.require(same, path.name, "hold the member of its name", "another")
        checks.require(record["data"] == job.run.data, path.name, "be of the same data", "a member fitted to others")
        if {entry: record["test"][entry] for entry in PROTOCOL} != protocol(job.settings):
            _, params = cvae.load(job.run.out, f"{name}/{member.name}")
            record["test"] = score(job, name, params)
            write_member(job.run.out, name, member, record)
    except ValueError as error:
        warnings.warn(f"{name}/{member.name} is damaged and is trained again: {error}", stacklevel=1)
        return None
    return dict(record)


# Scores

ESTIMATES = ("log_likelihood", "elbo", "rate", "distortion", "effective_samples")
SCORES = (*ESTIMATES, "active_units")
PROTOCOL = ("num_samples", "proposal")


def protocol(settings: Settings) -> dict[str, Any]:
    """How the likelihood is estimated."""
    return {"num_samples": settings.samples, "proposal": settings.proposal}


def score(job: cli.Job, name: str, params: Any) -> dict[str, Any]:
    """A member's scores on the test split; all members are scored with the same random numbers and targets."""
    settings, data = job.settings, job.split(name, "test")
    if settings.training.binarization != "none":
        data = binarized(*data)
    trained = Trained(cvae.masked(cvae.make(job.run.config.models[name])), params, [], [])
    options = protocol(settings)
    scores = elbo_summary(trained, job.key("test"), *data)
    scores |= likelihood_summary(trained, job.key("test"), *data, **options) | options
    return dict(plain(scores))


def evaluate(job: cli.Job) -> dict[str, Any]:
    """The scores of every member, by type."""
    return {
        name: {member: record["test"] for member, record in finished.records.items()}
        for name, finished in members_of(job).items()
    }


def members_of(job: cli.Job) -> dict[str, Finished]:
    """The finished members by type."""
    found: Any = job.trained
    return dict(found)


def facts(job: cli.Job) -> dict[str, Any]:
    """Means over seeds, and what they are of; writes `results.csv` and `results.md`."""
    records = [(name, record) for name, each in members_of(job).items() for record in each.records.values()]
    found = {
        "results": plain(over_seeds(job)),
        "examples": len(job.dataset.test.x),
        "member_commits": sorted({str(record["commit"]) for _, record in records}),
    }
    lines = [line(name, record) for name, record in records]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    (job.run.out / "results.csv").write_text(text.getvalue(), encoding="utf-8")
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
        for array, quantity, factor in (
            ("value", "log_likelihood", sign), ("rate", "rate", 1), ("distortion", "distortion", 1),
        ):  # fmt: skip
            arrays[name][array] = factor * np.array([row[quantity]["mean"] for row in each])
            arrays[name][f"{array}_error"] = np.array([row[quantity]["std"] or 0.0 for row in each])
    return arrays
