"""What the sweeps share: members trained and scored one by one, kept in a run folder, then tabled and drawn.

    config.json                the axes, and a model a type of condition, as wide as the largest latent size
    members/TYPE/NAME.json     a finished member: its settings, scores, history and time
    progress/TYPE/NAME         what a member goes on from that is not finished
    checkpoints/TYPE/NAME      its parameters, which `cvae.load(folder, "TYPE/NAME")` reads
    results.csv, results.md    all members, and their means over seeds
    summary.json, figures/     the means with where they came from; pictures

The file of a member is written last, so where it is the member is finished, and is not trained again by a later
command in the same folder. Axes may be extended there, and types added. The largest latent size may not change: it
decides how a member's networks start, so a wider sweep of the same seeds has other members, and is refused.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import interruption, study, sweep_results

if TYPE_CHECKING:
    from tqdm.auto import tqdm

    from cvae.conditions import Condition
    from cvae.config import Config, Sweep
    from cvae.data import Dataset, Split
    from cvae.model import CVAE
    from cvae.networks import Params
    from cvae.sweeps import Member, Progress, Trained

Kind = Literal["none", "label", "attribute", "label+attribute", "image"]
How = Literal["concat", "concat_all", "film"]
MASK = "quadrants_1"  # of the condition `image`: the lower left quadrant is seen


@dataclass(frozen=True)
class Types:
    """Types of conditions, a compiled program each."""

    conditions: tuple[Kind, ...] = ("none", "label", "attribute", "label+attribute", "image")
    """nothing, the class, the stroke's thickness and slant, both, or the lower left quadrant (scored on the others)"""
    conditioning: tuple[How, ...] = ("concat",)
    """how it enters: beside the input, beside that of every layer, or scaling and shifting every layer's outputs"""


@dataclass(frozen=True)
class Axes:
    """What the members of a type vary: every combination is one."""

    latent_sizes: tuple[int, ...] = (8,)
    """numbers of latent dimensions"""
    seeds: tuple[int, ...] = (0, 1)
    """sources of randomness, over which means and spreads are taken"""
    betas: tuple[float, ...] = (1.0,)
    """weights of the KL in the loss; 1 is the ELBO"""
    learning_rates: tuple[float, ...] = (1e-3,)
    """Adam's step sizes"""


@dataclass(frozen=True)
class Fitting:
    """How they are trained."""

    hidden: tuple[int, ...] | None = None
    """widths of the ReLU layers; 512 if left out, 256 on the 8x8 digits"""
    epochs: int | None = None
    """passes over the training pictures; 10 if left out, 100 on the 8x8 digits"""
    batch_size: int = 50
    """pictures a step"""
    at_once: int | None = None
    """members trained side by side; 1 on a CPU and all on an accelerator if left out"""


@dataclass(frozen=True)
class Output(study.Output):
    """How they are scored, and what is left behind."""

    num_samples: int = 100
    """importance samples of the log-likelihood; with another number than before, finished members are scored again"""


@dataclass(frozen=True)
class Settings:
    """Options of a sweep."""

    data: study.Data = field(default_factory=study.Data)
    types: Types = field(default_factory=Types)
    axes: Axes = field(default_factory=Axes)
    fitting: Fitting = field(default_factory=Fitting)
    output: Output = field(default_factory=Output)


class Preset(NamedTuple):
    """What a data set wants where the command line says nothing."""

    epochs: int
    hidden: tuple[int, ...]


ARTICLE = Preset(epochs=10, hidden=(512,))
PRESETS = {"digits": Preset(epochs=100, hidden=(256,))}
SMOKE = Preset(epochs=2, hidden=(16,))


@dataclass(frozen=True)
class Scores:
    """A member on the test split, in nats a picture; errors are standard errors over pictures."""

    log_likelihood: float  # importance-sampled log p(x | c)
    log_likelihood_error: float
    elbo: float
    elbo_error: float
    rate: float
    rate_error: float
    distortion: float
    distortion_error: float
    effective_samples: float
    active_units: int
    num_samples: int


