"""Conditioning accuracy of generated digits against their diversity, over the temperature of the prior.

    python -m experiments.mnist_fidelity                                # of runs/mnist_likelihood
    python -m experiments.mnist_fidelity --run runs/mnist_label --temperatures 0.5 1

Latents of a trained model are drawn from the prior with its standard deviation times the temperature: 1 is the model
itself, and less gives digits that are more typical and vary less. A reference classifier, trained on real images only,
predicts their class. Measured are means of p(x | z, y), beside real grey test images, and draws of p(x | z, y), beside
test images binarised once. Results go to RUN_fidelity, a run folder of its own.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

import cvae
from cvae import checks, runs
from cvae.keys import named
from cvae.settings import NonNegative, Seed, replace
from experiments.harness import Row, Run, cli, finished, tables
from experiments.harness.generated import generate, measure
from experiments.harness.run import binarized
from experiments.measures import reference_classifier

NAME = "mnist_fidelity"


@cvae.setting
class Settings:
    """Options of the experiment."""

    run: Path = Path("runs/mnist_likelihood")
    """run folder of a model conditioned on the label"""
    model: str = "cvae"
    """which of its models"""
    temperatures: Annotated[tuple[NonNegative, ...], Field(min_length=1)] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    """factors on the prior's standard deviation"""
    generated: Annotated[int, Field(ge=2)] = 1000
    """images generated per class"""
    seed: Seed = 0
    """source of all randomness"""
    data_dir: Path | None = None
    """folder of prepared data sets; None is $TFDS_DATA_DIR, or ~/tensorflow_datasets"""
    out: Path | None = None
    """run folder; None is RUN_fidelity"""
    fresh: bool = False
    """start over, and discard what the run folder holds"""


TABLE = [
    Row("conditioning accuracy, means", "conditioning_accuracy", "percent"),
    Row("diversity", "diversity", "nats"),
    Row("conditioning accuracy, draws", "draws.conditioning_accuracy", "percent"),
    Row("diversity", "draws.diversity", "nats"),
]


def execute(settings: Settings) -> Path:
    """Generate, measure and write the summary, or print the one that is there; returns the new run folder."""
    trained_in, before = runs.read_summary(settings.run), runs.read_config(settings.run)
    checks.one_of("--model", settings.model, list(before.models))
    model, params = cvae.load(settings.run, settings.model)
    spec = before.models[settings.model].condition.spec
    checks.require({"label"} <= spec.keys() <= {"label", "shift"}, "--model", "be conditioned on the label", [*spec])
    config = replace(before, experiment=NAME, seed=settings.seed)
    out = settings.out or settings.run.absolute().with_name(f"{settings.run.absolute().name}_fidelity")
    check_folder(out, config, settings)
    dataset = cvae.data.load(config.dataset, settings.data_dir)
    data = (dataset, params)
    if summary := finished(out, settings, data):
        print(table(summary))
        return out
    with Run(config, out, settings, data) as run:
        print("training the reference classifier on real images", flush=True)
        classifier = reference_classifier.train(*dataset.train, settings.seed)
        label = np.repeat(np.arange(dataset.num_classes), settings.generated)
        generated = []
        for temperature in settings.temperatures:
            print(f"temperature {temperature:g}", flush=True)
            draw = partial(generate, model, params, named(run.key, "figures"), label, temperature=temperature)
            means, draws = (measure(classifier, draw(mean=mean), label) for mean in (True, False))
            generated.append({"temperature": temperature} | means._asdict() | {"draws": draws})
        x, y = dataset.test
        drawn = measure(classifier, binarized(x, {})[0].astype(np.float32), y)
        real = measure(classifier, x, y)._asdict() | {"draws": drawn}
        source = {name: trained_in[name] for name in ("experiment", "commit", "date")}
        summary = run.write_summary(
            generated=generated, real=real, images=len(label), trained_in=source, model=settings.model
        )
    print(f"\n{table(summary)}\n\n{out / 'summary.json'}")
    return out


def check_folder(out: Path, config: cvae.config.Config, settings: Settings) -> None:
    """Refuse a folder that is not for these results; that of a trained model is never discarded."""
    if (out / "config.json").exists():
        held = runs.read_config(out).experiment
        checks.require(held == NAME, "--out", f"hold a run of {NAME} or none", f"one of {held}")
    runs.check_folder(out, config, fresh=settings.fresh)


def table(summary: dict[str, Any]) -> str:
    """The results as they are printed."""
    records = {f"temperature {row['temperature']:g}": row for row in summary["generated"]}
    records["real, grey and binarised"] = summary["real"]
    return tables.by_row(TABLE, records, f"{summary['dataset']}, {summary['images']:,} generated images")


def main() -> None:
    """The command line."""
    execute(cli.options(Settings, __doc__))


if __name__ == "__main__":
    cli.protected(main)
