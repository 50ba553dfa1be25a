"""What telling a CVAE more is worth: nothing, the label, the stroke, both, or a part of the picture.

    python -m experiments.sweep_condition                       # MNIST, or the 8x8 digits without a network
    python -m experiments.sweep_condition --conditions label attribute --conditioning concat film --seeds 0 1 2

The stroke is its thickness and slant, measured on every picture. Models of one latent size and the article's other
settings: 512 ReLU units, batch 50, Adam 1e-3, grey targets, 10 epochs. The model that is given the lower left quadrant
of the picture is scored on the other three: its nats are those of another event, and are tabled and drawn apart.

All members of a type of condition share one compiled program. A command that was stopped goes on where it stopped;
finished members are read, not trained again. Table, CSV, figures and parameters go to runs/sweep_condition.

Expected on the 8x8 digits, in two minutes on two cores: log-likelihoods of -24.2 nats told nothing, -22.7 the stroke,
-21.1 the label, -19.9 both; -16.6 for the hidden quadrants.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from experiments import command, sweep


@dataclass(frozen=True)
class Settings(sweep.Settings):
    """Options of the experiment."""


def main(settings: Settings) -> Path:
    """Train, score and draw; returns the run folder."""
    return sweep.run("sweep_condition", settings)


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
