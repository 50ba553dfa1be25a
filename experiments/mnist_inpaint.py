"""Half a digit completed: a CVAE told part of the picture draws the rest, many times over.

    python -m experiments.mnist_inpaint                        # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_inpaint --mask random_box --label --out runs/mnist_inpaint_box

By default the bottom left quadrant is seen and the other three are drawn (Sohn, Lee & Yan 2015): a residual network
with 50 latents and a learned prior p(z | c), on black and white targets drawn afresh each time a picture is seen.
Reported on the test split, whose pixels and masks are drawn once: nats per picture and per hidden pixel, of the
hidden pixels only. Expected on MNIST: -log p(x | c) of about 61.5 nats a picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import command, pictures, study

if TYPE_CHECKING:
    import jax
    from matplotlib.figure import Figure

    from cvae.conditions import Condition, Image, Label
    from cvae.config import Config
    from cvae.data import Dataset
    from cvae.evaluation import Estimate
    from cvae.model import CVAE

SHOWN = 10  # completions of a picture in the figure
DRAWS = 100  # completions behind their mean and spread


@dataclass(frozen=True)
class Models:
    """The model, and what it is told."""

    mask: str = "quadrants_1"
    """what is seen: quadrants_1 (bottom left), quadrants_2 (left), quadrants_3 (all but bottom right), top_half,
    bottom_half, left_half, right_half, centre_box (all but the middle), random_box (all but a box), random_pixels"""
    label: bool = False
    """tell the label too"""
    prior: Literal["learned", "standard"] = "learned"
    """p(z | c) as a network of its own, or N(0, I)"""
    latents: int | None = None
    """number of latent dimensions; 50 if left out, 16 on the 8x8 digits"""
    hidden: tuple[int, ...] | None = None
    """widths of the residual blocks; 500 if left out, 128 on the 8x8 digits"""


@dataclass(frozen=True)
class Fitting:
    """How it is trained: Adam with a cosine schedule, and a moving average of the parameters."""

    targets: Literal["grey", "dynamic", "static"] | None = None
    """grey: pixels as they are; dynamic, static: black or white, drawn afresh each time a picture is seen, or once;
    dynamic if left out, grey on the 8x8 digits"""
    epochs: int | None = None
    """passes over the training pictures; 20 if left out, 200 on the 8x8 digits"""
    batch_size: int = 100
    """pictures a step"""
    learning_rate: float = 1e-3
    """the highest of the schedule"""
    average: float = 0.999
    """decay of the moving average, a step"""
    seed: int = 0
    """source of all randomness; the same seed gives the same parameters"""


@dataclass(frozen=True)
class Output(study.Output):
    """What is measured and left behind."""

    num_samples: int = 100
    """importance samples of log p(x | c)"""


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
    targets: str


DEFAULT = Preset(latents=50, hidden=(500,), epochs=20, targets="dynamic")
# Of 8x8 pixels, few are left to read once they are black or white.
PRESETS = {"digits": Preset(latents=16, hidden=(128,), epochs=200, targets="grey")}
SMOKE = Preset(latents=4, hidden=(32,), epochs=3, targets="dynamic")


def plan(settings: Settings) -> tuple[Dataset, Config, Path]:
    """Turn the options into a data set, a config and a run folder, refusing what cannot work; writes nothing."""
    smoke, fitting, models = settings.output.smoke, settings.fitting, settings.models
    cvae.checks.whole_number("--num-samples", settings.output.num_samples)
    study.check_latents(models.latents)
    cvae.checks.one_of("--mask", models.mask, tuple(cvae.masks.MASKS))  # not "given", which no data set here has
    dataset = study.read(settings.data, smoke)
    preset = SMOKE if smoke else PRESETS.get(dataset.name, DEFAULT)
    asked: dict[str, Any] = {"latents": models.latents, "hidden": models.hidden}
    asked |= {"epochs": fitting.epochs, "targets": fitting.targets}
    preset = preset._replace(**{name: value for name, value in asked.items() if value is not None})
    shape = dataset.train.x.shape[1:]
    label = cvae.Label(dataset.num_classes) if models.label else None
    config = cvae.config.Config(
        experiment="mnist_inpaint",
        dataset=dataset.name,
        seed=fitting.seed,
        training=cvae.Training(
            epochs=preset.epochs,
            batch_size=fitting.batch_size,
            learning_rate=fitting.learning_rate,
            schedule="cosine",
            average=fitting.average,
            targets=preset.targets,
        ),
        models={
            "cvae": cvae.Architecture(
                event_shape=shape,
                condition=told(cvae.Image(shape, models.mask), label),
                latent_size=preset.latents,
                hidden=preset.hidden,
                body="residual",
                prior=models.prior,
            )
        },
    )
    out = study.folder("mnist_inpaint", dataset.name, smoke, settings.output.out)
    study.check_free(out, config, settings.output)
    model = cvae.make(config.models["cvae"])
    cvae.training.check_fit(model, *stored(model, dataset.train), config.training)
    return dataset, config, out


def told(image: Image, label: Label | None = None) -> Condition:
    """What the model is told: the visible part of a picture, and maybe the label."""
    return image if label is None else cvae.Mixed(label=label, image=image)


def stored(model: CVAE, split: cvae.data.Split) -> study.Examples:
    """Pictures, and what the model is told besides their visible part: the label, or nothing."""
    assert model.architecture is not None
    return split.x, {"label": split.label} if "label" in model.architecture.condition.names else {}


def masked_once(config: Config, key: jax.Array, split: cvae.data.Split) -> tuple[CVAE, study.Examples, np.ndarray]:
    """The model, the pictures with masks and, if not grey, pixels drawn once, and which pixels are hidden.

    So that every measure and figure is of the same hidden pixels. Masks that were drawn are given to the model.
    """
    architecture = config.models["cvae"]
    parts: tuple[Any, ...] = getattr(architecture.condition, "parts", (architecture.condition,))
    *label, image = parts
    x, c = stored(cvae.make(architecture), split)
    observed = np.asarray(cvae.masks.draw(image.mask, key, len(x), architecture.event_shape))
    if cvae.masks.fixed(image.mask, architecture.event_shape) is None:
        architecture = replace(architecture, condition=told(replace(image, mask="given"), *label))
        c = {**c, "observed": observed}
    if config.training.targets != "grey":
        x = cvae.preparation.binarise(config.seed, x)
    return cvae.make(architecture), (x, c), ~observed


def main(settings: Settings) -> Path:
    """Train the model, score it on the test split's hidden pixels, draw the figures; returns the run folder."""
    import jax

    dataset, config, out = plan(settings)
    if study.is_finished(out, settings, dataset):
        return out
    with study.Study(config, out, settings, dataset) as run:
        fit_key, mask_key, test_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
        model = cvae.make(config.models["cvae"])
        trained = run.fit("cvae", fit_key, stored(model, dataset.train), stored(model, dataset.validation))
        model, test, hidden = masked_once(config, mask_key, dataset.test)
        trained = trained._replace(model=model)
        results = measure(trained, test_key, test, hidden, settings.output.num_samples)

        seen = settings.models.mask + (" and label" if settings.models.label else "")
        latents = config.models["cvae"].latent_size
        plural = "s" if latents > 1 else ""
        title = f"{dataset.name}, {seen}, {latents} latent{plural}, {config.training.epochs} epochs"
        first = [int(np.flatnonzero(dataset.test.label == k)[0]) for k in range(dataset.num_classes)]
        some = test[0][first], {name: value[first] for name, value in test[1].items()}
        run.draw("completions", draw(trained, draw_key, some, hidden[first], f"{title}: test pictures completed"))
        run.draw("curves", pictures.curves({"cvae": trained}, f"{title}: training and validation"))
        summary = run.keep(test={"cvae": results}, seconds={"cvae": trained.seconds})
        report(config, summary["test"]["cvae"], summary["seconds"])
        run.say_where()
    return out


