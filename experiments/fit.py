"""A conditional VAE of your own arrays: images, rows of a table or series, conditioned on arrays of your choice.

    python -m experiments.fit --data mine.npz --x pixels --condition label=digit --condition continuous=age
    python -m experiments.fit --data table.npz --x rows --latent-size 4 --out runs/table

`mine.npz` is what `numpy.savez("mine.npz", pixels=..., digit=..., age=...)` writes; nothing in it is ever executed.
Images are [N, H, W] or [N, H, W, C], rows [N, D]. A condition is one of

    label=NAME         integers [N], from 0 on
    continuous=NAME    real numbers [N] or [N, D], standardised
    image=MASK         the observed part of x: a mask of `cvae.masks`, such as top_half, or the name of a boolean array
                       [N, ...] or [...], True where x is observed; the rest is predicted

and may be repeated; without any, the model is a plain VAE. Defaults of the other options depend on the data:
`--data mine.npz --help` shows them. Images in [0, 1] or uint8 are scored by the Bernoulli's cross-entropy, all else by
a Gaussian with location and scale of the training part, per column of a table or channel of an image. Nats are those
of x in the units of the file, and a fitted model takes x and gives draws in them:

    model, params = cvae.load("runs/fit_table")
    rows = cvae.sample(model, params, key, {"age": ages[:, None]})  # draws; mean=True gives means of p(x | z, c)
    nats = cvae.log_likelihood(model, params, key, rows, {"age": ages[:, None]})
"""

from __future__ import annotations

import dataclasses
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import checks, plotting
from cvae.data.augmentation import as_floats
from cvae.origin import at_origin
from cvae.settings import Count, CountOrZero
from experiments import harness
from experiments.harness import Row, cli, tables, user_data
from experiments.harness.label_figures import curves
from experiments.harness.run import binarized
from experiments.harness.user_data import Input, UserData

STEPS = 20_000  # of training, by default
LARGE = 256  # elements of x from which an image is large
COLUMNS = 10  # images side by side
ROWS = 6  # of images without labels
COMPLETIONS = 6  # of each image
MOST_CLASSES = 20  # that are drawn
GENERATED = 1000  # rows, at least
SHOWN = 5000  # test examples that figures are drawn from


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

    body: str = "mlp"
    batch_size: CountOrZero = 0


def preset(which: Which, data: UserData) -> Settings:
    """The settings that are the defaults for these data."""
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
        clip_norm=10.0 if isinstance(data.likelihood, cvae.Normal) else None,
    )
    fields = {field.name: getattr(which, field.name) for field in dataclasses.fields(Input)}
    fields["out"] = which.out or Path("runs") / f"fit_{data.name}"
    architecture = cvae.Architecture(latent_size=min(16, size), hidden=hidden)
    return Settings(**fields, architecture=architecture, training=training)


def models(settings: Settings, data: UserData) -> dict[str, cvae.Architecture]:
    """One model."""
    fields = {"event_shape": data.event_shape, "condition": data.condition, "likelihood": data.likelihood}
    name = "cvae" if settings.condition else "vae"
    return {name: cvae.replace(settings.architecture, **fields)}


def check(settings: Settings, data: UserData) -> None:
    """Refuse settings of training that do not suit the data."""
    training, count = settings.training, len(data.train[0])
    checks.require(training.batch_size <= count, "batch_size", f"be at most {count} rows", training.batch_size)
    binary = training.binarization == "none" or not isinstance(data.likelihood, cvae.Normal)
    checks.require(binary, "binarization", "be none for a normal likelihood", training.binarization)
    checks.require(training.shift == 0 or data.what == "image", "shift", f"be 0 for a {data.what}", training.shift)
    checks.require(not training.frozen, "frozen", "be empty", training.frozen)


def train(job: harness.Job, name: str) -> harness.Trained:
    """Fit the model, and add the notes on the data to the summary."""
    job.run.notes += job.dataset.notes  # type: ignore[attr-defined]
    return job.fit(name)


