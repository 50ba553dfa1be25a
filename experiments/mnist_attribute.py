"""Digits drawn to measure: a CVAE told how thick and how slanted the stroke is, alone and beside the label.

    python -m experiments.mnist_attribute                      # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_attribute --digit 2 --latents 16 --conditioning film

Both attributes are measured on the pictures (Morpho-MNIST's definitions) and told to the model as two numbers. Residual
networks, 16 latents, grey targets, and a learned prior p(z | c): with N(0, I) in its place a latent drawn for one
thickness may be one that only another has, and the pictures obey less. Reported on the test split: nats, and whether
the models obey. To that end a picture is drawn for the attributes of every test picture,
measured in its turn, and held against what was asked. Expected on MNIST: Pearson's r of 0.96 for thickness and 0.99 for
slant where the label is told too, 0.91 and 0.99 where it is not.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import command, pictures, study

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.conditions import Condition, Continuous
    from cvae.config import Config
    from cvae.data import Dataset
    from cvae.model import CVAE

NAMES = ("thickness", "slant")  # the columns of c["stroke"], in pixels and radians
UNITS = ("px", "°")
TO_UNITS = np.array([1, 180 / math.pi])
SHOWN = (7, 9)  # thicknesses by slants in the grid
RANGE = (0.02, 0.98)  # quantiles of the training pictures' attributes between which the grid lies


@dataclass(frozen=True)
class Models:
    """The two models, alike but for the label."""

    latents: int | None = None
    """number of latent dimensions; 16 if left out, 4 on the 8x8 digits"""
    hidden: tuple[int, ...] | None = None
    """widths of the residual blocks; 500 if left out, 128 on the 8x8 digits"""
    conditioning: Literal["concat", "concat_all", "film"] = "concat_all"
    """how the condition enters: beside the input of the first layer, of every layer, or as their scale and shift"""


@dataclass(frozen=True)
class Fitting:
    """How they are trained."""

    epochs: int | None = None
    """passes over the training pictures; 12 if left out, 200 on the 8x8 digits"""
    batch_size: int = 100
    """pictures a step"""
    learning_rate: float = 1e-3
    """Adam's step size, the highest of a cosine schedule"""
    average: float = 0.999
    """decay of the moving average of the parameters, a step"""
    seed: int = 0
    """source of all randomness; the same seed gives the same parameters"""


@dataclass(frozen=True)
class Output(study.Output):
    """What is measured and left behind."""

    num_samples: int = 100
    """importance samples of log p(x | c)"""
    digit: int = 5
    """the class that is drawn across the grid of thickness and slant"""


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    data: study.Data = field(default_factory=study.Data)
    models: Models = field(default_factory=Models)
    fitting: Fitting = field(default_factory=Fitting)
    output: Output = field(default_factory=Output)


class Preset(NamedTuple):
    """What a data set wants where the command line says nothing."""

    latents: int
    hidden: tuple[int, ...]
    epochs: int


DEFAULT = Preset(latents=16, hidden=(500,), epochs=12)
PRESETS = {"digits": Preset(latents=4, hidden=(128,), epochs=200)}
SMOKE = Preset(latents=2, hidden=(64,), epochs=3)

Splits = dict[str, study.Examples]  # train, validation and test, with c["label"] and c["stroke"]


def plan(settings: Settings) -> tuple[Splits, Config, Path]:
    """Turn the options into measured pictures, a config and a run folder, refusing what cannot work; writes nothing."""
    smoke, digit = settings.output.smoke, settings.output.digit
    cvae.checks.whole_number("--num-samples", settings.output.num_samples)
    study.check_latents(settings.models.latents)
    dataset = study.read(settings.data, smoke)
    classes = dataset.num_classes
    cvae.checks.require(0 <= digit < classes, "--digit", f"be a class in [0, {classes})", digit)
    configure(settings, dataset, cvae.Continuous(2))  # to refuse bad options before a minute of measuring
    splits = measured(dataset)
    config = configure(settings, dataset, cvae.Continuous.fitted(splits["train"][1]["stroke"], "stroke"))
    out = study.folder("mnist_attribute", dataset.name, smoke, settings.output.out)
    study.check_free(out, config, settings.output)
    for architecture in config.models.values():
        model = cvae.make(architecture)
        cvae.training.check_fit(model, *told(model, splits["train"]), config.training)
    return splits, config, out


