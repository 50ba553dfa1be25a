"""The article's experiment: digits drawn on request by a CVAE that is told the label, beside a plain VAE.

    python -m experiments.mnist_label                        # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_label --dataset fashion_mnist --latents 8 --epochs 40

Both models have the article's size and settings: 512 ReLU units, 2 latents, batch 50, 20 epochs, Adam 1e-3, grey
targets. Expected on MNIST: test loss about 131 nats for the CVAE and 150 for the VAE, in one to two minutes on
two cores; on the 8x8 digits 21 and 24 nats, in half a minute. Pictures, metrics and parameters go to runs/mnist_label.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import cvae
from experiments import command, pictures, study

if TYPE_CHECKING:
    from cvae.config import Config
    from cvae.data import Dataset
    from cvae.objectives import Elbo


@dataclass(frozen=True)
class Models:
    """The two models, alike but for the label."""

    latents: int = 2
    """number of latent dimensions"""
    hidden: tuple[int, ...] | None = None
    """widths of the ReLU layers; 512 if left out, 256 on the 8x8 digits"""


@dataclass(frozen=True)
class Fitting:
    """How they are trained."""

    epochs: int | None = None
    """passes over the training pictures; 20 if left out, 300 on the 8x8 digits"""
    batch_size: int = 50
    """pictures a step"""
    learning_rate: float = 1e-3
    """Adam's step size"""
    seed: int = 0
    """source of all randomness; the same seed gives the same parameters"""


@dataclass(frozen=True)
class Output(study.Output):
    """What is left behind."""

    digit: int = 5
    """the class whose manifold is drawn"""


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    data: study.Data = field(default_factory=study.Data)
    models: Models = field(default_factory=Models)
    fitting: Fitting = field(default_factory=Fitting)
    output: Output = field(default_factory=Output)


class Preset(NamedTuple):
    """What a data set wants where the command line says nothing."""

    epochs: int
    hidden: tuple[int, ...]


ARTICLE = Preset(epochs=20, hidden=(512,))
PRESETS = {"digits": Preset(epochs=300, hidden=(256,))}
SMOKE = Preset(epochs=3, hidden=(64,))


def plan(settings: Settings) -> tuple[Dataset, Config, Path]:
    """Turn the options into a data set, a config and a run folder, refusing what cannot work; writes nothing."""
    smoke = settings.output.smoke
    study.check_latents(settings.models.latents)
    dataset = study.read(settings.data, smoke)
    digit, classes = settings.output.digit, dataset.num_classes
    cvae.checks.require(0 <= digit < classes, "--digit", f"be a class in [0, {classes})", digit)

    preset = SMOKE if smoke else PRESETS.get(dataset.name, ARTICLE)
    fitting, latents = settings.fitting, settings.models.latents
    hidden = preset.hidden if settings.models.hidden is None else settings.models.hidden
    shape = dataset.train.x.shape[1:]
    config = cvae.config.Config(
        experiment="mnist_label",
        dataset=dataset.name,
        seed=fitting.seed,
        training=cvae.Training(
            epochs=preset.epochs if fitting.epochs is None else fitting.epochs,
            batch_size=fitting.batch_size,
            learning_rate=fitting.learning_rate,
        ),
        models={
            "cvae": cvae.Architecture(shape, cvae.Label(classes), latents, hidden),
            "vae": cvae.Architecture(shape, cvae.Nothing(), latents, hidden),
        },
    )
    out = study.folder("mnist_label", dataset.name, smoke, settings.output.out)
    study.check_free(out, config, settings.output)
    for architecture in config.models.values():
        model = cvae.make(architecture)
        cvae.training.check_fit(model, dataset.train.x, pictures.given(model, dataset.train.label), config.training)
    return dataset, config, out


def main(settings: Settings) -> Path:
    """Train both models, score them on the test split, draw the figures; returns the run folder."""
    import jax

    dataset, config, out = plan(settings)
    if study.is_finished(out, settings, dataset):
        return out
    with study.Study(config, out, settings, dataset) as run:
        init_key, fit_key, test_key, draw_key = jax.random.split(jax.random.key(config.seed), 4)
        trained, test = {}, {}
        for name, architecture in config.models.items():
            model = cvae.make(architecture)
            train, validation, held_out = ((part.x, pictures.given(model, part.label)) for part in dataset[1:4])
            trained[name] = run.fit(name, fit_key, train, validation, init_key=init_key)
            test[name] = score(cvae.evaluate(model, trained[name].params, test_key, *held_out))
        drawings = pictures.Drawings(config, dataset, trained, draw_key)
        for figure_name, figure in drawings.figures(settings.output.digit):
            run.draw(figure_name, figure)
        summary = run.keep(test=test, seconds={name: model.seconds for name, model in trained.items()})
        report(dataset, summary["test"], summary["seconds"])
        run.say_where()
    return out


def score(terms: Elbo) -> dict[str, float]:
    """Means over the test split, in nats per picture, and the standard error of the loss over its pictures."""
    return {
        "loss": float(-terms.value.mean()),
        "standard_error": float(terms.value.std(ddof=1) / len(terms.value) ** 0.5),
        "elbo": float(terms.value.mean()),
        "log_likelihood": float(terms.log_likelihood.mean()),
        "kl": float(terms.kl.mean()),
        "pictures": len(terms.value),
    }


def report(dataset: Dataset, test: dict[str, dict[str, float]], seconds: dict[str, float]) -> None:
    """Print the table."""
    print(f"\n{dataset.name}, {len(dataset.test.x):,} test pictures, nats per picture")
    print(f"{'':6}{'loss':>9}{'':9}{'log-likelihood':>16}{'KL':>8}{'training':>12}")
    for name, row in test.items():
        loss = f"{row['loss']:9.2f} +- {row['standard_error']:<5.2f}"
        print(f"{name:6}{loss} {row['log_likelihood']:15.2f}{row['kl']:8.2f}{seconds[name]:10.1f} s")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