def evaluate(job: harness.Job) -> dict[str, Any]:
    """The bounds on the test part."""
    ((name, trained),) = job.trained.items()
    data, settings = job.split(name, "test"), job.settings
    if settings.training.binarization != "none":
        data = binarized(*data)
    options = {"num_samples": settings.samples, "proposal": settings.proposal}
    test = harness.elbo_summary(trained, job.key("test"), *data)
    test |= harness.likelihood_summary(trained, job.key("test"), *data, **options)
    return {name: test | {"proposal": settings.proposal}}


def facts(job: harness.Job) -> dict[str, Any]:
    """What the numbers are of."""
    data: Any = job.dataset
    part = "hidden part of each " if "image" in data.test[1] else ""
    x = data.test[0]
    grey = type(data.likelihood) is cvae.Bernoulli and job.settings.training.binarization == "none"
    grey = grey and not bool(np.isin(x, (0, 1)).all() and x.dtype != np.uint8)
    units = "the units of the file" if isinstance(data.likelihood, cvae.Normal) else "[0, 1]"
    return {
        "unit": f"nats per {part}{data.what}, x in {units}",
        "measure": "grey cross-entropy" if grey else "log-likelihood, lower bound",
        "examples": {name: len(getattr(data, name)[0]) for name in ("train", "validation", "test")},
        "epochs": {name: len(trained.history) for name, trained in job.trained.items()},
    }


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    ((name, test),) = summary["test"].items()
    examples, grey = summary["examples"], summary["measure"] == "grey cross-entropy"
    rows = [
        Row("ELBO", "elbo"),
        Row("rate", "rate"),
        Row("distortion", "distortion"),
        Row(summary["measure"], "log_likelihood", negate=grey),
        Row(f"effective of {test['num_samples']} samples", "effective_samples", "one"),
        Row(f"active of {len(test['active_units']['variance'])} latents", "active_units.active", "count"),
        Row("training", "seconds", "seconds"),
        Row("epochs", "epochs", "count"),
    ]
    record = test | {"seconds": summary["seconds"][name], "epochs": summary["epochs"][name]}
    counts = f"{examples['test']:,} test of {sum(examples.values()):,} examples"
    return f"{summary['dataset']}, {counts}; {summary['unit']}\n\n{tables.by_model(rows, {name: record})}"


# Figures


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """Of rows their marginals and a pair of columns, of images reconstructions and samples; training curves."""
    ((name, trained),) = job.trained.items()
    data: Any = job.dataset
    x, c = jax.tree.map(lambda values: values[:SHOWN], job.split(name, "test"))
    first, second = jax.random.split(job.key("figures"))
    if data.what == "row":
        drawn = generate(trained, first, x, c)
        varies = np.broadcast_to(np.array(getattr(data.likelihood, "scale", 1.0)) > 0, x.shape[1:])
        real, drawn, names = x[:, varies], drawn[:, varies], [f"column {k}" for k in np.flatnonzero(varies)]
        title = f"{data.name}, {len(real):,} test rows and {len(drawn):,} generated, drawn from p(x | z, c)"
        yield "marginals", plotting.marginals(real, drawn, names, title)
        if len(names) > 1:
            yield "pair", plotting.pair(real, drawn, names, f"{data.name}, the pair of columns that correlates most")
    elif data.what == "image" and x.shape[-1] in (1, 3):
        yield "reconstructions", reconstructions(data, trained, first, x, c)
        yield "samples", samples(data, trained, second, x, c)
    title = f"{data.name}, training and validation"
    yield "curves", curves(job.trained, title, unit=f"nats per {data.what}")


_sample = jax.jit(cvae.sample, static_argnums=0, static_argnames=("mean", "num_samples"))
_reconstruct = jax.jit(cvae.reconstruct, static_argnums=0)


