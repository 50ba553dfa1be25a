"""What a sweep costs over its members: seconds of `sweeps.fit_members`, beside the same members one by one.

    python -m benchmarks.sweep                                           # about a quarter of an hour on two cores
    python -m benchmarks.sweep --examples 5000 --epochs 1 --rounds 2     # a trial, in a minute

The members: the article's model, 512 ReLU units, at 1, 2, 4, 8, 16 and 32 latents by two seeds, with a label and
without. Compared are

    sweep     `sweeps.fit_members`: latent sizes are masks over the widest model, one compiled program for all
    masked    the same members, a loop over `training.epoch` with the same masks: what the sweep adds to its steps
    own       models of each member's own size, a loop over `training.epoch`: what the masks and the width cost

All in one process. Each trains one epoch of each program first, which compiles it; those seconds are given apart.
Then, in every round, each trains all members while the others wait, the first of them another in every round; ratios
are taken within a round, and their median is over rounds. `sweep` and `masked` are the same members to the last digit
on a CPU, which is checked: their losses may not differ by more than a thousandth.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import cvae
from benchmarks.epoch import load_average, load_examples
from cvae import checks
from experiments import command

if TYPE_CHECKING:
    import numpy as np

    from cvae.conditions import Condition
    from cvae.config import Training
    from cvae.model import CVAE
    from cvae.sweeps import Member

CLASSES = 10
SAME_LOSS = 1e-3  # relative; by more than this two losses are not those of one member


@dataclass(frozen=True)
class Settings:
    """Options of the benchmark."""

    examples: int = 55_000
    """training examples an epoch"""
    epochs: int = 2
    """epochs a member"""
    rounds: int = 3
    """times that everything is trained, after the compiling epoch"""
    latent_sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """numbers of latents"""
    seeds: tuple[int, ...] = (0, 1)
    """seeds of each"""
    at_once: int | None = None
    """members of the sweep side by side; 1 on a CPU and all on an accelerator if left out"""
    out: Path = Path("results/benchmark_sweep.json")
    """JSON file to write"""


class Contest:
    """The contenders on one type of condition; each returns the last loss of every member."""

    def __init__(self, model: CVAE, members: list[Member], x: np.ndarray, c: Any, training: Training, at_once: Any):
        import jax

        self.model, self.members, self.training, self.at_once = model, members, training, at_once
        self.stored, (self.x, self.c) = (x, c), jax.device_put((x, c))
        self.contenders = {"sweep": self.sweep, "masked": self.masked, "own": self.own}

    def sweep(self, epochs: int) -> list[float]:
        """By `fit_members`, data transfer included."""
        training = replace(self.training, epochs=epochs)
        trained = cvae.sweeps.fit_members(
            self.model, self.members, *self.stored, training, at_once=self.at_once, progress=False
        )
        return [member.history[-1].loss for member in trained]

    def masked(self, epochs: int) -> list[float]:
        """Each member of the wide model by itself."""
        import jax
        import numpy as np

        model, losses = cvae.masked(self.model), []
        assert self.model.architecture is not None
        widest = self.model.architecture.latent_size
        for member in self.members:
            mask = (np.arange(widest) < member.latent_size).astype(np.float32)
            one = cvae.sweeps.begin(model, mask[None], np.array([member.seed], np.uint32), self.program)
            losses.append(self.train(model, jax.tree.map(lambda leaf: leaf[0], one), member, epochs))
        return losses

    def own(self, epochs: int) -> list[float]:
        """Models as small as the members."""
        import jax

        losses = []
        assert self.model.architecture is not None
        for member in self.members:
            model = cvae.make(replace(self.model.architecture, latent_size=member.latent_size))
            params = jax.jit(model.init)(jax.random.key(member.seed))
            losses.append(self.train(model, cvae.training.start(params, self.training), member, epochs))
        return losses

    @property
    def program(self) -> Training:
        """What of the settings is compiled."""
        return cvae.training.recipe(self.training)

    def train(self, model: CVAE, state: Any, member: Member, epochs: int) -> float:
        """The loss of a member's last epoch, with the keys that the sweep gives it."""
        import jax

        knobs = cvae.training.Knobs(member.learning_rate, member.beta)
        prepare = cvae.model.default_preparation(model)
        key, loss = jax.random.fold_in(jax.random.key(member.seed), 1), 0.0
        for number in range(1, epochs + 1):
            state, terms = cvae.training.epoch(
                model,
                state,
                jax.random.fold_in(key, number),
                self.x,
                self.c,
                knobs,
                recipe=self.program,
                prepare=prepare,
            )
            loss = cvae.training.means(terms, number).loss  # waits for the device
        return loss