@dataclass(frozen=True)
class Finished:
    """What is kept of a member; its file holds these fields."""

    latent_size: int
    seed: int
    beta: float
    learning_rate: float
    test: Scores
    history: dict[str, tuple[float, ...]]  # running means of the training terms, by name, an epoch each
    seconds: float  # of training, without compilation; of those trained side by side, its share
    commit: str | None

    def row(self, name: str) -> dict[str, Any]:
        """The member as a line of `results.csv`."""
        axes = {axis: getattr(self, axis) for axis in ("latent_size", "seed", "beta", "learning_rate")}
        return {"condition": name, **axes, **asdict(self.test), "seconds": self.seconds}


class Plan(NamedTuple):
    """What a command asks for."""

    config: Config
    sweep: Sweep
    dataset: Dataset
    given: dict[str, dict[str, dict[str, Any]]]  # by split and type, the raw conditions
    at_once: int | None
    num_samples: int
    out: Path
    save_every: int | None


def plan(experiment: str, settings: Settings) -> Plan:
    """Turn the options into a config, its data and a run folder, refusing what cannot work; writes nothing."""
    types, axes, fitting, output = settings.types, settings.axes, settings.fitting, settings.output
    require = cvae.checks.require
    for option, chosen in (("--conditions", types.conditions), ("--conditioning", types.conditioning)):
        once = len(set(chosen)) == len(chosen) > 0
        require(once, option, "be one or more names, each once", " ".join(chosen) or "none")
    if fitting.at_once is not None:
        cvae.checks.whole_number("--at-once", fitting.at_once)
    cvae.checks.whole_number("--num-samples", output.num_samples)
    sweep = cvae.Sweep(axes.latent_sizes, axes.seeds, axes.betas, axes.learning_rates)
    dataset = study.read(settings.data, output.smoke)
    preset = SMOKE if output.smoke else PRESETS.get(dataset.name, ARTICLE)
    hidden = preset.hidden if fitting.hidden is None else fitting.hidden
    epochs = preset.epochs if fitting.epochs is None else fitting.epochs
    training = cvae.Training(epochs=epochs, batch_size=fitting.batch_size)
    shape = dataset.train.x.shape[1:]
    plain = cvae.Architecture(shape, cvae.Nothing(), max(sweep.latent_sizes), hidden)
    cvae.training.check_fit(cvae.make(plain), dataset.train.x, {}, training)
    # A condition enters hidden layers only; where there is one, "every layer" would be "concat" by another name.
    distinct = len(hidden) > 1 or "concat_all" not in types.conditioning
    require(distinct, "--conditioning", "name concat_all only where --hidden has more than one layer", len(hidden))

    raw = {"train": raw_conditions(dataset.train, types), "test": raw_conditions(dataset.test, types)}
    stroke = cvae.Continuous.fitted(raw["train"]["stroke"], "stroke") if "stroke" in raw["train"] else None
    models = {
        name: cvae.Architecture(shape, condition, plain.latent_size, hidden, conditioning=how)
        for name, condition, how in named(types, shape, dataset.num_classes, stroke)
    }
    config = cvae.config.Config(experiment, dataset.name, 0, training, models, sweep)
    out = study.folder(experiment, dataset.name, output.smoke, output.out)
    study.check_free(out, config, output)
    given = {
        split: {
            name: {key: c[key] for key in architecture.condition.stored_names} for name, architecture in models.items()
        }
        for split, c in raw.items()
    }
    for name, architecture in models.items():
        cvae.model.check_examples(cvae.make(architecture), dataset.train.x, given["train"][name])
        cvae.model.check_examples(cvae.make(architecture), dataset.test.x, given["test"][name])
    return Plan(config, sweep, dataset, given, fitting.at_once, output.num_samples, out, output.save_every)


def raw_conditions(split: Split, types: Types) -> dict[str, Any]:
    """All that a model may be told of a split's pictures: labels, and strokes if a type asks for them."""
    asked = any("attribute" in condition for condition in types.conditions)
    strokes = {"stroke": cvae.attributes.measure(split.x, progress=True)} if asked else {}
    return {"label": split.label, **strokes}


