"""Seconds and memory of importance sampling at the article's size: log p(x | y) of 10,000 pictures, 500 samples each.

    python -m benchmarks.likelihood
    python -m benchmarks.likelihood --examples 1000 --rounds 1     # a trial

The model is the article's, 512 ReLU units and 2 latents, untrained: the time does not depend on the weights. The
floor is the decoder's matrix products alone, at the rate JAX reaches on a large one in the same round. Peak memory is
the whole process's, with Python, JAX and the pictures.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np

import cvae
from cvae import checks
from experiments import command

LATENTS, HIDDEN, PIXELS, CLASSES = 2, 512, 784, 10
LARGE = 2048  # side of the product that measures the floor's rate


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 10_000
    """pictures to score"""
    num_samples: int = 500
    """importance samples a picture"""
    rounds: int = 3
    """times it is measured, after a first chunk that compiles"""
    out: Path = Path("results/benchmark_likelihood.json")
    """JSON file to write"""


def rate() -> float:
    """Floating-point operations a second of one large matrix product."""
    import jax

    square = jax.random.normal(jax.random.key(0), (LARGE, LARGE))
    product = jax.jit(lambda a: a @ a)
    product(square).block_until_ready()
    began = time.perf_counter()
    for _ in range(5):
        square = product(square) / LARGE
    square.block_until_ready()
    return float(5 * 2 * LARGE**3 / (time.perf_counter() - began))


def main(settings: Settings) -> None:
    """Measure, print and write the file."""
    for name in ("examples", "num_samples", "rounds"):
        checks.whole_number(f"--{name.replace('_', '-')}", getattr(settings, name))
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    import jax

    settings.out.parent.mkdir(parents=True, exist_ok=True)
    commit = cvae.runs.commit()
    draw = np.random.default_rng(0).integers
    x = draw(256, size=(settings.examples, 28, 28, 1), dtype=np.uint8)
    c = {"label": draw(CLASSES, size=settings.examples)}
    model = cvae.make(cvae.Architecture((28, 28, 1), cvae.Label(CLASSES), LATENTS, (HIDDEN,)))
    params = model.init(jax.random.key(0))

    def score(rows: int) -> float:
        began = time.perf_counter()
        given = {"label": c["label"][:rows]}
        cvae.log_likelihood(model, params, jax.random.key(1), x[:rows], given, num_samples=settings.num_samples)
        return time.perf_counter() - began

    compiling = score(min(100, settings.examples))
    seconds, rates = [], []
    for number in range(settings.rounds):
        rates.append(rate())
        seconds.append(score(settings.examples))
        print(f"round {number + 1} of {settings.rounds}: {seconds[-1]:.1f} s", file=sys.stderr)
    flops = 2 * settings.examples * settings.num_samples * ((LATENTS + CLASSES) * HIDDEN + HIDDEN * PIXELS)
    floors = [flops / each for each in rates]
    # Kilobytes on Linux, bytes on macOS.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    results = {
        "seconds": seconds,
        "median": median(seconds),
        "over_floor": median(a / b for a, b in zip(seconds, floors, strict=True)),
        "floor": median(floors),
        "first_chunk": compiling,
        "peak_memory_gb": peak / 1e9,
    }
    config = {"examples": settings.examples, "num_samples": settings.num_samples, "rounds": settings.rounds}
    record = {"benchmark": "likelihood", "config": config, "results": results}
    cvae.runs.write_json(settings.out, record | cvae.runs.provenance() | {"commit": commit})
    print(
        f"{settings.examples:,} pictures, {settings.num_samples} samples: {results['median']:.1f} s in the median, "
        f"{results['over_floor']:.2f} times the floor, {results['peak_memory_gb']:.2f} GB at most; {settings.out}"
    )


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
