"""What conditioning is worth: unconditional, on the label, on the stroke, on both, or on a part of the image.

    python -m experiments.sweep_condition                       # MNIST, or the 8x8 digits without a network
    python -m experiments.sweep_condition --conditions label attribute --conditioning concat film --seeds 0 1 2

The stroke is its thickness and slant, measured on every image. Models of one latent size and the article's other
settings: 512 ReLU units, batch 50, Adam 1e-3, grey targets, 10 epochs. The model that observes the lower left quadrant
of the image is scored on the other three: its nats are those of another event, and have a panel of their own.

All members of a type of condition share one compiled program. A command that was stopped resumes; finished members are
read, not trained again. Tables, figures and parameters go to runs/sweep_condition.

Expected on the 8x8 digits, in two to three minutes on two cores: grey cross-entropies of 24.1 nats unconditional, 22.5
on the stroke, 21.0 on the label, 19.8 on both; 16.7 for the hidden quadrants.
"""

from __future__ import annotations

import cvae
from experiments import harness
from experiments.harness import sweeping

MNIST = sweeping.Settings()
CONFIGS = {
    "mnist": MNIST,
    "digits": cvae.replace(MNIST, hidden=(256,), training=cvae.Training(epochs=100)),
    "smoke": cvae.replace(MNIST, hidden=(16,), training=cvae.Training(epochs=2), smoke=True),
}
EXPERIMENT = sweeping.experiment("sweep_condition", CONFIGS)

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
