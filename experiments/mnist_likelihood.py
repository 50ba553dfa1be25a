"""How good is a label-conditional model, in every way that can be measured: nats, classes, calibration, pictures.

    python -m experiments.mnist_likelihood                       # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_likelihood --latents 20 --epochs 10 --num-samples 100
    python -m experiments.mnist_likelihood --targets static --out runs/mnist_likelihood_static

Black and white targets: those of training are drawn afresh each time a picture is seen (dynamic) or once (static),
those of the validation and test splits once. Residual networks, four layers of latents, a learned prior p(z | y);
training pictures are moved by up to a pixel, and the networks are told how far. Reported on the test split, each with
its standard error: log p(x | y) by importance sampling, and log p(x), the mean over the labels of p(x | y); rate and
distortion, active units; accuracy and calibration of the classifier argmax_y log p(x | y); whether an independent judge
reads the generated digits as what they were asked to be, beside what it makes of real ones; and their diversity within
a class, beside that of real ones.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

import cvae
from experiments import command, pictures, study

if TYPE_CHECKING:
    import jax

    from cvae.config import Config
    from cvae.data import Dataset, Split
    from cvae.evaluation import LogLikelihood

COLUMNS = 12  # generated pictures of each class that are shown


@dataclass(frozen=True)
class Models:
    """The model."""

    latents: int | None = None
    """number of latent dimensions, of all layers together; 64 if left out, 16 on the 8x8 digits"""
    latent_layers: int | None = None
    """layers of latents, each given those above it; 4 if left out, 2 on the 8x8 digits"""
    hidden: tuple[int, ...] | None = None
    """widths of the residual blocks; 500 500 if left out, 256 on the 8x8 digits"""


@dataclass(frozen=True)
class Fitting:
    """How it is trained: AdamW with a cosine schedule, and a moving average of the parameters."""

    targets: Literal["dynamic", "static"] = "dynamic"
    """pixels of the training pictures are drawn black or white afresh each time one is seen, or once"""
    epochs: int | None = None
    """passes over the training pictures; 80 if left out, 300 on the 8x8 digits"""
    batch_size: int = 200
    """pictures a step"""
    learning_rate: float = 1.5e-3
    """the highest of the schedule"""
    weight_decay: float = 0.1
    """AdamW's"""
    shift: int = 1
    """training pictures are moved by up to so many pixels each way, and the networks are told how far"""
    moved: float = 0.7
    """share of the training pictures that are moved"""
    average: float = 0.999
    """decay of the moving average, a step"""
    seed: int = 0
    """source of all randomness; the same seed gives the same parameters"""


@dataclass(frozen=True)
class Measuring:
    """How it is measured."""

    num_samples: int = 500
    """importance samples of log p(x | y), and, of the right label, of log p(x)"""
    many_samples: int = 5000
    """importance samples of the first pictures; 0 leaves that out"""
    pictures: int = 1000
    """how many the first pictures are"""
    class_samples: int = 100
    """importance samples of each class's log p(x | y), for classification"""
    generated: int = 1000
    """pictures generated of each class, for the judge"""


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    data: study.Data = field(default_factory=study.Data)
    models: Models = field(default_factory=Models)
    fitting: Fitting = field(default_factory=Fitting)
    measuring: Measuring = field(default_factory=Measuring)
    output: study.Output = field(default_factory=study.Output)


class Preset(NamedTuple):
    """What a data set wants where the command line says nothing."""

    latents: int
    latent_layers: int
    hidden: tuple[int, ...]
    epochs: int


DEFAULT = Preset(latents=64, latent_layers=4, hidden=(500, 500), epochs=80)
PRESETS = {"digits": Preset(latents=16, latent_layers=2, hidden=(256,), epochs=300)}
SMOKE = Preset(latents=4, latent_layers=2, hidden=(32,), epochs=2)


