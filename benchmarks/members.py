"""Sweeps of 1, 4, 16 and 64 members: seconds of an epoch of each member, one by one and side by side.

    python -m benchmarks.members                                  # about ten minutes on two cores
    python -m benchmarks.members --members 1 4 --examples 2000    # a short trial

The members are the article's model with two latents and seeds of their own. Side by side, one compiled program trains
them all: the default on an accelerator, and not on a CPU, whose cores one member keeps busy.
"""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import jax
from pydantic import Field

import cvae
from benchmarks import rounds
from cvae.settings import Count
from cvae.sweeps import Member
from experiments.harness.cli import options, protected
from experiments.harness.tables import render


@cvae.setting
class Settings:
    """Options of the benchmark."""

    members: Annotated[tuple[Count, ...], Field(min_length=1)] = (1, 4, 16, 64)
    """numbers of members"""
    examples: Count = 10_000
    """training examples per epoch"""
    rounds: Count = 3
    """epochs of each that are counted, after one that is not"""
    out: Path = Path("results/benchmark_members.json")
    """JSON file to write"""


def epoch(group: list[Member], examples: rounds.Examples, parallel: int) -> rounds.Row:
    """Train an epoch of each member; the seconds of each."""
    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    x, c = jax.device_put((examples.x, {"label": examples.label}))
    began = time.perf_counter()
    fitted = cvae.sweeps.fit_members(model, group, x, c, cvae.Training(epochs=1), parallel)
    return {"seconds": (time.perf_counter() - began) / len(group), "loss": fitted[0].history[-1].train.loss}


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "members") as record:
        examples, data = rounds.load_examples(settings.examples)
        results: dict[str, Any] = {}
        body = []
        for count in settings.members:
            group = cvae.sweeps.members(cvae.Sweep(latent_sizes=(2,), seeds=tuple(range(count))))
            contenders = {"one by one": partial(epoch, group, examples, 1)}
            if count > 1:
                contenders["side by side"] = partial(epoch, group, examples, count)
            for contender in contenders.values():
                contender()
            rows = rounds.interleave(contenders, settings.rounds, f"{count} members")
            alone = rounds.seconds_of(rows["one by one"])
            for name, each in rows.items():
                seconds = rounds.seconds_of(each)
                results[f"{count}, {name}"] = {
                    "seconds": seconds, "median": median(seconds), "over_one_by_one": rounds.ratio(seconds, alone)
                }  # fmt: skip
                ratio = f"{results[f'{count}, {name}']['over_one_by_one']:.2f}"
                body.append([f"{count}, {name}", rounds.spread(seconds), ratio])
        print(render(["members", "seconds per epoch and member", "relative to one by one"], body))
        config = {"members": settings.members, "examples": settings.examples, "rounds": settings.rounds, "data": data}
        record["config"], record["results"] = config, results


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