def named(types: Types, shape: tuple[int, ...], classes: int, stroke: Any) -> list[tuple[str, Condition, How]]:
    """The name, the condition and the way in of every type: a condition's own name if it is concatenated."""
    known: dict[Kind, Callable[[], Condition]] = {
        "none": cvae.Nothing,
        "label": lambda: cvae.Label(classes),
        "attribute": lambda: stroke,
        "label+attribute": lambda: cvae.Mixed(label=cvae.Label(classes), stroke=stroke),
        "image": lambda: cvae.Image(shape, MASK),
    }
    found = []
    for condition in types.conditions:
        # Nothing enters in no way, so it is there once.
        for how in ("concat",) if condition == "none" else types.conditioning:
            name = condition if how == "concat" else f"{condition}_{how}"
            found.append((name, known[condition](), how))
    return found


def run(experiment: str, settings: Settings) -> Path:
    """Train and score the members that are not finished, then table and draw all; returns the run folder."""
    asked = plan(experiment, settings)
    with study.Study(asked.config, asked.out, settings, asked.dataset) as kept:
        sweep_results.clear(asked)
        finished = complete(asked, kept)
        sweep_results.report(asked, kept, finished)
    return asked.out


def complete(asked: Plan, kept: study.Study) -> dict[str, list[Finished]]:
    """Every member of every type, those that are not in the folder trained and scored first."""
    from tqdm.auto import tqdm

    members = cvae.sweeps.members(asked.sweep)
    finished: dict[str, dict[Member, Finished]] = {}
    for name in asked.config.models:
        read = {member: read_member(asked, name, member) for member in members}
        finished[name] = {member: found for member, found in read.items() if found is not None}
    done, total = sum(map(len, finished.values())), len(members) * len(finished)
    if done > 0:
        print(f"{done} of {total} members are finished already")
    training = asked.config.training
    with tqdm(total=(total - done) * training.epochs, unit="epoch", disable=done == total) as bar:
        for name, architecture in asked.config.models.items():
            missing = [member for member in members if member not in finished[name]]

            def keep(trained: Trained, name: str = name) -> None:
                if trained.member in finished[name]:
                    return
                bar.set_postfix_str(f"scoring {trained.member.name}")
                finished[name][trained.member] = keep_member(asked, kept, name, trained)
                bar.set_postfix_str("")

            if missing:
                bar.set_description(f"{name} on {asked.config.dataset}")
                x, c = asked.dataset.train.x, asked.given["train"][name]
                model, fit_members = cvae.make(architecture), cvae.sweeps.fit_members
                # An epoch that is thrown away, so that nobody's seconds hold the compilation.
                once, at_once = replace(training, epochs=1), asked.at_once or cvae.sweeps.side_by_side()
                first = groups(members, missing, at_once)[0]
                bar.set_postfix_str("compiling")
                fit_members(model, first, x, c, once, at_once=len(first), progress=False)
                bar.set_postfix_str("")
                with interruption.deferred() as stop:
                    for group in groups(members, missing, at_once):
                        train_group(asked, name, model, group, (x, c), keep, bar, stop)
    return {name: [of_type[member] for member in members] for name, of_type in finished.items()}


def groups(members: list[Member], missing: list[Member], at_once: int) -> list[list[Member]]:
    """Those trained side by side: always the same, whichever of them are missing, and so to the bit alike."""
    at_once = min(at_once, len(members))
    whole = [members[first : first + at_once] for first in range(0, len(members), at_once)]
    return [group for group in whole if set(group) & set(missing)]


