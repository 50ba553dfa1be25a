"""Sweeps: members trained and scored one by one, or side by side on an accelerator.

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

import os
import shutil
import statistics
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import cvae
from cvae import checks, locks, loop, runs, sweeps, training
from cvae.config import Sizes
from cvae.data.datasets import Dataset
from cvae.settings import Count, CountOrZero
from cvae.sweeps import Member
from experiments.harness import cli, sweep_results
from experiments.harness.run import Proposal, Trained, binarized, elbo_summary, likelihood_summary, plain
from experiments.harness.sweep_results import PROTOCOL, SCORES, Finished
from experiments.measures import strokes

Kind = Literal["none", "label", "attribute", "label+attribute", "image"]
Conditioning = Literal["concat", "concat_all", "film"]
MASK: Literal["quadrants_1"] = "quadrants_1"  # of the condition `image`: the lower left quadrant is observed
WAIT = 5  # seconds between looks at what other processes have finished
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
    shard: str | None = None
    """K/N, such as 3/16: only the K-th of N shares of the members; slurm takes both from the variables of SLURM's job
    arrays"""
    parallel: CountOrZero = 0
    """members trained side by side; 0 is one on a CPU, and all on an accelerator"""
    samples: Count = 100
    """importance samples per image; with another number, finished members are scored again"""
    proposal: Proposal = "posterior"
    """distribution of the importance samples; mixture is half posterior, half prior"""


class Measured(NamedTuple):
    """A split of a data set, with the strokes of its images."""

    x: np.ndarray
    label: np.ndarray
    stroke: np.ndarray  # float32 [N, 2], thickness and slant


def experiment(name: str, configs: Mapping[str, Settings]) -> cli.Experiment:
    """An experiment that is a sweep."""
    results = sweep_results
    return cli.Experiment(
        name, configs, models, results.evaluate, results.figures, results.table, load=load, fit=fit_type,
        facts=results.facts,
    )  # fmt: skip


# What is trained


def check(settings: Settings) -> None:
    """Refuse what a sweep cannot train."""
    share(settings)
    checks.require(not settings.distributed, "--distributed", "be left out of a sweep (see --shard)", True)
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
    """Train and score the members of a type that are not finished; returns `Finished`.

    Other processes may do the same: each trains groups that no other is training, and waits for the last of these.
    """
    members = sweeps.members(job.settings.sweep)
    records = read_members(job, name, members)
    if records:
        print(f"{name}: {len(records)} of {len(members)} members are finished")
    parallel = min(job.settings.parallel or sweeps.parallel_members(), len(members))
    # Groups are always the same, whichever of their members are missing, so that results are the same to the bit.
    groups = [members[first : first + parallel] for first in range(0, len(members), parallel)]
    number, count = share(job.settings)
    groups = groups[number - 1 :: count]
    while groups := [group for group in groups if not records.keys() >= set(group)]:
        before = len(records)
        for group in groups:
            with locks.claim(job.run.out / "locks" / name / group[0].name) as is_free:
                if is_free:
                    records |= read_members(job, name, group)  # another process may just have finished it
                    if not records.keys() >= set(group):
                        train_group(job, name, group, records)
        if len(records) == before:
            print(f"{name}: waiting for other processes, which train the last {len(groups)} groups", flush=True)
            time.sleep(WAIT)
            for group in groups:
                records |= read_members(job, name, group)
    records |= read_members(job, name, [member for member in members if member not in records])
    return Finished({member.name: records[member] for member in members if member in records})


def share(settings: Settings) -> tuple[int, int]:
    """The number of this process's share, from 1 on, and how many there are."""
    if settings.shard is None:
        return 1, 1
    rule = "be K/N with K from 1 to N, such as 3/16, or slurm in a job array of SLURM"
    text = settings.shard
    try:
        if text == "slurm":
            first, count = (int(os.environ[f"SLURM_ARRAY_TASK_{name}"]) for name in ("MIN", "COUNT"))
            number = int(os.environ["SLURM_ARRAY_TASK_ID"]) - first + 1
        else:
            number, count = (int(part) for part in text.split("/"))
    except (KeyError, ValueError):
        raise ValueError(f"--shard must {rule}, got {text}") from None
    checks.require(1 <= number <= count, "--shard", rule, text)
    return number, count


def read_members(job: cli.Job, name: str, members: list[Member]) -> dict[Member, dict[str, Any]]:
    """The records of those that are finished."""
    return {member: found for member in members if (found := read_member(job, name, member)) is not None}


def train_group(job: cli.Job, name: str, group: list[Member], records: dict[Member, dict[str, Any]]) -> None:
    """Train members side by side, or go on with them; score each that has no record yet and add it."""
    run, shared = job.run, job.settings.training
    model, (x, c) = cvae.make(run.config.models[name]), job.split(name, "train")
    own = group[0].training(shared) if len(group) == 1 else shared
    together = f"{name}/{group[0].name}" + (f"_and_{len(group) - 1}_more" if len(group) > 1 else "")

    def begin() -> training.TrainState:
        states = [training.init_state(member.init(model)[0], member.training(shared)) for member in group]
        return states[0] if len(group) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)

    def calls(start: loop.Progress | None) -> Iterator[loop.Progress]:
        return sweeps.group_epochs(model, group, x, c, shared, start, within=True)

    like = loop.Progress(jax.eval_shape(begin), None, [], own)
    try:
        progress = run.train(together, calls, like, runs.fingerprint((x, c, [member.name for member in group])))
    except FloatingPointError as error:
        raise FloatingPointError(f"{together}: {error}") from None
    for member, one in zip(group, sweeps.split(progress, group), strict=True):
        if member not in records:
            place = f"{name}/{member.name}"
            runs.save_params(run.out, place, one.result)
            run.notes += [f"{place}: {note}" for note in loop.notes_on(one.history)]
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
