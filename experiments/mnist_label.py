"""The article's experiment: a CVAE conditioned on the label draws digits, beside an unconditional VAE.

    python -m experiments.mnist_label                        # MNIST, or the 8x8 digits without a network
    python -m experiments.mnist_label --dataset fashion_mnist --latent-size 8 --epochs 40

Both models have the size and settings of Kristiadi 2016: 512 ReLU units, 2 latents, batch 50, 20 epochs, Adam 1e-3,
grey targets. Expected on MNIST: test loss about 131 nats for the CVAE and 150 for the VAE, in one to two minutes on
two cores; on the 8x8 digits 21 and 24 nats, in half a minute. Results go to runs/mnist_label.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from matplotlib.figure import Figure

import cvae
from cvae.settings import CountOrZero
from experiments import harness
from experiments.harness import Row, tables
from experiments.harness.label_figures import check_digit, label_figures


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment."""

    architecture: cvae.Architecture = cvae.Architecture()
    training: cvae.Training = cvae.Training()
    digit: CountOrZero = 5
    """the class whose manifold is drawn"""


CONFIGS = {
    "mnist": Settings(),
    "digits": Settings(architecture=cvae.Architecture(hidden=(256,)), training=cvae.Training(epochs=300)),
    "smoke": Settings(architecture=cvae.Architecture(hidden=(64,)), training=cvae.Training(epochs=3), smoke=True),
}

TABLE = [
    Row("loss", "loss"),
    Row("log-likelihood", "log_likelihood"),
    Row("KL", "kl"),
    Row("training", "seconds", "seconds"),
]


def models(settings: Settings, dataset: cvae.data.Dataset) -> dict[str, cvae.Architecture]:
    """Two models, alike but for the label."""
    shape = dataset.train.x.shape[1:]
    return {
        "cvae": cvae.replace(settings.architecture, event_shape=shape, condition=cvae.Label(dataset.num_classes)),
        "vae": cvae.replace(settings.architecture, event_shape=shape),
    }


def evaluate(job: harness.Job) -> dict[str, Any]:
    """Means over the test split, in nats per image, each with its standard error."""
    results, mean = {}, cvae.evaluation.mean
    for name, trained in job.trained.items():
        terms = cvae.evaluate(trained.model, trained.params, job.key("test"), *job.split(name, "test"))
        results[name] = {
            "loss": mean(-terms.value),
            "log_likelihood": mean(terms.log_likelihood),
            "kl": mean(terms.kl),
            "images": len(terms.value),
        }
    return results


def figures(job: harness.Job) -> Iterator[tuple[str, Figure]]:
    """Latents, reconstructions, handwriting, a manifold, and training curves."""
    return label_figures(job, job.settings.digit)


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    return tables.by_row(TABLE, tables.with_seconds(summary), f"{summary['dataset']}, nats per image")


EXPERIMENT = harness.Experiment(
    "mnist_label", CONFIGS, models, evaluate, figures, table,
    check=lambda settings, dataset: check_digit(settings.digit, dataset),
)  # fmt: skip

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
