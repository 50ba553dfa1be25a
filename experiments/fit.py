"""A conditional VAE of your own data: a table, arrays or a folder of images, conditioned on what you choose.

    python -m experiments.fit --data diamonds.csv --condition cut --condition carat
    python -m experiments.fit --data mine.npz --x pixels --condition label=digit --condition continuous=age
    python -m experiments.fit --data images/ --condition species

A table (.csv, .parquet) has a line of names. The kind of each column is inferred and printed with its reason;
`--column price=positive` corrects one, `--schema schema.json` takes all from an earlier run. Missing cells are left out
of the likelihood, and a condition that may be missing is `--optional NAME`.

Arrays come in an .npz file, as `numpy.savez("mine.npz", pixels=..., digit=..., age=...)` writes it, or one alone in an
.npy file; nothing in them is ever executed. Images are [N, H, W] or [N, H, W, C], rows [N, D]. A condition is one of

    label=NAME         integers [N], from 0 on
    continuous=NAME    real numbers [N] or [N, D], standardised
    image=MASK         the observed part of x: a mask of `cvae.masks`, such as top_half, or the name of a boolean array
                       [N, ...] or [...], True where x is observed; the rest is predicted

A folder holds images (.png, .jpg) of one size, and a `labels.csv` with the names of the files in one column; others
may be conditions.

Data larger than the memory stay on disk with `--stream`: an .npy file, a folder that holds each array as NAME.npy, or
in parts as NAME/*.npy, a .parquet file, or a folder of them.

`--condition` may be repeated; without any, the model is a plain VAE. Defaults of the other options depend on the data:
`--data mine.npz --help` shows them. Nats are those of x in the units of the file, and a fitted model takes x and gives
draws in them:

    model, params = cvae.load("runs/fit_mine")
    images = cvae.sample(model, params, key, {"digit": digits, "age": ages[:, None]})  # draws; mean=True gives means
    nats = cvae.log_likelihood(model, params, key, images, {"digit": digits, "age": ages[:, None]})

Of a table, the model takes data frames: `cvae.log_likelihood(model, params, key, frame, {})`.
"""

from __future__ import annotations

import dataclasses
import math
import shlex
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np

import cvae
from cvae import checks, evaluation, runs
from cvae.classification import labels_of
from cvae.columns import Column
from cvae.data import parquet_files
from cvae.settings import Count, CountOrZero
from cvae.tables import SUFFIXES
from experiments import harness
from experiments.harness import Row, cli, files, tables, user_arrays, user_streams, user_tables
from experiments.harness.run import binarized
from experiments.harness.user_data import Input, UserData, base_of
from experiments.harness.user_figures import figures
from experiments.measures import baselines

# Defaults for tables
TABLE_STEPS = (3_500, 6_000)  # of training: the first for small tables, the second for those of 60,000 rows and more
TABLE_ARCHITECTURE = cvae.Architecture(body="residual", hidden=(256, 256), latent_size=16)
TABLE_TRAINING = cvae.Training(
    batch_size=200, learning_rate=1e-3, schedule="warmup_cosine", clip_norm=10.0, ema_decay=0.999
)
TABLE_SAMPLES = 100  # importance samples per row

# Defaults for arrays
STEPS = 20_000  # of training
LARGE = 256  # elements of x from which an image is large

WIDEST = 400  # numbers of a row and its condition, beyond which a Gaussian is not fitted
BASELINES = {"independent": "independent columns", "gaussian": "linear Gaussian"}


@cvae.setting
class Settings(Input):
    """Options of the experiment."""

    architecture: cvae.Architecture = cvae.Architecture()
    training: cvae.Training = cvae.Training()
    samples: Count = 500
    """importance samples per example"""
    proposal: Literal["posterior", "prior", "mixture"] = "posterior"
    """distribution of the importance samples; mixture is half posterior, half prior"""


@cvae.setting
class Which(Input):
    """The options that decide the defaults of the others."""

    body: str | None = None
    batch_size: CountOrZero = 0