def configure(settings: Settings, dataset: Dataset, stroke: Continuous) -> Config:
    """The config, given the condition that the attributes make."""
    preset = SMOKE if settings.output.smoke else PRESETS.get(dataset.name, DEFAULT)
    fitting, models = settings.fitting, settings.models
    asked: dict[str, Any] = {"latents": models.latents, "hidden": models.hidden, "epochs": fitting.epochs}
    preset = preset._replace(**{name: value for name, value in asked.items() if value is not None})
    conditions: dict[str, Condition] = {
        "attribute": stroke,
        "attribute_label": cvae.Mixed(label=cvae.Label(dataset.num_classes), stroke=stroke),
    }
    return cvae.config.Config(
        experiment="mnist_attribute",
        dataset=dataset.name,
        seed=fitting.seed,
        training=cvae.Training(
            epochs=preset.epochs,
            batch_size=fitting.batch_size,
            learning_rate=fitting.learning_rate,
            schedule="cosine",
            average=fitting.average,
        ),
        models={
            name: cvae.Architecture(
                event_shape=dataset.train.x.shape[1:],
                condition=condition,
                latent_size=preset.latents,
                hidden=preset.hidden,
                body="residual",
                conditioning=models.conditioning,
                prior="learned",
            )
            for name, condition in conditions.items()
        },
    )


def measured(dataset: Dataset) -> Splits:
    """The pictures of every split with their attributes; those that cannot be measured are left out, with a warning."""
    names, parts = ("train", "validation", "test"), dataset[1:4]
    ends = np.cumsum([len(part.x) for part in parts])
    attributes = cvae.attributes.measure(np.concatenate([part.x for part in parts]), progress=True)
    splits = {}
    for name, part, stroke in zip(names, parts, np.split(attributes, ends[:-1]), strict=True):
        kept = np.isfinite(stroke).all(axis=1)
        if not kept.all():
            lost = int((~kept).sum())
            warnings.warn(f"leaving out {lost} {name} pictures whose stroke cannot be measured", stacklevel=2)
        splits[name] = (part.x[kept], {"label": part.label[kept], "stroke": stroke[kept]})
    return splits


def told(model: CVAE, examples: study.Examples) -> study.Examples:
    """The examples with only those conditions that the model is told."""
    assert model.architecture is not None
    x, c = examples
    return x, {name: c[name] for name in model.architecture.condition.names}


def main(settings: Settings) -> Path:
    """Train both models, score them on the test split, draw the figures; returns the run folder."""
    import jax

    splits, config, out = plan(settings)
    if study.is_finished(out, settings, splits):
        return out
    with study.Study(config, out, settings, splits) as run:
        fit_key, test_key, draw_key = jax.random.split(jax.random.key(config.seed), 3)
        asked = splits["test"][1]["stroke"]
        trained, test, drawn = {}, {}, {}
        for name, architecture in config.models.items():
            model = cvae.make(architecture)
            train, validation, held_out = (told(model, splits[part]) for part in ("train", "validation", "test"))
            trained[name] = run.fit(name, fit_key, train, validation)
            model, params, _ = trained[name]
            test[name] = study.bound(model, params, test_key, *held_out)
            samples = settings.output.num_samples
            test[name] |= study.likelihood(model, params, test_key, *held_out, num_samples=samples)
            drawn[name] = generate(trained[name], draw_key, held_out[1])
            test[name] |= obedience(asked, drawn[name])

        latents = config.models["attribute"].latent_size
        title = f"{config.dataset}, {latents} latent{'s' if latents > 1 else ''}, {config.training.epochs} epochs"
        digit = settings.output.digit
        run.draw(f"grid_{digit}", grid(trained["attribute_label"], splits["train"][1]["stroke"], digit, title))
        for name, condition in (("attribute", "attributes alone"), ("attribute_label", "attributes and label")):
            run.draw(
                f"asked_{name}",
                cvae.charts.asked_against_measured(
                    asked * TO_UNITS, drawn[name] * TO_UNITS, NAMES, UNITS, f"{title}\ntest split: told {condition}"
                ),
            )
        run.draw("curves", pictures.curves(trained, f"{title}: training and validation"))
        summary = run.keep(test=test, seconds={name: model.seconds for name, model in trained.items()})
        report(config.dataset, summary["test"], summary["seconds"])
        run.say_where()
    return out