def programs() -> int:
    """Training programs compiled so far in this process."""
    compiled: tuple[Any, ...] = (cvae.sweeps.epochs, cvae.training.epoch)
    return sum(program._cache_size() for program in compiled)


def timed(contender: Callable[[int], list[float]], epochs: int) -> tuple[float, list[float]]:
    """Seconds, and the losses."""
    began = time.perf_counter()
    losses = contender(epochs)
    return time.perf_counter() - began, losses


def measure(name: str, contest: Contest, epochs: int, rounds: int) -> dict[str, Any]:
    """Compile everything, then time everybody in turn."""
    rows: dict[str, dict[str, Any]] = {}
    for contender, train in contest.contenders.items():
        before = programs()
        seconds, _ = timed(train, 1)
        rows[contender] = {"first_epoch": seconds, "programs": programs() - before, "seconds": []}
        print(f"{name}, warm-up: {contender} {seconds:.1f} s, {rows[contender]['programs']} compiled")
    for number in range(rounds):
        names = list(rows)
        first = number % len(names)
        for contender in names[first:] + names[:first]:
            seconds, rows[contender]["losses"] = timed(contest.contenders[contender], epochs)
            rows[contender]["seconds"].append(seconds)
        line = ", ".join(f"{contender} {row['seconds'][-1]:.1f} s" for contender, row in rows.items())
        print(f"{name}, round {number + 1} of {rounds}: {line}")
    for member, ours, theirs in zip(contest.members, rows["sweep"]["losses"], rows["masked"]["losses"], strict=True):
        if abs(ours - theirs) > SAME_LOSS * abs(theirs):
            print(
                f"{name}, {member.name}: the loss is {ours:.2f} in the sweep and {theirs:.2f} alone: is it one model?"
            )
    for contender, row in rows.items():
        row["median"] = median(row["seconds"])
        if contender != "sweep":
            pairs = zip(rows["sweep"]["seconds"], row["seconds"], strict=True)
            row["sweep_over_this"] = float(median(ours / theirs for ours, theirs in pairs))
    return rows


def report(results: dict[str, dict[str, Any]]) -> None:
    """Print the table."""
    print(
        "\n| condition | trained as | programs | compiling and first epoch, s | seconds (min - max) | sweep over this |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for name, rows in results.items():
        for contender, row in rows.items():
            spread = f"{row['median']:.2f} ({min(row['seconds']):.2f} - {max(row['seconds']):.2f})"
            ratio = f"{row['sweep_over_this']:.3f}" if contender != "sweep" else "-"
            print(f"| {name} | {contender} | {row['programs']} | {row['first_epoch']:.1f} | {spread} | {ratio} |")


def main(settings: Settings) -> None:
    """Measure, print the table and write the file."""
    for option in ("examples", "epochs", "rounds"):
        checks.whole_number(f"--{option}", getattr(settings, option))
    if settings.at_once is not None:
        checks.whole_number("--at-once", settings.at_once)
    checks.require(not settings.out.is_dir(), "--out", "be a file", f"the folder {settings.out}")
    sweep = cvae.Sweep(settings.latent_sizes, settings.seeds)
    examples, data = load_examples(settings.examples)
    training = cvae.Training(epochs=settings.epochs)
    load = load_average()
    provenance = cvae.runs.provenance()  # before a long run, in which the source may change
    conditions: dict[str, Condition] = {"label": cvae.Label(CLASSES), "none": cvae.Nothing()}
    results = {}
    for name, condition in conditions.items():
        c = {"label": examples.label} if name == "label" else {}
        model = cvae.make(cvae.Architecture(condition=condition, latent_size=max(sweep.latent_sizes)))
        cvae.training.check_fit(model, examples.x, c, training)
        contest = Contest(model, cvae.sweeps.members(sweep), examples.x, c, training, settings.at_once)
        results[name] = measure(name, contest, settings.epochs, settings.rounds)
    report(results)
    settings.out.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "benchmark": "sweep",
        "config": {
            "data": data,
            "examples": settings.examples,
            "epochs": settings.epochs,
            "rounds": settings.rounds,
            "latent_sizes": list(settings.latent_sizes),
            "seeds": list(settings.seeds),
            "at_once": settings.at_once,
        },
        "load_average": load,  # of other programs, before the start
        "results": results,
    }
    cvae.runs.write_json(settings.out, record | provenance)
    print(f"\ndata: {data}; all of it in {settings.out}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
