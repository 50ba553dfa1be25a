"""What each part of the default of `mnist_quadrants` contributes, and what other objectives would: one at a time.

    python -m experiments.quadrants_ablation                       # MNIST, or the 8x8 digits without a network
    python -m experiments.quadrants_ablation --quadrants 2 --epochs 30

Every variant is the row `residual` of `experiments.mnist_quadrants` with one option changed, trained for the same few
epochs and scored on the validation images, so that nothing is selected on the test split. Differences after short
training are not those after long training: regularisation pays late. Each variant is a run in OUT/VARIANT; OUT/table.md
and table.json compare them. Expected on MNIST: 62.3 nats for the default, in about five minutes on two cores.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

import cvae
from cvae import checks
from cvae.settings import Count
from experiments import harness, mnist_quadrants
from experiments.harness import Row, cli, quadrants, tables

SAMPLES = 100
IMPORTANCE, MONTE_CARLO = (f"{quadrants.METHODS[proposal]}_{SAMPLES}" for proposal in ("posterior", "prior"))

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "default": ("the default", {}),
    "one_layer": ("one layer of latents", {"latent_layers": 1}),
    "two_layers": ("two layers of latents", {"latent_layers": 2}),
    "two_blocks": ("two residual blocks", {"blocks": 2}),
    "standard_prior": ("N(0, I) in place of the learned prior", {"prior": "standard"}),
    "no_shift": ("training images not moved", {"shift": 0}),
    "no_decay": ("no weight decay", {"weight_decay": 0.0}),
    "no_ema": ("no moving average", {"ema_decay": 0.0}),
    "hybrid": ("hybrid objective, weight 0.5", {"hybrid_weight": 0.5}),
    "gsnn": ("GSNN, hybrid weight 0", {"hybrid_weight": 0.0}),
    "guess_frozen": ("recurrent connection, the guess frozen", {"guess": True, "frozen": ("guess",)}),
    "guess_joint": ("recurrent connection, the guess trained jointly", {"guess": True}),
    "drop_block": ("a block left out of what is observed, of half of the images", {"drop_block_prob": 0.5}),
    "iwae": ("importance-weighted bound of 5 samples", {"objective": "iwae", "num_samples": 5}),
}

TABLE = [
    Row("importance sampling", IMPORTANCE),
    Row("less the default's", "difference", "signed"),
    Row("effective samples", "effective_samples", "one"),
    Row("Monte Carlo", MONTE_CARLO),
    Row("KL", "rate", "one"),
    Row("training", "seconds", "seconds"),
]


@cvae.setting
class Settings(harness.Settings):
    """Options of the experiment."""

    quadrants: Literal[1, 2, 3] = 1
    """how many quadrants are observed"""
    variants: Annotated[tuple[str, ...], Field(min_length=1)] = tuple(VARIANTS)
    """which variants"""
    epochs: Count = 12
    """passes over the training images, of each"""

    def __post_init__(self) -> None:
        for name in self.variants:
            checks.one_of("--variants", name, VARIANTS)


def variant(settings: Settings, name: str, dataset: str, out: Path) -> mnist_quadrants.Settings:
    """The run of a variant; `blocks` counts hidden layers of the data set's own width."""
    default = cli.chosen(mnist_quadrants.CONFIGS, dataset, settings.smoke)["residual"]
    changes = dict(VARIANTS[name][1])
    if "blocks" in changes:
        changes["hidden"] = default.architecture.hidden * changes.pop("blocks")
    shared = {each: getattr(settings, each) for each in harness.Settings.__dataclass_fields__}
    measured = {"split": "validation", "samples": SAMPLES, "many_samples": 0}
    changes |= shared | measured | {"quadrants": (settings.quadrants,), "epochs": settings.epochs}
    (run,) = mnist_quadrants.runs_of({"residual": mnist_quadrants.changed(default, **changes)}, out / name)
    return run


def execute(settings: Settings) -> Path:
    """Train and score every variant that is not there yet, and write the table; returns the folder."""
    dataset = cli.load(settings).name
    out = cli.folder("quadrants_ablation", settings, dataset)
    runs = {VARIANTS[name][0]: variant(settings, name, dataset, out) for name in settings.variants}
    cli.execute_all(mnist_quadrants.EXPERIMENT, runs)
    records = [each for each in collect(out) if each["task"] == f"quadrants_{settings.quadrants}"]
    cvae.runs.write_json(out / "table.json", records)
    (out / "table.md").write_text(markdown(records) + "\n", encoding="utf-8")
    print(f"\n{markdown(records)}\n\ntable and runs in {out}")
    return out


def collect(out: Path) -> list[dict[str, Any]]:
    """A record for every finished variant under a folder, in the order of the variants."""
    records = []
    for name, (words, _) in VARIANTS.items():
        for path in sorted((out / name).glob("*/residual/summary.json")):
            summary = cvae.runs.read_summary(path.parent)
            scores = quadrants.scores_of(summary)
            # A GSNN's encoder is not trained: no importance sampling, and no rate.
            importance, rate = scores.get(IMPORTANCE, {}), summary[summary["split"]].get("rate", {})
            record = {
                "variant": name,
                "words": words,
                "task": summary["task"],
                "epochs": summary["epochs"],
                IMPORTANCE: importance.get("nats"),
                MONTE_CARLO: scores.get(MONTE_CARLO, {}).get("nats"),
                "effective_samples": importance.get("effective_samples", {}).get("value"),
                "rate": rate.get("value"),
                "seconds": quadrants.training_seconds(summary),
            }
            records.append(record)
    return records


def markdown(records: list[dict[str, Any]], times: bool = True) -> str:
    """The records as a table, each beside the default; `times` adds the seconds of training."""
    default = {each["task"]: each[IMPORTANCE]["value"] for each in records if each["variant"] == "default"}
    lines = {}
    for each in records:
        known = each[IMPORTANCE] is not None and each["task"] in default
        difference = each[IMPORTANCE]["value"] - default[each["task"]] if known else None
        lines[each["words"]] = each | {"difference": difference}
    return tables.by_row(TABLE if times else TABLE[:-1], lines, "nats of the hidden pixels, validation")


def main() -> None:
    """The command line."""
    execute(cli.options(Settings, __doc__))


if __name__ == "__main__":
    cli.protected(main)
