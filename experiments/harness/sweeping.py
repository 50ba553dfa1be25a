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
from experiments.harness.run import Examples, Trained, binarized, elbo_summary, likelihood_summary, plain, recorded
from experiments.measures import strokes

Kind = Literal["none", "label", "attribute", "label+attribute", "image"]
Conditioning = Literal["concat", "concat_all", "film"]
MASK: Literal["quadrants_1"] = "quadrants_1"  # of the condition `image`: the lower left quadrant is observed


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
    """All members of a type of condition, as their files describe them."""

    records: list[dict[str, Any]]

    @property
    def seconds(self) -> float:
        """Time of all training steps, without compilation."""
        return float(sum(record["seconds"] for record in self.records))


def experiment(name: str, configs: Mapping[str, Settings]) -> cli.Experiment:
    """An experiment that is a sweep."""
    return cli.Experiment(
        name, configs, models, evaluate, figures, table, examples=examples, load=load, fit=fit_type, facts=facts
    )  # fmt: skip


# What is trained


def load(settings: Settings) -> Dataset:
    """The data set, its strokes measured if a condition needs them; refuses options before that."""
    for option, chosen in (("--conditions", settings.conditions), ("--conditioning", settings.conditioning)):
        once = len(set(chosen)) == len(chosen) > 0
        checks.require(once, option, "be one or more names, each once", " ".join(chosen) or "none")
    several = len(settings.hidden) > 1 or "concat_all" not in settings.conditioning
    checks.require(several, "--conditioning", "be concat where --hidden has a single layer", "concat_all")
    shared, default = settings.training, cvae.Training()
    checks.require(shared.patience is None, "patience", "be None in a sweep", shared.patience)
    checks.require(not shared.frozen, "frozen", "be empty in a sweep", shared.frozen)
    for name in ("beta", "learning_rate"):
        unchanged = getattr(shared, name) == getattr(default, name)
        checks.require(unchanged, name, f"be varied by --{name.replace('_', '-')}s in a sweep", getattr(shared, name))
    dataset = cli.load(settings)
    size = len(dataset.train.x)
    checks.require(shared.batch_size <= size, "batch_size", f"be at most {size} images", shared.batch_size)
    if any("attribute" in condition for condition in settings.conditions):
        train, test = (
            Measured(*split, strokes.measure(split.x, progress=True)) for split in (dataset.train, dataset.test)
        )
        dataset = dataset._replace(train=train, test=test)  # type: ignore[arg-type]
    return dataset


def models(settings: Settings, dataset: Dataset) -> dict[str, cvae.Architecture]:
    """The widest model per type of condition, by name: that of the condition, and of how it enters unless by concat."""
    shape, label = dataset.event_shape, cvae.Label(dataset.num_classes)
    stroke = cvae.Continuous.fitted(dataset.train.stroke, "stroke") if isinstance(dataset.train, Measured) else label
    known: dict[str, cvae.Condition] = {
        "none": cvae.Unconditional(),
        "label": label,
        "attribute": stroke,
        "label+attribute": cvae.Mixed((label, stroke)) if stroke is not label else label,
        "image": cvae.Image(shape, MASK),
    }
    found = {}
    for kind in settings.conditions:
        # Where nothing enters, how does not matter.
        for how in settings.conditioning if kind != "none" else ("concat",):
            name = kind if how == "concat" else f"{kind}_{how}"
            found[name] = cvae.Architecture(
                shape, known[kind], max(settings.sweep.latent_sizes), settings.hidden, conditioning=how
            )
    return found


def examples(architecture: cvae.Architecture, split: Any) -> Examples:
    """A split as a model takes it."""
    arrays = {"label": split.label, "image": split.x, "stroke": getattr(split, "stroke", None)}
    return split.x, {name: arrays[name] for name in architecture.condition.spec}


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
    return Finished([records[member] for member in members])


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
    progress = run.train(together, epochs, like, runs.fingerprint((x, c, [member.name for member in group])))
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
    axes = Member._fields
    return {
        name: {Member(*(record[axis] for axis in axes)).name: record["test"] for record in finished.records}
        for name, finished in members_of(job).items()
    }


def members_of(job: cli.Job) -> dict[str, Finished]:
    """The finished members by type."""
    found: Any = job.trained
    return dict(found)


def facts(job: cli.Job) -> dict[str, Any]:
    """Means over seeds, and what they are of; writes `results.csv` and `results.md`."""
    finished, settings = members_of(job), job.settings
    records = [record for each in finished.values() for record in each.records]
    found = {
        "results": over_seeds(job.run.config.models, finished),
        "examples": len(job.dataset.test.x),
        "member_commits": sorted({str(record["commit"]) for record in records}),
    }
    lines = [line(name, record) for name, each in finished.items() for record in each.records]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    (job.run.out / "results.csv").write_text(text.getvalue(), encoding="utf-8")
    summary = found | {"dataset": job.dataset.name, "settings": recorded(settings)}
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


