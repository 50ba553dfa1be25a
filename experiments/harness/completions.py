"""The figure of images completed by a model that observes a part of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from matplotlib.figure import Figure

import cvae
from cvae import plotting

if TYPE_CHECKING:
    from experiments.harness.cli import Job

SHOWN, DRAWS = 10, 100  # completions in the figure, and behind their mean and spread


def completions(
    job: Job, part: str, truth: np.ndarray, hidden: np.ndarray, title: str, predictor: tuple[Any, Any] | None = None
) -> Figure:
    """The first image of each class: its observed part, means of p(x | z, c) for z ~ p(z | c), and the truth.

    Args:
        job: whose model "cvae" draws the completions.
        part: which split.
        truth: the images of the split as they are shown, [N, H, W, 1] in [0, 1].
        hidden: bool [N, H, W, 1], True where the model does not observe the image.
        title: title of the figure.
        predictor: a deterministic model and its parameters, whose prediction is shown too.
    """
    label = getattr(job.dataset, part).label
    first = [int(np.flatnonzero(label == k)[0]) for k in range(job.dataset.num_classes)]
    truth, hidden = truth[first], hidden[first]
    c = {name: values[first] for name, values in job.split("cvae", part)[1].items()}
    key, sample = job.key("figures"), jax.jit(cvae.sample, static_argnames=("model", "mean", "num_samples"))
    model, params, *_ = job.trained["cvae"]
    drawn = np.moveaxis(np.asarray(sample(model, params, key, c, mean=True, num_samples=DRAWS)), 0, 1)
    drawn, prediction = np.where(hidden[:, None], drawn, truth[:, None]), None
    if predictor is not None:
        network, weights = predictor
        observed = {name: c[name] for name in network.architecture.condition.spec}
        prediction = np.where(hidden, sample(network, weights, key, observed, mean=True), truth)
    return plotting.completions(np.where(hidden, 0, truth), hidden, drawn, truth, title, SHOWN, prediction)
