"""Handwriting from typed characters: a trained CVAE draws them, all in one hand.

    python -m experiments.write 2026
    python -m experiments.write 2026 --hands 8 --temperature 0.7 --out card.png

One latent z, drawn from the prior, is a hand: every character of a row is decoded from the same z, each with its own
label. The model comes from `python -m experiments.mnist_label`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import cvae
from experiments import command, pictures

RUNS = Path("runs")
# What is typed for each class, in the order of the labels.
CHARACTERS = {"mnist": "0123456789", "digits": "0123456789", "kmnist": "おきすつなはまやれを"}


@dataclass(frozen=True)
class Settings:
    """Options."""

    text: Annotated[str, tyro.conf.Positional]
    """what to write, such as 2026"""
    run: Path | None = None
    """run folder of experiments.mnist_label; runs/mnist_label if left out, or the one on the 8x8 digits"""
    hands: int = 1
    """number of hands, a row each"""
    temperature: float = 1.0
    """spread of the hands: 0 is the most typical one, above 1 they grow wild"""
    seed: int = 0
    """source of the hands"""
    out: Path | None = None
    """PNG to write; figures/DATASET_write_TEXT.png in the run folder if left out"""


def find_run(run: Path | None) -> Path:
    """The run folder that was named, or the first there is.

    Raises:
        ValueError: there is none; says which command makes one.
    """
    choices = [run] if run is not None else [RUNS / "mnist_label", RUNS / "mnist_label_digits"]
    found = [folder for folder in choices if (folder / "config.json").is_file()]
    make_one = "make one with `python -m experiments.mnist_label`"
    cvae.checks.require(bool(found), "run", f"be the folder of a finished run ({make_one})", f"none at {choices[0]}")
    return found[0]


def labels_of(text: str, dataset: str) -> np.ndarray:
    """The label of each typed character, [len(text)].

    Raises:
        ValueError: the data set has no characters, or not this one; names it.
    """
    cvae.checks.require(dataset in CHARACTERS, "run", f"be trained on one of {list(CHARACTERS)}", repr(dataset))
    cvae.checks.require(len(text) > 0, "text", "hold at least one character", repr(text))
    known = CHARACTERS[dataset]
    for character in text:
        rule = f"hold only what the model was trained on, {known}"
        cvae.checks.require(character in known, "text", rule, f"{character!r} in {text!r}")
    return np.array([known.index(character) for character in text])


def main(settings: Settings) -> Path:
    """Write the text into a PNG; returns its path."""
    cvae.checks.whole_number("--hands", settings.hands)
    cvae.checks.seed("--seed", settings.seed)
    cvae.checks.finite_number("--temperature", settings.temperature, least=0)
    run = find_run(settings.run)
    dataset = cvae.runs.read_config(run).dataset
    label = labels_of(settings.text, dataset)
    model, params, config = cvae.load(run, "cvae")

    shape = (settings.hands, config.models["cvae"].latent_size)
    hands = settings.temperature * np.random.default_rng(settings.seed).standard_normal(shape)
    z, labels = np.repeat(hands, len(label), axis=0), np.tile(label, settings.hands)
    drawn = pictures.decode(model, params, z, labels)
    rows = drawn.reshape(settings.hands, len(label), *drawn.shape[1:])
    out = settings.out or run / "figures" / f"{dataset}_write_{settings.text}.png"
    cvae.checks.require(out.suffix == ".png", "--out", "end in .png", repr(str(out)))
    out.parent.mkdir(parents=True, exist_ok=True)
    cvae.plotting.write_ink(out, rows)
    print(f"{settings.text} in {settings.hands} hand{'s' if settings.hands > 1 else ''}, {dataset}: {out}")
    return out


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