def measure(
    trained: study.Trained, key: jax.Array, test: study.Examples, hidden: np.ndarray, num_samples: int
) -> dict[str, Any]:
    """Nats of the hidden pixels, per picture and per hidden pixel, and active units."""
    model, params, _ = trained
    terms = cvae.evaluate(model, params, key, *test)
    scored = cvae.log_likelihood(model, params, key, *test, num_samples=num_samples, progress=True)
    units = cvae.evaluation.active_units(model, params, key, *test)
    nats: dict[str, Any] = {
        "log_likelihood": scored.value,
        "elbo": terms.value,
        "rate": terms.kl,
        "distortion": -terms.log_likelihood,
    }
    hidden = hidden.sum(axis=(1, 2, 3))
    results: dict[str, Any] = {name: cvae.evaluation.mean(values) for name, values in nats.items()}
    return results | {
        "per_hidden_pixel": {name: per_pixel(values, hidden) for name, values in nats.items()},
        "hidden_pixels": cvae.evaluation.mean(hidden),
        "effective_samples": cvae.evaluation.mean(scored.effective_samples),
        "active_units": {"active": units.active, "variance": units.variance, "standard_error": units.standard_error},
        "num_samples": num_samples,
        "examples": len(hidden),
    }


def per_pixel(nats: np.ndarray, hidden: np.ndarray) -> Estimate:
    """Nats per hidden pixel, sum nats / sum hidden, with the standard error of a ratio.  Shapes: [N], [N]."""
    ratio = float(nats.sum() / hidden.sum())
    residual = cvae.evaluation.mean(nats - ratio * hidden)
    return cvae.evaluation.Estimate(ratio, residual.standard_error / float(hidden.mean()))


