"""What each part of the default of `mnist_quadrants` buys, and what the other objectives would: one change at a time.

    python -m experiments.quadrants_ablation                       # MNIST, or the 8x8 digits without a network
    python -m experiments.quadrants_ablation --quadrants 2 --epochs 30

Every variant is the row `residual` of `experiments.mnist_quadrants` with one option changed, trained for as many epochs
as the others, a few, and scored on the validation pictures: what is chosen by this table is not chosen on the test
split. The differences of short training are not those of long training: regularisation pays late.
OUT/VARIANT holds the runs, OUT/table.md and table.json the comparison.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import cvae
from experiments import command, mnist_quadrants, study

ESTIMATES = ("importance_sampling_100", "monte_carlo_100")

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("the default", {}),
    "one_layer": ("one layer of latents", {"latent_layers": 1}),
    "two_layers": ("two layers of latents", {"latent_layers": 2}),
    "two_blocks": ("two residual blocks", {"blocks": 2}),
    "standard_prior": ("N(0, I) in place of the learned prior", {"prior": "standard"}),
    "not_moved": ("training pictures not moved", {"shift": 0}),
    "no_decay": ("no weight decay", {"weight_decay": 0.0}),
    "no_average": ("no moving average", {"average": 0.0}),
    "hybrid": ("hybrid objective, alpha = 0.5", {"alpha": 0.5}),
    "gsnn": ("GSNN, alpha = 0", {"alpha": 0.0}),
    "guess_frozen": ("recurrent connection, the guess frozen", {"guess": "frozen"}),
    "guess_joint": ("recurrent connection, the guess trained jointly", {"guess": "joint"}),
    "omission": ("a block of what is seen left out of half of the pictures", {"omission": 0.5}),
    "iwae": ("importance-weighted bound of 5 samples", {"objective": "iwae", "train_samples": 5}),
}


@dataclass(frozen=True)
class Settings:
    """Options of the experiment."""

    data: study.Data = field(default_factory=study.Data)
    quadrants: Literal[1, 2, 3] = 1
    """how many quadrants are seen"""
    variants: tuple[str, ...] = tuple(VARIANTS)
    """which variants; all if left out"""
    epochs: int = 12
    """passes over the training pictures, for each"""
    seed: int = 0
    """source of all randomness but the pixels that are drawn once"""
    output: study.Output = field(default_factory=study.Output)


def variant(settings: Settings, name: str, dataset: str, out: Path) -> mnist_quadrants.Settings:
    """The settings of `mnist_quadrants` that make a variant; `blocks` is how many of the data set's own width."""
    changes = dict(VARIANTS[name][1])
    if "blocks" in changes:
        usual = mnist_quadrants.presets(dataset, settings.output.smoke)["residual"]
        changes["hidden"] = changes.pop("blocks") * usual.architecture["hidden"]
    of_models, of_fitting = (
        {key: value for key, value in changes.items() if hasattr(kind(), key)}
        for kind in (mnist_quadrants.Models, mnist_quadrants.Fitting)
    )
    models = mnist_quadrants.Models(rows=("residual",))
    return mnist_quadrants.Settings(
        data=settings.data,
        task=mnist_quadrants.Task(quadrants=(settings.quadrants,)),
        models=replace(models, **of_models),
        fitting=replace(mnist_quadrants.Fitting(epochs=settings.epochs, seed=settings.seed), **of_fitting),
        measuring=mnist_quadrants.Measuring(split="validation", many_samples=0),
        output=replace(settings.output, out=out / name),
    )


def main(settings: Settings) -> Path:
    """Train and score every variant that is not there yet, and write the table; returns the folder."""
    cvae.checks.require(len(settings.variants) > 0, "--variants", "name at least one", "none")
    for name in settings.variants:
        cvae.checks.one_of("--variants", name, tuple(VARIANTS))
    dataset = study.read(settings.data, settings.output.smoke)
    out = study.folder("quadrants_ablation", dataset.name, settings.output.smoke, settings.output.out)
    asked = {name: variant(settings, name, dataset.name, out) for name in settings.variants}
    for each in asked.values():  # refuse before the first is trained
        mnist_quadrants.plan(each)
    for each in asked.values():
        mnist_quadrants.main(each)
    rows = [row for row in collect(out) if row["task"] == mnist_quadrants.TASKS[settings.quadrants]]
    cvae.runs.write_json(out / "table.json", rows)
    (out / "table.md").write_text(markdown(rows))
    print("\n" + markdown(rows))
    return out


def collect(out: Path) -> list[dict[str, Any]]:
    """A record for every finished variant under a folder."""
    rows = []
    for name, (words, _) in VARIANTS.items():
        for path in sorted((out / name).glob("*/residual/summary.json")):
            summary = cvae.runs.read_summary(path.parent)
            scores = summary[summary["split"]]
            row = {"variant": name, "words": words, "task": summary["task"], "epochs": summary["epochs"]}
            for estimate in ESTIMATES:  # a GSNN's encoder has learned nothing: it has no importance sampling
                row[estimate] = scores[estimate]["nll"] if estimate in scores else None
            row["rate"] = scores["rate"]["value"] if "rate" in scores else None
            rows.append(row | {"seconds": sum(v for name, v in summary["seconds"].items() if name != "total")})
    return rows


def markdown(rows: list[dict[str, Any]], times: bool = True) -> str:
    """The table as people read it, each beside the default; `times` are the seconds of training."""
    head = [
        "variant",
        "importance sampling",
        "less the default's",
        "Monte Carlo",
        "KL",
        *(["seconds"] if times else []),
    ]
    usual = {row["task"]: row[ESTIMATES[0]] for row in rows if row["variant"] == "default"}
    body = []
    for row in rows:
        sampled, monte_carlo = (row[estimate] for estimate in ESTIMATES)
        known = sampled is not None and row["task"] in usual
        cells = [
            row["words"],
            _plus_minus(sampled),
            f"{sampled['value'] - usual[row['task']]['value']:+.2f}" if known else "-",
            _plus_minus(monte_carlo),
            "-" if row["rate"] is None else f"{row['rate']:.1f}",
        ]
        body.append(cells + ([f"{row['seconds']:.0f}"] if times else []))
    table = [head, ["---", *["---:"] * (len(head) - 1)], *body]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in table) + "\n"


def _plus_minus(estimate: dict[str, float] | None) -> str:
    return "-" if estimate is None else f"{estimate['value']:.2f} ± {estimate['standard_error']:.2f}"


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
