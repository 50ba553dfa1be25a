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


class Contest:
    """The contenders for one condition; each trains all models and returns their last losses."""

    def __init__(self, condition: Condition, members: list[Member], x: Any, c: Any, parallel: int | None):
        self.members, self.parallel = members, parallel
        self.x, self.c = jax.device_put((x, c))
        widest = max(member.latent_size for member in members)
        self.architecture = cvae.Architecture(condition=condition, latent_size=widest)
        self.contenders: dict[str, Callable[[int], list[float]]] = {
            "sweep": self.sweep, "masked": self.masked, "own": self.own,
        }  # fmt: skip

    def sweep(self, epochs: int) -> list[float]:
        """By `fit_members`."""
        model, training = cvae.make(self.architecture), cvae.Training(epochs=epochs)
        fitted = cvae.sweeps.fit_members(model, self.members, self.x, self.c, training, self.parallel)
        return [each.history[-1].train.loss for each in fitted]

    def masked(self, epochs: int) -> list[float]:
        """Each of the wide, masked models by itself."""
        wide = cvae.make(self.architecture)
        return [self._fit(cvae.masked(wide), *member.init(wide), member, epochs) for member in self.members]

    def own(self, epochs: int) -> list[float]:
        """Each as a model of its own size."""
        losses = []
        for member in self.members:
            model = cvae.make(replace(self.architecture, latent_size=member.latent_size))
            key = jax.random.key(member.seed)
            params = jax.jit(model.init)(cvae.keys.named(key, "init"))
            losses.append(self._fit(model, params, key, member, epochs))
        return losses

    def _fit(self, model: cvae.CVAE, params: Any, key: Any, member: Member, epochs: int) -> float:
        training = member.training(cvae.Training(epochs=epochs))
        return cvae.fit(model, params, key, self.x, self.c, training, progress=False).history[-1].train.loss


def timed(contender: Callable[[int], list[float]], epochs: int) -> Row:
    """Train; returns the seconds, and the losses."""
    began = time.perf_counter()
    losses = contender(epochs)
    return {"seconds": time.perf_counter() - began, "losses": losses}


def compiled() -> int:
    """How many training programs this process has compiled."""
    one_by_one: Any = cvae.training.train_steps
    return int(one_by_one._cache_size()) + cvae.sweeps._side_by_side.cache_info().currsize


def measure(name: str, contest: Contest, epochs: int, count: int) -> dict[str, Row]:
    """Compile everything, then time the contenders in turn."""
    summary: dict[str, Row] = {}
    for contender, train in contest.contenders.items():
        before = compiled()
        first = timed(train, 1)["seconds"]
        summary[contender] = {"first_epoch": first, "programs": compiled() - before}
        print(f"{name}, warm-up: {contender} {first:.1f} s, {summary[contender]['programs']} compiled")
    contenders = {n: (lambda train=train: timed(train, epochs)) for n, train in contest.contenders.items()}
    rows = rounds.interleave(contenders, count, name)
    ours = rounds.seconds_of(rows["sweep"])
    for contender, row in summary.items():
        seconds = rounds.seconds_of(rows[contender])
        row |= {"seconds": seconds, "losses": rows[contender][-1]["losses"], "median": median(seconds)}
        if contender != "sweep":
            row["sweep_over_this"] = rounds.ratio(ours, seconds)
    pairs = zip(contest.members, summary["sweep"]["losses"], summary["masked"]["losses"], strict=True)
    for member, swept, alone in pairs:
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
    rounds.check_out(settings.out)
    members = cvae.sweeps.members(cvae.Sweep(settings.latent_sizes, settings.seeds))
    examples, data = rounds.load_examples(settings.examples)
    load, provenance = rounds.load_average(), cvae.runs.provenance()
    conditions: dict[str, Condition] = {"label": cvae.Label(CLASSES), "none": cvae.Unconditional()}
    results = {}
    for name, condition in conditions.items():
        c = {"label": examples.label} if condition.spec else {}
        contest = Contest(condition, members, examples.x, c, settings.parallel)
        results[name] = measure(name, contest, settings.epochs, settings.rounds)
    report(results)
    config = cvae.settings.to_json(settings) | {"data": data}
    del config["out"]
    rounds.write(settings.out, "sweep", config, results, provenance, load_average=load)


if __name__ == "__main__":
    protected(lambda: main(options(Settings, __doc__, package="benchmarks")))
