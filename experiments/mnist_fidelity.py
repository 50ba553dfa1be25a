"""Whether digits come out as asked for, against how varied they are: over the temperature of the prior.

    python -m experiments.mnist_fidelity                                # of runs/mnist_likelihood
    python -m experiments.mnist_fidelity --run runs/mnist_label --temperatures 0.5 1

The latents of a trained model are drawn from the prior with its standard deviation times the temperature: 1 is the
model itself, and less is more typical and less varied. An independent judge, trained on real pictures alone, reads the
digits; beside its agreement stands what it makes of real test pictures, and beside the diversity within a class that of
real ones. Numbers go to RUN_fidelity, a run folder of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import cvae
from experiments import command, study


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    run: Path = Path("runs/mnist_likelihood")
    """run folder of a model that is told the label"""
    model: str = "cvae"
    """which of its models"""
    temperatures: tuple[float, ...] = (1.0, 0.9, 0.8, 0.7, 0.6, 0.5)
    """factors on the prior's standard deviation"""
    generated: int = 1000
    """pictures generated of each class"""
    seed: int = 0
    """source of all randomness"""
    data_dir: Path | None = None
    """folder of prepared data sets; $TFDS_DATA_DIR or ~/tensorflow_datasets if left out"""
    out: Path | None = None
    """run folder; RUN_fidelity if left out, and what it held before is replaced"""


def main(settings: Settings) -> Path:
    """Draw, judge and write; returns the new run folder."""
    checks = cvae.checks
    checks.whole_number("--generated", settings.generated, least=2)
    checks.require(len(settings.temperatures) > 0, "--temperatures", "name at least one", "none")
    for temperature in settings.temperatures:
        checks.finite_number("--temperatures", temperature, least=0)
    import jax

    model, params, config = cvae.load(settings.run, settings.model)
    condition = config.models[settings.model].condition
    alone = set(condition.stored_names) - {"shift"} == {"label"}
    checks.require(alone, "--model", "be told the label alone", repr(condition))
    trained_in = provenance(settings.run)
    dataset = cvae.data.load(config.dataset, settings.data_dir)
    asked = replace(config, experiment="mnist_fidelity", seed=settings.seed)
    out = settings.out or settings.run.absolute().with_name(f"{settings.run.absolute().name}_fidelity")
    cvae.runs.check_discardable(out)
    if (out / "config.json").exists():  # a trained model must not go for the measuring of another
        there = cvae.runs.read_config(out).experiment
        checks.require(there == "mnist_fidelity", "--out", "hold a run of mnist_fidelity or none", f"one of {there}")
    if out.exists():
        with cvae.runs.Lock(out):
            cvae.runs.discard(out)
    with study.Study(asked, out) as kept:
        label = np.repeat(np.arange(dataset.num_classes), settings.generated)
        draw = jax.jit(cvae.sample, static_argnums=0)
        print("training the judge on real pictures", flush=True)
        from experiments import judge

        reader = judge.train(dataset.train.x, dataset.train.label, settings.seed)
        rows = []
        unmoved = study.unmoved(config.models[settings.model], settings.generated)
        for temperature in settings.temperatures:
            keys = jax.random.split(jax.random.key(settings.seed), dataset.num_classes)
            of_class = np.split(label, dataset.num_classes)
            drawn = [
                draw(model, params, key, {"label": part} | unmoved, temperature=temperature)
                for key, part in zip(keys, of_class, strict=True)
            ]
            pictures = np.concatenate([np.asarray(part) for part in drawn])
            rows.append({"temperature": temperature} | measured(reader, pictures, label, settings.seed))
            print(line(f"temperature {temperature:g}", rows[-1]), flush=True)
        real = measured(reader, dataset.test.x, dataset.test.label, settings.seed)
        kept.keep(generated=rows, real=real, pictures=len(label), trained_in=trained_in, model=settings.model)
        print(line("real pictures", real))
        print(f"\n{dataset.name}; all of it in {out / 'summary.json'}")
    return out


def measured(reader: Any, x: np.ndarray, label: np.ndarray, seed: int) -> dict[str, Any]:
    """Agreement with the judge, and diversity within a class.  Shapes: [N, H, W, 1], [N]."""
    fidelity = cvae.fidelity
    return {
        "agreement": fidelity.agreement(reader.predict(x), label),
        "diversity": fidelity.diversity(x, label, seed=seed).overall,
    }


def provenance(run: Path) -> dict[str, Any]:
    """Which run the model came from, as its own summary says."""
    summary = cvae.runs.read_summary(run)
    return {name: summary[name] for name in ("experiment", "commit", "date")}


def line(name: str, row: dict[str, Any]) -> str:
    """A row as it is printed."""
    agreement = tuple(100 * part for part in row["agreement"])
    return f"{name:18}{study.plus_minus(agreement):>16} % as asked{study.plus_minus(row['diversity']):>16} diversity"


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
