"""A conditional VAE of your own arrays: pictures or rows of a table, told what you choose to tell it.

    python -m experiments.fit --data mine.npz --x pixels --condition label=digit --condition continuous=age
    python -m experiments.fit --data table.npz --x rows --latents 4 --out runs/table

`mine.npz` is what `numpy.savez("mine.npz", pixels=..., digit=..., age=...)` writes; nothing in it is ever executed.
Pictures are [N, H, W] or [N, H, W, C], rows [N, D]. A condition is one of

    label=NAME         integers [N], from 0 on
    continuous=NAME    real numbers [N] or [N, D], standardised
    image=MASK         the part of x that is seen: a mask of `cvae.masks`, such as top_half, or the name of a boolean
                       array [N, ...] or [...], True where x is seen

and may be repeated; without any, the model is a plain VAE. Pictures in [0, 1] or uint8 are scored by the Bernoulli's
cross-entropy; everything else by a Gaussian, of x standardised with statistics of the training part: a column of a
table by its own, pictures by one mean and deviation for all. Nats are of x in the units of the file all the same,

    log p(x | c)  =  log p(standardised x | c)  -  sum of log standard deviations

A column that never varies in the training part has no density (any number of nats could be had for it), so it is left
out of the model, which is said, and put back where rows are drawn.

A fitted model is used again, in the units of the file, by

    from experiments import fit
    model, params, units = fit.load("runs/fit_table")
    rows = units.undo(cvae.sample(model, params, key, {"age": ages}))
    nats = cvae.log_likelihood(model, params, key, units.apply(rows), {"age": ages})
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import command, own, pictures, study

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.conditions import Conditions
    from cvae.config import Config
    from cvae.model import CVAE
    from cvae.networks import Params

STEPS = 20_000  # of training, where the number of epochs is left out
LARGE = 256  # elements of x that make a picture a large one
COLUMNS = 10  # pictures side by side
ROWS = 6  # of pictures without labels
MOST_CLASSES = 20  # that are drawn
PANELS = 8  # columns of a table whose marginals are drawn
GENERATED = 1000  # rows, at least
SHOWN = 5000  # test examples that figures are drawn from


@dataclass(frozen=True)
class Model:
    """The model."""

    latents: int | None = None
    """number of latent dimensions; 16 if left out, or as many as x has elements"""
    hidden: tuple[int, ...] | None = None
    """widths of the layers; 512 if left out, 256 below 256 elements of x, 128 128 for rows"""
    body: Literal["plain", "residual"] = "plain"
    """plain ReLU layers, or residual blocks"""
    conditioning: Literal["concat", "concat_all", "film"] = "concat"
    """how the condition enters: beside the first layer's input, beside every layer's, or by scale and shift"""
    prior: Literal["standard", "learned"] = "standard"
    """N(0, I), or a network p(z | c)"""
    likelihood: Literal["auto", "bernoulli", "continuous_bernoulli", "normal"] = "auto"
    """of x; auto is bernoulli for pictures that are uint8 or in [0, 1], otherwise normal"""
    scale: float | None = None
    """fixed standard deviation of a normal likelihood, in standard deviations of x; learned if left out"""


@dataclass(frozen=True)
class Fitting:
    """How it is trained."""

    epochs: int | None = None
    """passes over the training part, at most; if left out, as many as make 20,000 steps, from 20 to 500"""
    patience: int | None = None
    """stop after so many epochs without a better validation loss, and keep the best; if left out, a tenth of epochs,
    but at least 10"""
    batch_size: int | None = None
    """examples a step; 100 if left out, or a tenth of a small training part"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    seed: int = 0
    """source of all randomness, the split included"""


@dataclass(frozen=True)
class Output(study.Keeping):
    """What is left behind."""

    num_samples: int = 500
    """importance samples of log p(x | c)"""


@dataclass(frozen=True)
class Settings:
    """Options."""

    input: own.Input
    model: Model = field(default_factory=Model)
    fitting: Fitting = field(default_factory=Fitting)
    output: Output = field(default_factory=Output)