def train_group(
    asked: Plan,
    name: str,
    model: CVAE,
    group: list[Member],
    train: study.Examples,
    keep: Callable[[Trained], None],
    bar: tqdm,
    stop: Callable[[], int | None],
) -> None:
    """Train members side by side, or go on with them, and keep them."""
    import jax

    training = asked.config.training
    folder = asked.out / "progress" / name / group[0].name
    facts = study.facts(train) | {"members": [member.name for member in group]}
    saver = cvae.runs.Saver(folder, facts, save_every=asked.save_every, asked=stop)
    inert, seeds = cvae.masked(model), np.zeros(len(group), np.uint32)
    masks = np.ones((len(group), asked.config.models[name].latent_size), np.float32)
    program = cvae.training.recipe(training)
    found = saver.found(jax.eval_shape(partial(cvae.sweeps.begin, inert, training=program), masks, seeds))

    def resume(_: list[Member]) -> Progress | None:
        if found is None:
            return None
        history = [[cvae.evaluation.Terms(*terms) for terms in epoch] for epoch in found.record["history"]]
        return cvae.sweeps.Progress(found.arrays, history, found.record["seconds"])

    def after(_: list[Member], progress: Progress) -> None:
        epoch = len(progress.history)
        record = {"history": study.plain([list(map(tuple, row)) for row in progress.history])}
        loss = sum(terms.loss for terms in progress.history[-1]) / len(group)
        last = epoch == training.epochs
        record |= {"seconds": progress.seconds}
        saver.after(epoch, progress.states, record, loss, last=last, name=f"{name}/{group[0].name}")

    with saver:
        cvae.sweeps.fit_members(
            model,
            group,
            *train,
            training,
            at_once=len(group),
            on_trained=keep,
            on_epoch=after,
            resume=resume,
            progress=bar,
        )
    shutil.rmtree(folder)


def member_file(out: Path, name: str, member: Member) -> Path:
    """Where a finished member is kept."""
    return out / "members" / name / f"{member.name}.json"


def keep_member(asked: Plan, kept: study.Study, name: str, trained: Trained) -> Finished:
    """Save a member's parameters, score it on the test split, and write its file last."""
    cvae.runs.save(asked.out, f"{name}/{trained.member.name}", trained.params)
    terms = cvae.evaluation.Terms._fields
    finished = Finished(
        **trained.member._asdict(),
        test=score(asked, name, trained.params),
        history=dict(zip(terms, zip(*trained.history, strict=True), strict=True)),
        seconds=trained.seconds,
        commit=kept.provenance["commit"],
    )
    write_member(asked, name, trained.member, finished)
    return finished


def write_member(asked: Plan, name: str, member: Member, finished: Finished) -> None:
    """Write the file that says that a member is finished."""
    path = member_file(asked.out, name, member)
    path.parent.mkdir(parents=True, exist_ok=True)
    cvae.runs.write_json(path, cvae.config.to_json(finished))


def read_member(asked: Plan, name: str, member: Member) -> Finished | None:
    """What is kept of a member, scored again if its score is of another number of samples; None if it is to be trained.

    Warns of a file or of parameters that are damaged, and has such a member trained again.
    """
    path = member_file(asked.out, name, member)
    if not path.exists():
        return None
    try:
        finished = cvae.config.from_json(Finished, json.loads(path.read_text()), path.name)
        right = all(getattr(finished, axis) == value for axis, value in member._asdict().items())
        cvae.checks.require(right, path.name, "hold the member of its name", "another")
        if finished.test.num_samples != asked.num_samples:
            _, params, _ = cvae.load(asked.out, f"{name}/{member.name}")
            finished = replace(finished, test=score(asked, name, params))
            write_member(asked, name, member, finished)
    except ValueError as error:
        warnings.warn(f"{name}/{member.name} is damaged and will be trained again: {error}", stacklevel=1)
        return None
    return finished


def score(asked: Plan, name: str, params: Params) -> Scores:
    """A member on the test split. All are scored with the same random numbers."""
    import jax

    model = cvae.masked(cvae.make(asked.config.models[name]))
    bound_key, likelihood_key = jax.random.split(jax.random.key(asked.config.seed))
    x, c = asked.dataset.test.x, asked.given["test"][name]
    found = study.bound(model, params, bound_key, x, c) | study.likelihood(
        model, params, likelihood_key, x, c, num_samples=asked.num_samples, progress=False
    )
    estimates: dict[str, float] = {}
    for quantity in ("log_likelihood", "elbo", "rate", "distortion"):
        estimates |= {quantity: found[quantity].value, f"{quantity}_error": found[quantity].standard_error}
    return Scores(
        **estimates,
        effective_samples=found["effective_samples"].value,
        active_units=found["active_units"]["active"],
        num_samples=asked.num_samples,
    )
