"""What a sweep costs relative to training its models one by one.

    python -m benchmarks.sweep                                           # about a quarter of an hour on two cores
    python -m benchmarks.sweep --examples 5000 --epochs 1 --rounds 2     # a short trial

The models: the article's, 512 ReLU units, with 1, 2, 4, 8, 16 and 32 latents and two seeds each, conditioned on the
label and unconditional. Compared are

    sweep     `sweeps.fit_members`: latent sizes are masks over the widest model, one compiled program for all
    masked    the same models, a loop over `fit` with the same masks: what the sweep adds
    own       models of their own sizes, a loop over `fit`: what masks and width cost

All run in one process. Each first trains one epoch, which compiles its programs and is reported apart. `sweep` and
`masked` train the same models, so their losses must agree to a thousandth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import jax

import cvae
from benchmarks import rounds
from benchmarks.rounds import Row
from cvae.conditions import Condition
from cvae.settings import Count, replace
from cvae.sweeps import Member
from experiments.harness.cli import options, protected
from experiments.harness.tables import render

CLASSES = 10
SAME_LOSS = 1e-3  # relative


@cvae.setting
class Settings:
    """Options of the benchmark."""

    examples: Count = 55_000
    """training examples per epoch"""
    epochs: Count = 2
    """epochs per model"""
    rounds: Count = 3
    """how often everything is trained, after the compiling epoch"""
    latent_sizes: tuple[Count, ...] = (1, 2, 4, 8, 16, 32)
    """numbers of latents"""
    seeds: tuple[int, ...] = (0, 1)
    """seeds of each"""
    parallel: Count | None = None
    """models of the sweep trained side by side; by default 1 on a CPU and all on an accelerator"""
    out: Path = Path("results/benchmark_sweep.json")
    """JSON file to write"""


Train = Callable[[int], list[float]]  # all members, for a number of epochs; returns their last losses


def ways(condition: Condition, members: list[Member], x: Any, c: Any, parallel: int | None) -> dict[str, Train]:
    """The contenders for one condition."""
    x, c = jax.device_put((x, c))
    architecture = cvae.Architecture(condition=condition, latent_size=max(member.latent_size for member in members))
    wide = cvae.make(architecture)

    def fit(model: cvae.CVAE, params: Any, key: Any, member: Member, epochs: int) -> float:
        training = member.training(cvae.Training(epochs=epochs))
        return cvae.fit(model, params, key, x, c, training, progress=False).history[-1].train.loss

    def sweep(epochs: int) -> list[float]:
        fitted = cvae.sweeps.fit_members(wide, members, x, c, cvae.Training(epochs=epochs), parallel)
        return [each.history[-1].train.loss for each in fitted]

    def masked(epochs: int) -> list[float]:
        return [fit(cvae.masked(wide), *member.init(wide), member, epochs) for member in members]

    def own(epochs: int) -> list[float]:
        losses = []
        for member in members:
            model, key = cvae.make(replace(architecture, latent_size=member.latent_size)), jax.random.key(member.seed)
            params = jax.jit(model.init)(cvae.keys.named(key, "init"))
            losses.append(fit(model, params, key, member, epochs))
        return losses

    return {"sweep": sweep, "masked": masked, "own": own}


def timed(train: Train, epochs: int) -> Row:
    """Train; returns the seconds, and the losses."""
    began = time.perf_counter()
    losses = train(epochs)
    return {"seconds": time.perf_counter() - began, "losses": losses}


def compiled() -> int:
    """How many training programs this process has compiled."""
    one_by_one: Any = cvae.training.train_steps
    return int(one_by_one._cache_size()) + cvae.sweeps._side_by_side.cache_info().currsize


def measure(name: str, contenders: dict[str, Train], members: list[Member], epochs: int, count: int) -> dict[str, Row]:
    """Compile everything, then time the contenders in turn."""
    summary: dict[str, Row] = {}
    for contender, train in contenders.items():
        before = compiled()
        first = timed(train, 1)["seconds"]
        summary[contender] = {"first_epoch": first, "programs": compiled() - before}
        print(f"{name}, warm-up: {contender} {first:.1f} s, {summary[contender]['programs']} compiled")
    rows = rounds.interleave({n: partial(timed, train, epochs) for n, train in contenders.items()}, count, name)
    ours = rounds.seconds_of(rows["sweep"])
    for contender, row in summary.items():
        seconds = rounds.seconds_of(rows[contender])
        row |= {"seconds": seconds, "losses": rows[contender][-1]["losses"], "median": median(seconds)}
        if contender != "sweep":
            row["sweep_over_this"] = rounds.ratio(ours, seconds)
    for member, swept, alone in zip(members, summary["sweep"]["losses"], summary["masked"]["losses"], strict=True):
        if abs(swept - alone) > SAME_LOSS * abs(alone):
            print(f"{name}, {member.name}: loss {swept:.2f} in the sweep, {alone:.2f} alone: is it the same model?")
    return summary


def report(results: dict[str, dict[str, Row]]) -> None:
    """Print the table."""
    body = []
    for name, rows in results.items():
        for contender, row in rows.items():
            over = f"{row['sweep_over_this']:.3f}" if contender != "sweep" else "-"
            first, programs = f"{row['first_epoch']:.1f}", str(row["programs"])
            body.append([name, contender, programs, first, rounds.spread(row["seconds"]), over])
    head = ["condition", "trained as", "programs", "first epoch, s", "seconds (min - max)", "sweep over this"]
    print("\n" + render(head, body, text_columns=2))


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    with rounds.record(settings.out, "sweep") as record:
        members = cvae.sweeps.members(cvae.Sweep(settings.latent_sizes, settings.seeds))
        examples, data = rounds.load_examples(settings.examples)
        conditions: dict[str, Condition] = {"label": cvae.Label(CLASSES), "none": cvae.Unconditional()}
        results = {}
        for name, condition in conditions.items():
            c = {"label": examples.label} if condition.spec else {}
            contenders = ways(condition, members, examples.x, c, settings.parallel)
            results[name] = measure(name, contenders, members, settings.epochs, settings.rounds)
        report(results)
        record["config"] = cvae.settings.to_json(settings) | {"data": data}
        del record["config"]["out"]
        record["results"] = results


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