class Plan(NamedTuple):
    """All that a run needs, checked."""

    config: Config
    out: Path
    taken: own.Taken
    parts: dict[str, study.Examples]  # train, validation and test, as the model takes them

    @property
    def example(self) -> str:
        """What x is one of."""
        return "row" if self.taken.x.ndim == 2 else "picture"

    @property
    def unit(self) -> str:
        """What the nats are of."""
        hidden = "hidden part of a " if "image" in self.taken.record["conditions"] else ""
        units = "the units of the file" if self.taken.units.log_std else "[0, 1]"
        return f"nats per {hidden}{self.example}, x in {units}"

    def title(self, text: str) -> str:
        """Of a figure."""
        return f"{self.config.dataset}, {text}"


def plan(settings: Settings) -> Plan:
    """Turn the options into arrays, a config and a run folder, refusing what cannot work; writes nothing."""
    asked, fitting = settings.model, settings.fitting
    cvae.checks.seed("--seed", fitting.seed)
    cvae.checks.whole_number("--num-samples", settings.output.num_samples)
    study.check_latents(asked.latents)
    taken = own.take(settings.input, fitting.seed, asked.likelihood, asked.scale)
    event, count = taken.x.shape[1:], len(taken.split.train)
    size = math.prod(event)
    usual = (128, 128) if len(event) == 1 else (512,) if size >= LARGE else (256,)
    architecture = cvae.Architecture(
        event_shape=event,
        condition=taken.condition,
        latent_size=min(16, size) if asked.latents is None else asked.latents,
        hidden=usual if asked.hidden is None else asked.hidden,
        body=asked.body,
        conditioning=asked.conditioning,
        prior=asked.prior,
        likelihood=taken.likelihood,
    )
    batch = max(1, min(100, count // 10)) if fitting.batch_size is None else fitting.batch_size
    epochs = min(500, max(20, STEPS * batch // count)) if fitting.epochs is None else fitting.epochs
    normal = isinstance(taken.likelihood, cvae.likelihoods.Normal)
    training = cvae.Training(
        epochs=epochs,
        # A Gaussian's first gradients are so large that Adam would remember them for a thousand steps, and crawl.
        clip_norm=10.0 if normal else None,
        batch_size=batch,
        learning_rate=fitting.learning_rate,
        patience=max(10, epochs // 10) if fitting.patience is None else fitting.patience,
    )
    name = "cvae" if settings.input.condition else "vae"
    config = cvae.config.Config("fit", settings.input.data.stem, fitting.seed, training, {name: architecture})
    out = study.folder("fit", config.dataset, False, settings.output.out)
    study.check_free(out, config, settings.output)
    parts = {
        part: (taken.x[rows], {key: value[rows] for key, value in taken.c.items()})
        for part, rows in taken.split._asdict().items()
    }
    model = cvae.make(architecture)
    cvae.training.check_fit(model, *parts["train"], training)
    for part in ("validation", "test"):
        cvae.model.check_examples(model, *parts[part])
    return Plan(config, out, taken, parts)


def load(run: str | os.PathLike[str]) -> tuple[CVAE, Params, own.Units]:
    """A fitted model, its parameters and its units: it takes `units.apply(x)`, and scores it as the x of the file.

    Raises: ValueError if the folder holds no finished run of this experiment.
    """
    path = Path(run) / "preprocessing.json"
    cvae.checks.require(path.is_file(), "run", "be a folder of experiments.fit", f"no preprocessing.json in {run}")
    model, params, _ = cvae.load(run)
    try:
        data = json.loads(path.read_text())
        fields = [None if data[name] is None else np.array(data[name], np.float64) for name in own.Units._fields]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be as it was written, got {type(error).__name__}: {error}") from None
    units = own.Units(*fields)
    return own.in_units(model, units.log_std), params, units


def main(settings: Settings) -> Path:
    """Fit the model, score it on the test part, draw the figures; returns the run folder."""
    import jax

    planned = plan(settings)
    print("".join(f"{line}\n" for line in planned.taken.said), end="", flush=True)
    name, architecture = next(iter(planned.config.models.items()))
    model = own.in_units(cvae.make(architecture), planned.taken.units.log_std)
    if study.is_finished(planned.out, settings, planned.parts):
        return planned.out
    parts = planned.parts
    with study.Study(planned.config, planned.out, settings, planned.parts) as run:
        cvae.runs.write_json(planned.out / "preprocessing.json", study.plain(planned.taken.record))
        fit_key, test_key, draw_key = jax.random.split(jax.random.key(planned.config.seed), 3)
        trained = run.fit(name, fit_key, parts["train"], parts["validation"], model=model)
        samples = settings.output.num_samples
        test = study.bound(model, trained.params, test_key, *parts["test"])
        test |= study.likelihood(model, trained.params, test_key, *parts["test"], num_samples=samples)
        for figure_name, figure in figures(planned, trained, draw_key):
            run.draw(figure_name, figure)
        summary = run.keep(
            test={name: test},
            unit=planned.unit,
            examples={part: len(x) for part, (x, _) in parts.items()},
            epochs=len(trained.history),
            seconds={name: trained.seconds},
        )
        report(planned, name, summary)
        run.say_where()
    return planned.out


def report(planned: Plan, name: str, summary: dict[str, Any]) -> None:
    """Print the table."""
    test, counts = summary["test"][name], summary["examples"]
    scored = "log p(x | c)" if planned.taken.record["conditions"] else "log p(x)"
    lines = {
        "ELBO": study.plus_minus(test["elbo"]),
        "rate": study.plus_minus(test["rate"]),
        "distortion": study.plus_minus(test["distortion"]),
        scored: f"{study.plus_minus(test['log_likelihood'])}   {test['num_samples']} importance samples",
        "active units": f"{test['active_units']['active']} of {len(test['active_units']['variance'])} latents",
        "training": f"{summary['seconds'][name]:.1f} s, {summary['epochs']} epochs of {counts['train']:,} examples",
    }
    print(f"\n{planned.config.dataset}, {counts['test']:,} test examples; {summary['unit']}")
    for label, text in lines.items():
        print(f"{label:14}{text}")


def figures(planned: Plan, trained: study.Trained, key: jax.Array) -> Iterator[tuple[str, Figure]]:
    """The figures with their names: of rows their marginals and a pair, of pictures reconstructions and samples."""
    import jax

    mask_key, first, second = jax.random.split(key, 3)
    x, c = jax.tree.map(lambda array: array[:SHOWN], planned.parts["test"])
    x, c = jax.tree.map(np.asarray, cvae.model.default_preparation(trained.model)(mask_key, x, c))
    if planned.example == "row":
        # More generated rows than a small test part has, all told its conditions: one noise less to look at.
        copies = -(-GENERATED // len(x))
        told = {name: np.repeat(value, copies, axis=0) for name, value in c.items()}
        drawn = generate(trained, first, copies * len(x), told)
        real, drawn = (planned.taken.units.undo(rows) for rows in (x, drawn))
        kept = np.flatnonzero(np.broadcast_to(planned.taken.units.kept, real.shape[1:]))
        yield (
            "marginals",
            marginals(real, drawn, kept, planned.title(f"{len(real):,} test rows and {len(drawn):,} generated")),
        )
        if len(kept) > 1:
            yield "pair", pair(real[:, kept], drawn[:, kept], kept, planned.title("the pair that correlates most"))
    elif x.shape[-1] in (1, 3):
        yield "reconstructions", reconstructions(planned, trained, first, x, c)
        yield "samples", samples(planned, trained, second, x, c)
    name = next(iter(planned.config.models))
    curves = pictures.curves({name: trained}, planned.title("training and validation"))
    curves.axes[0].set_ylabel(f"nats per {planned.example}", fontsize=8)
    yield "curves", curves


def generate(trained: study.Trained, key: jax.Array, count: int, c: Conditions) -> np.ndarray:
    """Draw rows: z ~ p(z | c), x ~ p(x | z, c). A draw and not its mean: the noise is a claim about the rows, too.

    Shapes: c of length `count` -> [count, D].
    """
    import jax

    noise_key, draw_key = jax.random.split(key)
    prior = trained.model.prior(trained.params, c)
    assert isinstance(prior, cvae.distributions.Normal)  # one row without a condition, so `sample` would draw one
    z = prior.mean + prior.std * jax.random.normal(noise_key, (count, prior.mean.shape[1]))
    return np.asarray(trained.model.decode(trained.params, z, c).sample(draw_key))


def marginals(real: np.ndarray, drawn: np.ndarray, columns: np.ndarray, title: str) -> Figure:
    """Histograms of test and generated rows, a panel a column; of many columns, those that agree least.

    Above each stands its Kolmogorov-Smirnov distance, and below all of them the 95 % quantile of chance alone.

    Shapes: real [N, D], drawn [M, D]; columns: those to choose from.
    """
    from matplotlib.figure import Figure
    from scipy.stats import ks_2samp

    distances = {int(column): float(ks_2samp(real[:, column], drawn[:, column]).statistic) for column in columns}
    chosen = sorted(sorted(distances, key=lambda column: -distances[column])[:PANELS])
    if len(chosen) < len(columns):
        title += f"; the {PANELS} of {len(columns)} columns that agree least"
    chance = 1.36 * (1 / len(real) + 1 / len(drawn)) ** 0.5
    across = min(4, len(chosen))
    down = -(-len(chosen) // across)
    figure = Figure(figsize=(max(6.2, 2.5 * across), 0.9 + 2.0 * down), layout="constrained")
    figure.suptitle(title, fontsize=11)
    note = f"KS: Kolmogorov-Smirnov distance; of equal distributions below {chance:.3f}, 95 times in 100"
    figure.supxlabel(note, fontsize=8)
    panels = np.ravel(figure.subplots(down, across, squeeze=False))
    for axes, column in zip(panels, chosen, strict=False):
        both = np.concatenate([real[:, column], drawn[:, column]])
        low, high = np.quantile(both, [0.002, 0.998])
        bins = np.linspace(low, high, 1 + int(np.clip(len(real) ** 0.5, 8, 40)))
        axes.hist(real[:, column], bins, density=True, color="0.78", label="test")
        line = {"histtype": "step", "color": cvae.plotting.PALETTE[0], "linewidth": 1.4}
        axes.hist(drawn[:, column], bins, density=True, label="generated", **line)
        axes.set_title(f"column {column}: KS {distances[column]:.3f}", fontsize=9)
        axes.set_yticks([])
        axes.tick_params(labelsize=7, length=2)
        axes.spines[["top", "right", "left"]].set_visible(False)
    for axes in panels[len(chosen) :]:
        axes.set_visible(False)
    panels[0].legend(fontsize=7, frameon=False)
    return figure


def pair(real: np.ndarray, drawn: np.ndarray, columns: np.ndarray, title: str) -> Figure:
    """The two columns that correlate most among the test rows, in test and in generated rows, side by side.

    Shapes: real, drawn [N, D]; columns [D], their numbers in the file.
    """
    from matplotlib.figure import Figure

    with np.errstate(invalid="ignore", divide="ignore"):  # a column may be constant in the test part
        strength = np.nan_to_num(np.abs(np.triu(np.corrcoef(real.T), 1)))
    first, second = np.unravel_index(int(strength.argmax()), strength.shape)
    figure = Figure(figsize=(7.2, 3.7), layout="constrained")
    figure.suptitle(title, fontsize=11)
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, name, rows, colour in zip(
        panels, ("test", "generated"), (real, drawn), ("0.35", cvae.plotting.PALETTE[0]), strict=True
    ):
        size = float(np.clip(4000 / len(rows), 2, 14))
        axes.scatter(rows[:, first], rows[:, second], s=size, color=colour, alpha=0.45, linewidths=0, rasterized=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            r = np.corrcoef(rows[:, first], rows[:, second])[0, 1]
        axes.set_title(f"{len(rows):,} {name} rows, r = {r:.3f}", fontsize=9)
        axes.set_xlabel(f"column {columns[first]}", fontsize=9)
        axes.tick_params(labelsize=8, length=3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(f"column {columns[second]}", fontsize=9)
    return figure


def reconstructions(
    planned: Plan, trained: study.Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]
) -> Figure:
    """The first test pictures over what the model makes of them."""
    import jax

    few: Any = (x[:COLUMNS], {name: value[:COLUMNS] for name, value in c.items()})
    drawn = jax.jit(cvae.reconstruct, static_argnums=0)(trained.model, trained.params, key, *few)
    return album(planned, np.stack([few[0], drawn]), "reconstructions", ["test", "model"])


def samples(planned: Plan, trained: study.Trained, key: jax.Array, x: np.ndarray, c: dict[str, np.ndarray]) -> Figure:
    """Pictures drawn from the prior, told the conditions of test pictures: a row a class, where there are labels.

    With an image among the conditions, what is seen, several completions, and the truth.
    """
    import jax

    draw = jax.jit(cvae.sample, static_argnums=0)
    if "observed" in c:
        few = {name: value[:ROWS] for name, value in c.items()}
        completed = [draw(trained.model, trained.params, k, few) for k in jax.random.split(key, 6)]
        # As stored, not as ink: light is high.
        truth, drawn = (1 - shown(planned, array) for array in (x[:ROWS], np.stack(completed, axis=1)))
        title = planned.title("test pictures completed")
        return cvae.plotting.completions(truth, ~few["observed"], drawn, truth, title)
    part = trained.model.architecture.condition if trained.model.architecture else None
    labels = [part.name for part in getattr(part, "parts", (part,)) if isinstance(part, cvae.Label)]
    if labels:
        label = c[labels[0]]
        classes = np.unique(label)[:MOST_CLASSES]
        rows = np.concatenate([np.resize(np.flatnonzero(label == k), COLUMNS) for k in classes])
        names, axis = [str(k) for k in classes], f"{planned.taken.record['conditions'][labels[0]]}"
    else:
        rows, names, axis = np.resize(np.arange(len(x)), ROWS * COLUMNS), None, ""
    told = {name: value[rows] for name, value in c.items()}
    if told:
        drawn = np.asarray(draw(trained.model, trained.params, key, told))
    else:
        keys = jax.random.split(key, len(rows))
        drawn = np.asarray(jax.vmap(lambda k: cvae.sample(trained.model, trained.params, k, {})[0])(keys))
    return album(
        planned, drawn.reshape(-1, COLUMNS, *drawn.shape[1:]), "drawn from p(x | c)" if told else "drawn", names, axis
    )


def shown(planned: Plan, images: np.ndarray) -> np.ndarray:
    """Pictures on [0, 1], to be looked at: those of a Gaussian between two quantiles of the test pictures."""
    if not planned.taken.units.log_std:
        return images
    low, high = np.quantile(planned.parts["test"][0], [0.005, 0.995])
    return np.asarray(np.clip((images - low) / max(high - low, 1e-6), 0, 1))


def album(
    planned: Plan, images: np.ndarray, what: str, row_labels: list[str] | None = None, y_label: str = ""
) -> Figure:
    """A grid of grey or coloured pictures, as stored: high values are light.

    Shapes: [rows, columns, H, W, 1 or 3].
    """
    dark = 1 - shown(planned, images)  # `plotting.grid` draws ink
    figure = cvae.plotting.grid(dark[..., :1], planned.title(what), row_labels=row_labels, y_label=y_label)
    if images.shape[-1] == 3:
        channels = [1 - cvae.plotting.tile(dark[..., [channel]]) for channel in range(3)]
        figure.axes[0].images[0].set_data(np.stack(channels, axis=-1))
    return figure


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