def plan(settings: Settings) -> tuple[Dataset, Config, Path]:
    """Turn the options into a data set, a config and a run folder, refusing what cannot work; writes nothing."""
    smoke, fitting = settings.output.smoke, settings.fitting
    study.check_latents(settings.models.latents)
    for name in ("num_samples", "class_samples"):
        cvae.checks.whole_number(f"--{name.replace('_', '-')}", getattr(settings.measuring, name))
    cvae.checks.whole_number("--generated", settings.measuring.generated, least=2)
    cvae.checks.whole_number("--many-samples", settings.measuring.many_samples, least=0)
    cvae.checks.whole_number("--pictures", settings.measuring.pictures, least=2)
    dataset = study.read(settings.data, smoke)
    asked: dict[str, Any] = {
        "latents": settings.models.latents,
        "latent_layers": settings.models.latent_layers,
        "hidden": settings.models.hidden,
        "epochs": fitting.epochs,
    }
    usual = SMOKE if smoke else PRESETS.get(dataset.name, DEFAULT)
    preset = Preset(**usual._asdict() | {name: value for name, value in asked.items() if value is not None})
    label = cvae.Label(dataset.num_classes)
    config = cvae.config.Config(
        experiment="mnist_likelihood",
        dataset=dataset.name,
        seed=fitting.seed,
        training=cvae.Training(
            epochs=preset.epochs,
            batch_size=fitting.batch_size,
            learning_rate=fitting.learning_rate,
            schedule="warmup_cosine",
            weight_decay=fitting.weight_decay,
            average=fitting.average,
            targets=fitting.targets,
            shift=fitting.shift,
            moved=fitting.moved,
        ),
        models={
            "cvae": cvae.Architecture(
                event_shape=dataset.train.x.shape[1:],
                condition=cvae.Mixed(label=label, shift=cvae.Continuous(2)) if fitting.shift > 0 else label,
                latent_size=preset.latents,
                latent_layers=preset.latent_layers,
                hidden=preset.hidden,
                body="residual",
                prior="learned",
            )
        },
    )
    out = study.folder("mnist_likelihood", dataset.name, smoke, settings.output.out)
    study.check_free(out, config, settings.output)
    model = cvae.make(config.models["cvae"])
    cvae.training.check_fit(model, *examples(config, dataset.train), config.training)
    return dataset, config, out


def examples(config: Config, split: Split) -> study.Examples:
    """Pictures with what the model's condition stores."""
    return split.x, {"label": split.label} | study.unmoved(config.models["cvae"], len(split.x))


def main(settings: Settings) -> Path:
    """Train the model, measure it on the test split, draw the figures; returns the run folder."""
    import jax

    dataset, config, out = plan(settings)
    if study.is_finished(out, settings, dataset):
        return out
    with study.Study(config, out, settings, dataset) as run:
        fit_key, test_key, draw_key = jax.random.split(jax.random.key(config.seed), 3)
        train, validation, test = (examples(config, part) for part in (dataset.train, dataset.validation, dataset.test))
        trained = run.fit("cvae", fit_key, train, validation)
        drawn_once = (cvae.preparation.binarise(config.seed, test[0]), test[1])
        results, classified = measure(trained, test_key, drawn_once, settings.measuring)
        label = np.repeat(np.arange(dataset.num_classes), settings.measuring.generated)
        generated = generate(trained, draw_key, label)
        results |= judge(dataset, generated, label, config.seed)

        title = f"{dataset.name}, {config.models['cvae'].latent_size} latents, {config.training.epochs} epochs"
        shown = generated.reshape(dataset.num_classes, -1, *generated.shape[1:])[:, :COLUMNS]
        names = [str(k) for k in range(dataset.num_classes)]
        run.draw("samples", cvae.plotting.grid(shown, f"{title}: drawn from p(x | y), a row a label", row_labels=names))
        diagram = cvae.charts.calibration(*classified.calibration, f"{title}\np(y | x) by Bayes' rule, test split")
        run.draw("calibration", diagram)
        run.draw("curves", pictures.curves({"cvae": trained}, f"{title}: training and validation"))
        summary = run.keep(test={"cvae": results}, seconds={"cvae": trained.seconds})
        report(dataset, summary["test"]["cvae"], summary["seconds"])
        run.say_where()
    return out