def generate(trained: study.Trained, key: jax.Array, c: dict[str, Any]) -> np.ndarray:
    """Draw a picture for each condition, z from the prior, and measure it.  Shapes: c of length N -> [N, 2]."""
    import jax

    model, params, _ = trained
    drawn = np.asarray(jax.jit(cvae.sample, static_argnums=0)(model, params, key, c))
    return cvae.attributes.measure(drawn, progress=True)


def obedience(asked: np.ndarray, drawn: np.ndarray) -> dict[str, Any]:
    """How closely the attributes of drawn pictures follow those asked for; what cannot be measured is counted apart.

    Shapes: [N, 2], [N, 2], in pixels and radians.
    """
    fine = np.isfinite(drawn).all(axis=1)
    unknown = cvae.evaluation.Estimate(math.nan, math.nan)
    enough = fine.sum() > 2  # a correlation wants three
    r = cvae.fidelity.correlation(asked[fine], drawn[fine]) if enough else [unknown] * len(NAMES)
    errors = np.abs(drawn - asked)[fine].T * TO_UNITS[:, None]
    return {
        "correlation": dict(zip(NAMES, r, strict=True)),
        "mean_absolute_error": {
            name: cvae.evaluation.mean(error) if enough else unknown
            for name, error in zip(("thickness_px", "slant_degrees"), errors, strict=True)
        },
        "not_measurable": int((~fine).sum()),
    }


def grid(trained: study.Trained, stroke: np.ndarray, digit: int, title: str) -> Figure:
    """One digit across the thicknesses and slants of the training pictures, `stroke`; z is the mean of p(z | c)."""
    import jax

    model, params, _ = trained
    (thinnest, left), (thickest, right) = np.quantile(stroke, RANGE, axis=0)
    thickness, slant = np.linspace(thinnest, thickest, SHOWN[0]), np.linspace(left, right, SHOWN[1])
    asked = np.stack(np.meshgrid(thickness, slant, indexing="ij"), axis=-1).reshape(-1, 2)
    c = {"label": np.full(len(asked), digit), "stroke": asked.astype(np.float32)}
    drawn = np.asarray(cvae.sample(model, params, jax.random.key(0), c, temperature=0))  # the key decides nothing
    return cvae.plotting.attribute_grid(
        drawn.reshape(*SHOWN, *drawn.shape[1:]),
        thickness,
        np.rint(np.degrees(slant)),
        "thickness asked (px)",
        "slant asked (°)",
        f"{title}: one {digit}, the mean of p(z | c)",
    )


def report(dataset: str, test: dict[str, Any], seconds: dict[str, float]) -> None:
    """Print the tables."""
    first = next(iter(test.values()))
    examples, samples = first["examples"], first["num_samples"]
    print(f"\n{dataset}, {examples:,} test pictures, nats per picture; log p(x | c) by {samples} importance samples")
    print(f"{'':16}{'-log p(x | c)':>17}{'-ELBO':>17}{'rate':>8}{'distortion':>12}{'active':>8}{'training':>11}")
    for name, row in test.items():
        nats = "".join(f"{_negated(row[term]):>17}" for term in ("log_likelihood", "elbo"))
        print(
            f"{name:16}{nats}{row['rate']['value']:8.2f}{row['distortion']['value']:12.2f}"
            f"{row['active_units']['active']:8d}{seconds[name]:9.1f} s"
        )
    print(f"\n{examples:,} pictures drawn with the attributes of the test pictures, asked against measured")
    print(f"{'':16}{'thickness: r':>17}{'error, px':>17}{'slant: r':>19}{'error, °':>17}{'not measurable':>16}")
    for name, row in test.items():
        pairs = zip(row["correlation"].values(), row["mean_absolute_error"].values(), strict=True)
        cells = [f"{study.plus_minus(r, 4):>17}{study.plus_minus(error, 3):>17}" for r, error in pairs]
        print(f"{name:16}{'  '.join(cells)}{row['not_measurable']:16d}")


def _negated(estimate: dict[str, float]) -> str:
    return study.plus_minus((-estimate["value"], estimate["standard_error"]))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
