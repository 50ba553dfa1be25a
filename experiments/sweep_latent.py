"""How many latents a CVAE needs, with a label and without: likelihood, rate and distortion by latent size.

    python -m experiments.sweep_latent                          # MNIST, or the 8x8 digits without a network
    python -m experiments.sweep_latent --seeds 0 1 2 3          # later: trains the two new seeds only
    python -m experiments.sweep_latent --latent-sizes 2 8 --betas 0.5 1 2 --conditions none --out runs/sweep_beta

Models of the size of Kristiadi 2016, 512 ReLU units, batch 50, Adam 1e-3, grey targets, for 10 epochs. All members of a
type of condition share one compiled program. A command that was stopped resumes; finished members are read, not trained
again. Tables, figures and parameters go to runs/sweep_latent.

Expected on the 8x8 digits, in a few minutes on two cores: with the label the grey cross-entropy is lowest with 2 or 4
latents, 20.8 nats, and without it with 4, 23.9 nats; with more latents it rises again, by half a nat with 32.
"""

from __future__ import annotations

import cvae
from experiments import harness
from experiments.harness import sweeping

AXES = cvae.Sweep(latent_sizes=(1, 2, 4, 8, 16, 32), seeds=(0, 1))
MNIST = sweeping.Settings(conditions=("label", "none"), sweep=AXES)
CONFIGS = {
    "mnist": MNIST,
    "digits": cvae.replace(MNIST, hidden=(256,), training=cvae.Training(epochs=100)),
    "smoke": cvae.replace(MNIST, hidden=(16,), training=cvae.Training(epochs=2), smoke=True),
}
EXPERIMENT = sweeping.experiment("sweep_latent", CONFIGS)

if __name__ == "__main__":
    harness.command(EXPERIMENT, __doc__)