def measure(
    trained: study.Trained, key: jax.Array, test: study.Examples, measuring: Measuring
) -> tuple[dict[str, Any], cvae.classification.Classification]:
    """Nats, active units and classification on the test split, as they go into the summary; and the latter whole."""
    import jax

    model, params, _ = trained
    results = study.bound(model, params, key, *test)
    samples = measuring.class_samples
    scores = cvae.classification.class_log_likelihoods(model, params, key, *test, num_samples=samples, progress=True)
    classified = cvae.classification.classify(scores, test[1]["label"])
    results["classification"] = classified._asdict() | {"num_samples": samples}

    def likelihoods(scored: LogLikelihood, num_samples: int) -> dict[str, Any]:
        """Of the first pictures, as many as are scored: the means of log p(x | y) and of log p(x)."""
        # p(x) is the mean over the labels of p(x | y), almost all of it of one label: that one has all the samples.
        count = len(scored.value)
        joint = scores[:count].copy()
        joint[np.arange(count), test[1]["label"][:count]] = scored.value
        marginal = np.logaddexp.reduce(joint, axis=1) - np.log(joint.shape[1])
        return study.likelihood_of(scored, num_samples) | {"log_marginal": cvae.evaluation.mean(marginal)}

    scored = cvae.log_likelihood(model, params, key, *test, num_samples=measuring.num_samples, progress=True)
    results |= likelihoods(scored, measuring.num_samples)
    if measuring.many_samples > 0:
        first: study.Examples = jax.tree.map(lambda values: values[: measuring.pictures], test)
        few = cvae.evaluation.LogLikelihood(*(values[: measuring.pictures] for values in scored))
        many = cvae.log_likelihood(model, params, key, *first, num_samples=measuring.many_samples, progress=True)
        results["of_first_pictures"] = {
            "few": likelihoods(few, measuring.num_samples),
            "many": likelihoods(many, measuring.many_samples),
        }
    return results, classified


def generate(trained: study.Trained, key: jax.Array, label: np.ndarray) -> np.ndarray:
    """Draw a picture a label: z from the prior, then the mean of p(x | z, y).  Shapes: [N] -> [N, H, W, 1]."""
    import jax

    draw = jax.jit(cvae.sample, static_argnums=0)
    parts = np.array_split(label, max(1, len(label) // 1000))
    keys = jax.random.split(key, len(parts))
    architecture = trained.model.architecture
    assert architecture is not None
    drawn = [
        draw(*trained[:2], k, {"label": part} | study.unmoved(architecture, len(part)))
        for k, part in zip(keys, parts, strict=True)
    ]
    return np.concatenate([np.asarray(part) for part in drawn])


def judge(dataset: Dataset, generated: np.ndarray, label: np.ndarray, seed: int) -> dict[str, Any]:
    """What an independent judge reads, and how varied a class is; of generated pictures and of real ones."""
    from experiments import judge as judges

    print("training the judge on real pictures", flush=True)
    reader = judges.train(dataset.train.x, dataset.train.label, seed)
    fidelity, test = cvae.fidelity, dataset.test
    return {
        "agreement": {
            "generated": fidelity.agreement(reader.predict(generated), label),
            "real": fidelity.agreement(reader.predict(test.x), test.label),
            "pictures": len(label),
        },
        "diversity": {
            "generated": fidelity.diversity(generated, label, seed=seed).overall,
            "real": fidelity.diversity(test.x, test.label, seed=seed).overall,
        },
    }


def report(dataset: Dataset, test: dict[str, Any], seconds: dict[str, float]) -> None:
    """Print what was measured."""
    classification, agreement, diversity = test["classification"], test["agreement"], test["diversity"]
    percent = {
        "Bayes' rule, accuracy": classification["accuracy"],
        "expected calibration error": classification["expected_calibration_error"],
        "judge on generated": agreement["generated"],
        "judge on real": agreement["real"],
    }
    print(f"\n{dataset.name}, {len(dataset.test.x):,} test pictures, drawn black and white once; nats per picture")
    print(
        f"{'-log p(x | y)':28}{-test['log_likelihood']['value']:8.2f} +- "
        f"{test['log_likelihood']['standard_error']:.2f}   {test['num_samples']} samples, "
        f"of which {test['effective_samples']['value']:.0f} effective"
    )
    print(f"{'-log p(x)':28}{-test['log_marginal']['value']:8.2f} +- {test['log_marginal']['standard_error']:.2f}")
    for name in ("elbo", "rate", "distortion"):
        print(f"{name:28}{study.plus_minus(test[name]):>16}")
    print(f"{'active units':28}{test['active_units']['active']:8d}")
    for name, (value, error) in ((n, e.values()) for n, e in percent.items()):
        print(f"{name:28}{100 * value:8.2f} +- {100 * error:.2f} %")
    for name in ("generated", "real"):
        print(f"{'diversity, ' + name:28}{study.plus_minus(diversity[name]):>16}")
    print(f"{'training':28}{seconds['cvae']:8.0f} s")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
