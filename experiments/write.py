"""Typed digits drawn in handwriting by a trained CVAE, a row for each handwriting style.

    python -m experiments.write 2026
    python -m experiments.write 2026 --styles 8 --temperature 0.7 --out card.png

A latent z, drawn from the prior, is a handwriting style: every character of a row is decoded from the same z, each
conditioned on its own label. The model comes from `python -m experiments.mnist_label`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

import cvae
from cvae import checks, plotting
from cvae.settings import Count, NonNegative, Seed
from experiments.harness import cli
from experiments.harness.label_figures import decode

RUNS = (Path("runs/mnist_label"), Path("runs/mnist_label_digits"))
# The character of each class, in the order of the labels.
CHARACTERS = {"mnist": "0123456789", "digits": "0123456789", "kmnist": "おきすつなはまやれを"}


@cvae.setting
class Settings:
    """Options."""

    text: Annotated[str, tyro.conf.Positional]
    """what to write, such as 2026"""
    run: Path | None = None
    """run folder of experiments.mnist_label; None is runs/mnist_label, or the run on the 8x8 digits"""
    styles: Count = 1
    """number of handwriting styles, a row each"""
    temperature: NonNegative = 1.0
    """factor on the standard deviation of the styles: 0 is the mean style, above 1 they become unusual"""
    seed: Seed = 0
    """source of the styles"""
    out: Path | None = None
    """PNG to write; None is figures/DATASET_write_TEXT.png in the run folder"""


def find_run(run: Path | None) -> Path:
    """The run folder that is named, or the first of the usual ones that exists.

    Raises:
        ValueError: there is none; names the command that makes one.
    """
    choices = RUNS if run is None else (run,)
    existing = [folder for folder in choices if (folder / "config.json").is_file()]
    rule = "be the folder of a finished run (make one with `python -m experiments.mnist_label`)"
    checks.require(len(existing) > 0, "--run", rule, f"none at {choices[0]}")
    return existing[0]


def labels_of(text: str, dataset: str) -> np.ndarray:
    """The label of each typed character, [len(text)].

    Raises:
        ValueError: the data set has no characters, or lacks one of the text; names it.
    """
    checks.require(dataset in CHARACTERS, "--run", f"be trained on one of {', '.join(CHARACTERS)}", repr(dataset))
    checks.require(len(text) > 0, "text", "hold at least one character", repr(text))
    known = CHARACTERS[dataset]
    for character in text:
        rule = f"hold only characters that the model was trained on, {known}"
        checks.require(character in known, "text", rule, f"{character!r} in {text!r}")
    return np.array([known.index(character) for character in text])


def execute(settings: Settings) -> Path:
    """Write the text into a PNG; returns its path."""
    run = find_run(settings.run)
    dataset = cvae.runs.read_config(run).dataset
    label = labels_of(settings.text, dataset)
    out = settings.out or run / "figures" / f"{dataset}_write_{settings.text}.png"
    checks.require(out.suffix == ".png", "--out", "end in .png", repr(str(out)))
    model, params = cvae.load(run, "cvae")
    architecture = model.architecture
    assert architecture is not None
    shared = isinstance(architecture.condition, cvae.Label) and architecture.prior == "standard"
    rule = "hold a model conditioned on the label alone, with a standard prior"
    checks.require(shared, "--run", rule, f"a {architecture.prior} prior and {architecture.condition}")

    shape = (settings.styles, architecture.latent_size)
    z = settings.temperature * np.random.default_rng(settings.seed).standard_normal(shape)
    images = decode(model, params, np.repeat(z, len(label), axis=0), np.tile(label, settings.styles))
    out.parent.mkdir(parents=True, exist_ok=True)
    plotting.write(out, images.reshape(settings.styles, len(label), *images.shape[1:]))
    print(f"{settings.text} in {settings.styles} handwriting style{'s' * (settings.styles > 1)}, {dataset}: {out}")
    return out


def main() -> None:
    """The command line."""
    execute(cli.options(Settings, __doc__))


if __name__ == "__main__":
    cli.protected(main)