def over_seeds(architectures: Mapping[str, Any], finished: Mapping[str, Finished]) -> list[dict[str, Any]]:
    """Means and standard deviations over seeds, a row per type, latent size, beta and learning rate.

    `pixels_scored` is "hidden" where the model observes the others. `standard_error` is that of the log-likelihood over
    test images, its root mean square over seeds.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for name, each in finished.items():
        pixels = "hidden" if isinstance(architectures[name].condition, cvae.Image) else "all"
        for record in each.records:
            key = (name, pixels, record["latent_size"], record["beta"], record["learning_rate"])
            groups.setdefault(key, []).append(line(name, record))
    rows = []
    for key, group in groups.items():
        row = dict(zip(("condition", "pixels_scored", "latent_size", "beta", "learning_rate"), key, strict=True))
        error = statistics.mean(each["log_likelihood_error"] ** 2 for each in group) ** 0.5
        row |= {"seeds": len(group), "standard_error": error}
        for quantity in (*SCORES, "seconds"):
            values = [float(each[quantity]) for each in group]
            std = statistics.stdev(values) if len(values) > 1 else None
            row[quantity] = {"mean": statistics.mean(values), "std": std}
        rows.append(row)
    return rows


# Table and figures


def likelihood_of(settings: dict[str, Any]) -> tuple[str, int]:
    """What the importance-weighted estimate is, and the sign with which it is shown."""
    grey = settings["training"]["binarization"] == "none"
    return ("grey cross-entropy", -1) if grey else ("log-likelihood, lower bound", 1)


def table(summary: dict[str, Any]) -> str:
    """The means and spreads as Markdown, with what the numbers are."""
    rows, settings = summary["results"], summary["settings"]
    several = {name: len({row[name] for row in rows}) > 1 for name in ("beta", "learning_rate")}
    hidden, seeds = any(row["pixels_scored"] == "hidden" for row in rows), rows[0]["seeds"]
    quantity, sign = likelihood_of(settings)

    def spread(name: str, digits: int, sign: int = 1) -> list[str]:
        means = [f"{sign * row[name]['mean']:.{digits}f}" for row in rows]
        return [
            mean if row[name]["std"] is None else f"{mean} ± {row[name]['std']:.{digits}f}"
            for mean, row in zip(means, rows, strict=True)
        ]

    columns = {"condition": [row["condition"] for row in rows], "latents": [str(row["latent_size"]) for row in rows]}
    columns |= {name.replace("_", " "): [f"{row[name]:g}" for row in rows] for name, shown in several.items() if shown}
    if hidden:
        columns["pixels scored"] = [row["pixels_scored"] for row in rows]
    columns[quantity] = spread("log_likelihood", 2, sign)
    columns["standard error"] = [f"{row['standard_error']:.2f}" for row in rows]
    columns["effective samples"] = spread("effective_samples", 1)
    columns |= {"rate": spread("rate", 2), "distortion": spread("distortion", 2)}
    columns |= {"active units": spread("active_units", 1), "seconds": spread("seconds", 1)}
    spreads = f"± is the standard deviation over {seeds} seeds." if seeds > 1 else "One seed."
    lines = [
        tables.render(list(columns), list(zip(*columns.values(), strict=True))),
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
    settings, sizes = recorded(job.settings), job.settings.sweep.latent_sizes
    rows, seeds = over_seeds(job.run.config.models, members_of(job)), len(job.settings.sweep.seeds)
    quantity, sign = likelihood_of(settings)
    bars = f"bars: standard deviation over {seeds} seeds" if seeds > 1 else "one seed"

    def title(what: str) -> str:
        return f"{job.dataset.name}: {what}\n{trained_for(settings)}; {bars}"

    panels = {}
    for pixels, suffix, where in (("all", "", ""), ("hidden", "_hidden", " of the hidden pixels")):
        those = [row for row in rows if row["pixels_scored"] == pixels]
        lines, label = by_line(those, sign), f"{quantity}{where} (nats)"
        if len(those) > 1:
            figure = plotting.rate_distortion(lines, title(f"test rate and distortion{where}"))
            yield f"rate_distortion{suffix}", figure
        if those and len(sizes) > 1:
            figure = plotting.against_latent_size(lines, label, title(f"test {quantity}{where}"))
            yield f"log_likelihood{suffix}", figure
        if those:
            panels[label] = {name: (each["value"][0], each["value_error"][0]) for name, each in lines.items()}
    if len(sizes) == 1:
        what = f"test {quantity}, {sizes[0]} latent{'s' * (sizes[0] != 1)}"
        yield "log_likelihood", plotting.by_condition(panels, title(what))


def by_line(rows: list[dict[str, Any]], sign: int) -> dict[str, dict[str, np.ndarray]]:
    """Lines of the charts: per type, beta and learning rate (where there are several), arrays over latent sizes."""
    lines: dict[str, list[dict[str, Any]]] = {}
    several = {name: len({row[name] for row in rows}) > 1 for name in ("beta", "learning_rate")}
    for row in sorted(rows, key=lambda row: int(row["latent_size"])):
        more = [f", {name.replace('_', ' ')} {row[name]:g}" for name, shown in several.items() if shown]
        lines.setdefault(row["condition"] + "".join(more), []).append(row)

    def column(rows: list[dict[str, Any]], name: str, part: str, sign: int = 1) -> np.ndarray:
        return np.array([sign * (row[name][part] or 0.0) for row in rows])

    return {
        name: {
            "latent_size": np.array([row["latent_size"] for row in each]),
            "value": column(each, "log_likelihood", "mean", sign),
            "value_error": column(each, "log_likelihood", "std"),
            "rate": column(each, "rate", "mean"),
            "rate_error": column(each, "rate", "std"),
            "distortion": column(each, "distortion", "mean"),
            "distortion_error": column(each, "distortion", "std"),
        }
        for name, each in lines.items()
    }
