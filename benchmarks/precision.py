"""What bfloat16 products cost in nats: the article's model in both precisions.

    python -m benchmarks.precision                                  # about eight minutes on two cores
    python -m benchmarks.precision --dataset digits --seeds 0 1     # a short trial

For every seed a model is fitted in float32 and one in `--precision bfloat16`, from the same initial parameters and with
the same examples and noise. Two differences of the test loss (-ELBO) are taken image by image, with the same noise, so
that their standard errors are those of the difference:

    computing    the parameters of the float32 fit, evaluated with bfloat16 products and without
    training     the bfloat16 fit, evaluated as it was trained, less the float32 fit
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
from pydantic import Field

import cvae
from benchmarks import rounds
from cvae.evaluation import Estimate, mean
from cvae.settings import Count, CountOrZero
from experiments.harness.cli import options, protected
from experiments.harness.tables import render


@cvae.setting
class Settings:
    """Options of the benchmark."""

    dataset: str = "mnist"
    """the data set"""
    seeds: Annotated[tuple[CountOrZero, ...], Field(min_length=1)] = (0, 1, 2)
    """seeds of the fits"""
    epochs: Count = 20
    """epochs of a fit"""
    out: Path = Path("results/benchmark_precision.json")
    """JSON file to write"""


def losses(settings: Settings, seed: int, dataset: cvae.data.Dataset) -> dict[str, np.ndarray]:
    """The loss of every test image: of the two fits, and of the first one computed in bfloat16."""
    architecture = cvae.Architecture(event_shape=dataset.train.x.shape[1:], condition=cvae.Label(dataset.num_classes))
    models = {name: cvae.make(cvae.replace(architecture, precision=name)) for name in ("float32", "bfloat16")}
    init, fit, test = jax.random.split(jax.random.key(seed), 3)
    params = jax.jit(models["float32"].init)(init)
    train, held_out = ((part.x, {"label": part.label}) for part in (dataset.train, dataset.test))
    training = cvae.Training(epochs=settings.epochs)
    fitted = {name: cvae.fit(model, params, fit, *train, training).params for name, model in models.items()}

    def loss(model: str, params: Any) -> np.ndarray:
        return -np.asarray(cvae.evaluate(models[model], params, test, *held_out).value, np.float64)

    return {
        "float32": loss("float32", fitted["float32"]),
        "computing": loss("bfloat16", fitted["float32"]),
        "training": loss("bfloat16", fitted["bfloat16"]),
    }


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "precision") as record:
        dataset = cvae.data.load(settings.dataset)
        results, body = {}, []
        for seed in settings.seeds:
            found = losses(settings, seed, dataset)
            exact = found.pop("float32")
            differences = {name: mean(values - exact) for name, values in found.items()}
            results[str(seed)] = {"loss": mean(exact)._asdict()} | {
                name: difference._asdict() for name, difference in differences.items()
            }
            body.append([str(seed), shown(mean(exact), ""), *(shown(each, "+") for each in differences.values())])
        print(render(["seed", "loss in float32", "computing in bfloat16", "training in bfloat16"], body))
        record["config"] = {"dataset": dataset.name, "seeds": settings.seeds, "epochs": settings.epochs}
        record["results"] = results


def shown(estimate: Estimate, sign: str) -> str:
    """An estimate with its standard error."""
    return f"{estimate.value:{sign}.3f} ± {estimate.standard_error:.3f}"


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