def generate(trained: harness.Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> np.ndarray:
    """Draw at least 1,000 rows with the conditions of x, in float64: less noise than a small test part has.

    Shapes: x [N, D] -> [M, D], M a multiple of N.
    """
    model, copies = trained.model, -(-GENERATED // len(x))
    origin = model.architecture.likelihood.origin if model.architecture else None
    model, _, moved = at_origin(model, x, c)  # float32 has too few digits for a large location
    drawn = _sample(model, trained.params, key, moved, num_samples=copies if c else copies * len(x))
    rows: np.ndarray = np.asarray(drawn, np.float64).reshape(-1, *x.shape[1:]) + np.array(origin or 0.0)
    return rows


def reconstructions(
    data: UserData, trained: harness.Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]
) -> Figure:
    """The first test images over what the model makes of them."""
    few = jax.tree.map(lambda values: values[:COLUMNS], (x, c))
    images = np.stack([as_floats(few[0]), _reconstruct(trained.model, trained.params, key, *few)])
    title = f"{data.name}, reconstructions"
    return plotting.grid(shown(data, images), title, row_labels=["test", "model"], ink=False)


def samples(
    data: UserData, trained: harness.Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]
) -> Figure:
    """Means of p(x | z, c) with z from the prior, conditioned as test images are: a row per class, if there are labels.

    Where a part of the image is observed: that part, several completions, and the truth.
    """
    model, params = trained.model, trained.params
    if "image" in c:
        few, truth = {name: values[:ROWS] for name, values in c.items()}, shown(data, as_floats(x[:ROWS]))
        drawn = shown(data, np.asarray(_sample(model, params, key, few, mean=True, num_samples=COMPLETIONS)))
        observed = data.condition.observed(few)
        assert observed is not None
        hidden = ~np.asarray(observed[0])[..., :1]
        title = f"{data.name}, test images completed by means of p(x | z, c)"
        return plotting.completions(truth, hidden, np.moveaxis(drawn, 0, 1), truth, title, ink=False)
    labels = [part.name for part in cvae.config.parts_of(data.condition) if isinstance(part, cvae.Label)]
    names: list[str] = []
    rows = np.resize(np.arange(len(x)), ROWS * COLUMNS)
    if labels:
        classes = np.unique(c[labels[0]])[:MOST_CLASSES]
        rows = np.concatenate([np.resize(np.flatnonzero(c[labels[0]] == k), COLUMNS) for k in classes])
        names = [str(k) for k in classes]
    chosen = {name: values[rows] for name, values in c.items()}
    images = np.asarray(_sample(model, params, key, chosen, mean=True, num_samples=1 if c else len(rows)))
    grid = shown(data, images).reshape(-1, COLUMNS, *x.shape[1:])
    title = f"{data.name}, means of p(x | z{', c' if c else ''}) with z from the prior"
    return plotting.grid(grid, title, row_labels=names, axis_labels=("", labels[0] if labels else ""), ink=False)


def shown(data: UserData, images: np.ndarray) -> np.ndarray:
    """Images on [0, 1]; those of a Gaussian between two quantiles of the test images."""
    if not isinstance(data.likelihood, cvae.Normal):
        return images
    low, high = np.quantile(as_floats(data.test[0][:SHOWN]), [0.005, 0.995])
    return np.asarray(np.clip((images - low) / max(high - low, 1e-6 * abs(high), 1e-30), 0, 1))


# The command line


EXPERIMENT = harness.Experiment(
    "fit",
    {"mnist": Settings(data=Path("mine.npz"))},
    models,
    evaluate,
    figures,
    table,
    examples=lambda architecture, split: split,
    check=check,
    load=user_data.load,
    fit=train,
    facts=facts,
)


def main() -> Path:
    """Parse the command line in two steps, because defaults depend on the data, and run the experiment."""
    if not any(argument.startswith("--data") for argument in sys.argv):
        cli.options(Settings, __doc__)  # shows the help, or that --data is missing
    which = cli.partially(Which)
    data = user_data.load(which)
    default = cvae.replace(preset(which, data), condition=())  # tyro appends to the default
    settings = cli.options(Settings, __doc__, default=default)
    print("".join(f"{note}\n" for note in data.notes), end="", flush=True)
    return cli.execute(dataclasses.replace(EXPERIMENT, load=lambda _: data), settings)


if __name__ == "__main__":
    cli.protected(main)