def load(options: Input) -> UserData:
    """Read the data that the options name, by the kind of file."""
    path = options.data
    checks.require(options.stream or not options.skip_damaged, "--skip-damaged", "come with --stream", True)
    if options.stream:
        return user_streams.load(options)
    on_disk = path.is_dir() and (files.is_of_arrays(path) or bool(parquet_files(path)))
    checks.require(not on_disk, "--stream", f"be given for {path}, a folder of .npy or .parquet files", False)
    if path.suffix in SUFFIXES and not path.is_dir():
        return user_tables.load(options)
    known = path.is_dir() or path.suffix in (".npz", ".npy")
    checks.require(known, "--data", "be a .csv, .parquet, .npz or .npy file, or a folder of images", path)
    return user_arrays.load(options)


def preset(which: Which, data: UserData) -> Settings:
    """The settings that are the defaults for these data."""
    fields = {field.name: getattr(which, field.name) for field in dataclasses.fields(Input)}
    fields["out"] = which.out or Path("runs") / f"fit_{data.name}"
    if data.schema is not None:
        return _table_preset(which, data, fields)
    size, count = math.prod(data.event_shape), len(data.train[0])
    hidden: tuple[int, ...] = (512,) if size >= LARGE else (256,)
    if which.body == "convolutional":
        hidden = (32, 64, 256)
    elif data.what == "row":
        hidden = (128, 128)
    batch = which.batch_size or max(1, min(100, count // 10))
    epochs = min(500, max(20, STEPS * batch // count))
    training = cvae.Training(
        epochs=epochs,
        batch_size=batch,
        patience=max(10, epochs // 10),
        clip_norm=10.0 if isinstance(base_of(data.likelihood), cvae.Normal) else None,
    )
    architecture = cvae.Architecture(latent_size=min(16, size), hidden=hidden, **_shapes(data))
    return Settings(**fields, architecture=architecture, training=training)


def _table_preset(which: Which, data: UserData, fields: dict[str, Any]) -> Settings:
    """The settings that are the defaults for a table."""
    count = len(data.train[0])
    batch = which.batch_size or max(1, min(TABLE_TRAINING.batch_size, count // 10))
    steps = min(max(count // 10, TABLE_STEPS[0]), TABLE_STEPS[1])
    epochs = min(500, max(2, round(steps * batch / count)))
    training = cvae.replace(TABLE_TRAINING, epochs=epochs, batch_size=batch, patience=max(10, epochs // 4))
    architecture = cvae.replace(TABLE_ARCHITECTURE, **_shapes(data))
    if data.condition.spec:  # there must be something for the prior to depend on
        architecture = cvae.replace(architecture, prior="learned")
    return Settings(**fields, architecture=architecture, training=training, samples=TABLE_SAMPLES)


def _shapes(data: UserData) -> dict[str, Any]:
    return {"event_shape": data.event_shape, "condition": data.condition}


def models(settings: Settings, data: UserData) -> dict[str, cvae.Architecture]:
    """One model."""
    hides = settings.training.hide_prob > 0 and not isinstance(data.likelihood, cvae.Missing)
    likelihood = cvae.Missing(data.likelihood) if hides else data.likelihood
    fields = _shapes(data) | {"likelihood": likelihood, "schema": data.schema}
    name = "cvae" if data.condition.spec else "vae"
    return {name: cvae.replace(settings.architecture, **fields)}


def check(settings: Settings, data: UserData) -> None:
    """Refuse settings of training that do not suit the data."""
    training, count = settings.training, len(data.train[0])
    checks.require(training.batch_size <= count, "batch_size", f"be at most {count} rows", training.batch_size)
    family = type(data.likelihood)
    binary = training.binarization == "none" or family in (cvae.Bernoulli, cvae.ContinuousBernoulli)
    rule = f"be none for a {family.__name__.lower()} likelihood"
    checks.require(binary, "binarization", rule, training.binarization)
    checks.require(training.shift == 0 or data.what == "image", "shift", f"be 0 for a {data.what}", training.shift)
    checks.require(not training.frozen, "frozen", "be empty", training.frozen)


def train(job: harness.Job, name: str) -> harness.Trained:
    """Fit the model, add the notes on the data to the summary, and write the schema of a table."""
    data: Any = job.dataset
    job.run.notes += data.notes
    if data.schema is not None:
        runs.write_json(job.run.out / "schema.json", cvae.settings.to_json(data.schema))
    return job.fit(name)


def evaluate(job: harness.Job) -> dict[str, Any]:
    """The bounds on the test part, and baselines for rows."""
    ((name, trained),) = job.trained.items()
    data: Any = job.dataset
    examples, settings = data.test, job.settings
    if settings.training.binarization != "none":
        examples = binarized(*examples)
    options = {"num_samples": settings.samples, "proposal": settings.proposal}
    test = harness.elbo_summary(trained, job.key("test"), *examples)
    test |= harness.likelihood_summary(trained, job.key("test"), *examples, **options)
    if type(data.likelihood) in (cvae.CategoricalPixels, cvae.DiscretizedLogistic):
        bits = math.prod(data.event_shape) * math.log(2)
        test["bits_per_dimension"] = evaluation.Estimate(*(part / bits for part in test["log_likelihood"]))
    test["baselines"] = baselines_of(data)
    job.run.notes += note_on_baselines(test)
    return {name: test | {"proposal": settings.proposal}}


def note_on_baselines(test: dict[str, Any]) -> list[str]:
    """A note if a baseline is as good as the model."""
    for name, baseline in test["baselines"].items():
        if baseline.value >= test["log_likelihood"].value:
            return [
                f"the {BASELINES[name]} baseline, which needs no network, is as good as this model: it is of no use"
            ]
    return []


def baselines_of(data: UserData) -> dict[str, evaluation.Estimate]:
    """The log density of the test rows under the baselines; none where x is no rows, or grey."""
    if data.what != "row":
        return {}
    train, test = (np.asarray(part[0], np.float64) for part in (data.sample, data.test))
    columns, varies = data.columns, np.nanstd(train, axis=0) > 0
    if any(column.is_label for column in columns) and data.schema is None and not np.isin(test, (0, 1)).all():
        return {}
    columns = tuple(column for column, each in zip(columns, varies, strict=True) if each)
    train, test = train[:, varies], test[:, varies]
    found = {"independent": evaluation.mean(baselines.independent(train, test, columns))}
    given = [np.asarray(data.condition.encode(c).flat, np.float64) for _, c in (data.sample, data.test)]
    given = [np.broadcast_to(each, (len(rows), each.shape[1])) for each, rows in zip(given, (train, test), strict=True)]
    width = given[0].shape[1] + sum(max(1, len(column.categories) - 1) for column in columns)
    if width <= WIDEST and any(column.kind in ("real", "positive") for column in columns):
        found["gaussian"] = evaluation.mean(baselines.linear_gaussian(train, test, columns, (given[0], given[1])))
    return found


def facts(job: harness.Job) -> dict[str, Any]:
    """What the numbers are of."""
    data: Any = job.dataset
    part = "hidden part of each " if "image" in data.test[1] else ""
    grey = job.settings.training.binarization == "none" and _is_grey(data)
    in_units = isinstance(base_of(data.likelihood), cvae.Normal | cvae.likelihoods.Columns)
    return {
        "unit": f"nats per {part}{data.what}, x in {'the units of the file' if in_units else '[0, 1]'}",
        "measure": "grey cross-entropy" if grey else "log-likelihood, lower bound",
        "examples": {name: len(getattr(data, name)[0]) for name in ("train", "validation", "test")},
        "epochs": {name: len(trained.history) for name, trained in job.trained.items()},
    }


def _is_grey(data: UserData) -> bool:
    """Whether x holds grey levels that a Bernoulli likelihood takes for probabilities."""
    x = data.test[0]
    return type(data.likelihood) is cvae.Bernoulli and not bool(np.isin(x, (0, 1)).all() and x.dtype != np.uint8)


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    ((name, test),) = summary["test"].items()
    examples, grey = summary["examples"], summary["measure"] == "grey cross-entropy"
    rows = [
        Row("ELBO", "elbo"),
        Row("rate", "rate"),
        Row("distortion", "distortion"),
        Row(summary["measure"], "log_likelihood", negate=grey),
        *(
            Row(f"baseline: {label}", f"baselines.{key}")
            for key, label in BASELINES.items()
            if key in test["baselines"]
        ),
        Row(f"effective of {test['num_samples']} samples", "effective_samples", "one"),
        Row(f"active of {len(test['active_units']['variance'])} latents", "active_units.active", "count"),
        Row("training", "seconds", "seconds"),
        Row("epochs", "epochs", "count"),
    ]
    if "bits_per_dimension" in test:
        rows.insert(4, Row("bits per dimension", "bits_per_dimension", "correlation", negate=True))
    record = test | {"seconds": summary["seconds"][name], "epochs": summary["epochs"][name]}
    counts = f"{examples['test']:,} test of {sum(examples.values()):,} examples"
    return f"{summary['dataset']}, {counts}; {summary['unit']}\n\n{tables.by_model(rows, {name: record})}"


def next_steps(out: Path, file: Path | None, data: UserData, imputes: bool) -> str:
    """Commands that use a fitted model, with conditions that the training part has; None is a file that none reads."""
    values = [f"{name}={value}" for name, value in _usual_values(data).items()]
    mean = ["--mean"] * _is_grey(data)  # draws are black and white
    if any(spec.kind == "pixels" for spec in data.condition.spec.values()):
        commands = [["generate", str(out), "--given", str(file or "mine.npz"), *mean]]
    else:
        options = [part for value in values for part in ("--condition", value)]
        commands = [["generate", str(out), "--count", "10", *options, *mean]]
    if file is not None:
        of_file = ["score", "encode"] + ["impute"] * imputes
        commands += [[command, str(out), str(file)] for command in of_file]
        commands += [["counterfactual", str(out), str(file), "--set", value, *mean] for value in values[:1]]
        commands += [["predict", str(out), str(file), name] for name in list(labels_of(data.condition))[:1]]
    return "\n".join(["next:", *(f"  python -m experiments.use {shlex.join(command)}" for command in commands)])


def _usual_values(data: UserData) -> dict[str, str]:
    """The median of each condition that is a label or numbers, as a command line has it."""
    c = data.sample[1]
    single = {column.name: (column, values) for column, values in data.conditions(c).items()}
    found = {}
    for name, spec in data.condition.spec.items():
        if spec.kind in ("pixels", "mask"):
            continue
        column, values = single.get(name, (Column(name, "real"), c[name]))
        middle = np.nanquantile(values.reshape(len(values), -1), 0.5, axis=0, method="nearest")
        found[name] = column.categories[int(middle[0])] if column.is_label else ",".join(f"{each:g}" for each in middle)
    return found


EXPERIMENT = harness.Experiment(
    "fit",
    {"mnist": Settings(data=Path("mine.npz"))},
    models,
    evaluate,
    figures,
    table,
    examples=lambda architecture, split: split,
    check=check,
    load=load,
    fit=train,
    facts=facts,
)


@cli.naming(mask="--condition")
def main() -> Path:
    """Parse the command line in two steps, because defaults depend on the data, and run the experiment."""
    if not any(argument.startswith("--data") for argument in sys.argv):
        cli.options(Settings, __doc__)  # shows the help, or that --data is missing
    which = cli.partially(Which)
    data = load(which)
    # tyro appends to the default
    default = cvae.replace(preset(which, data), condition=(), optional=(), column=())
    settings = cli.options(Settings, __doc__, default=default)
    if data.schema is not None:
        print(f"{user_tables.describe(data.schema)}\n")
    print("".join(f"{note}\n" for note in data.notes), end="", flush=True)
    out = cli.execute(dataclasses.replace(EXPERIMENT, load=lambda _: data), settings)
    imputes = isinstance(data.likelihood, cvae.Missing) or settings.training.hide_prob > 0
    print(f"\n{next_steps(out, settings.data, data, imputes)}")
    return out


if __name__ == "__main__":
    cli.protected(main)
