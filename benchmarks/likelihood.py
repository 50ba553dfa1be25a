"""Seconds and memory of importance sampling: log p(x | y) of 10,000 images by the article's model, 500 samples each.

    python -m benchmarks.likelihood
    python -m benchmarks.likelihood --examples 1000 --rounds 1     # a short trial

The model has 512 ReLU units and 2 latents, and is not trained: the time does not depend on the weights. The floor is
the decoder's matrix products alone, at the rate JAX reaches on a large one in the same round. Peak memory is that of
the whole process, with Python, JAX and the images.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median

import jax
import numpy as np

import cvae
from benchmarks import rounds
from benchmarks.contenders import CLASSES, HIDDEN, LATENTS, PIXELS
from benchmarks.floor import matmul_rate
from benchmarks.rounds import Row
from cvae.settings import Count
from experiments.harness.cli import options, protected


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 10_000
    """images to score"""
    num_samples: Count = 500
    """importance samples per image"""
    rounds: Count = 3
    """how often it is measured, after a first batch that compiles"""
    out: Path = Path("results/benchmark_likelihood.json")
    """JSON file to write"""


def measure(settings: Settings) -> Row:
    """Score, beside the floor; in seconds, with the memory of the process."""
    draw = np.random.default_rng(0).integers
    x = draw(256, size=(settings.examples, 28, 28, 1), dtype=np.uint8)
    label = draw(CLASSES, size=settings.examples)
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(CLASSES), LATENTS, (HIDDEN,)))
    params = jax.jit(model.init)(jax.random.key(0))

    def score(examples: int) -> Row:
        began = time.perf_counter()
        c = {"label": label[:examples]}
        cvae.log_likelihood(model, params, jax.random.key(1), x[:examples], c, num_samples=settings.num_samples)
        return {"seconds": time.perf_counter() - began}

    flops = 2 * settings.examples * settings.num_samples * ((LATENTS + CLASSES) * HIDDEN + HIDDEN * PIXELS)
    first = score(min(100, settings.examples))["seconds"]
    contenders = {"floor": lambda: {"seconds": flops / matmul_rate()}, "scoring": lambda: score(settings.examples)}
    rows = rounds.interleave(contenders, settings.rounds, "importance sampling")
    seconds, floor = rounds.seconds_of(rows["scoring"]), rounds.seconds_of(rows["floor"])
    peak = rounds.peak_memory()
    return {
        "seconds": seconds,
        "median": median(seconds),
        "over_floor": rounds.ratio(seconds, floor),
        "floor": median(floor),
        "first_chunk": first,
        "peak_memory_gb": peak and peak / 1e9,
    }


def main(settings: Settings) -> None:
    """Measure, print and write the file."""
    with rounds.record(settings.out, "likelihood") as record:
        results = measure(settings)
        peak = results["peak_memory_gb"]
        print(
            f"{settings.examples:,} images, {settings.num_samples} samples: {rounds.spread(results['seconds'])} s, "
            f"{results['over_floor']:.2f} times the floor" + (f", {peak:.2f} GB at most" if peak else "")
        )
        config = {"examples": settings.examples, "num_samples": settings.num_samples, "rounds": settings.rounds}
        record["config"], record["results"] = config, results


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