def complete(trained: study.Trained, key: jax.Array, examples: study.Examples, draws: int) -> np.ndarray:
    """Draw what is hidden, `draws` times: z ~ p(z | c), then the mean of p(x | z, c); what is seen stays as it is.

    Shapes: N examples whose masks are given or fixed -> [N, draws, H, W, 1].
    """
    import jax

    model, params, _ = trained
    _, c = cvae.model.default_preparation(model)(key, *examples)  # cuts out what is seen, and draws nothing
    c = {name: np.repeat(value, draws, axis=0) for name, value in c.items()}
    drawn = np.asarray(jax.jit(cvae.sample, static_argnums=0)(model, params, key, c))
    return drawn.reshape(-1, draws, *drawn.shape[1:])


def draw(trained: study.Trained, key: jax.Array, examples: study.Examples, hidden: np.ndarray, title: str) -> Figure:
    """Examples with a fixed mask, a row each: what is seen, completions, their mean and spread, and the truth."""
    x = examples[0].astype(np.float32) / 255
    drawn = complete(trained, key, examples, DRAWS)
    return cvae.plotting.completions(np.where(hidden, 0, x), hidden, drawn, x, title, SHOWN)


def report(config: Config, test: dict[str, Any], seconds: dict[str, float]) -> None:
    """Print the table."""
    pixels = "grey pixels" if config.training.targets == "grey" else "pixels drawn black or white once"
    print(
        f"\n{config.dataset}, {test['examples']:,} test pictures, {pixels}; "
        f"nats of the {test['hidden_pixels']['value']:.0f} of {math.prod(config.models['cvae'].event_shape)} hidden"
    )
    print(f"{'':16}{'per picture':>18}{'per hidden pixel':>22}")
    for name, words in (("log_likelihood", "-log p(x | c)"), ("elbo", "-ELBO"), ("rate", ""), ("distortion", "")):
        sign = -1 if words else 1
        cells = [
            study.plus_minus((sign * row[name]["value"], row[name]["standard_error"]), digits)
            for row, digits in ((test, 2), (test["per_hidden_pixel"], 4))
        ]
        print(f"{words or name:16}{cells[0]:>18}{cells[1]:>22}")
    print(f"\n{test['effective_samples']['value']:.1f} of {test['num_samples']} importance samples effective")
    print(f"{test['active_units']['active']} of {len(test['active_units']['variance'])} latents active")
    print(f"{seconds['cvae']:.1f} s of training")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
