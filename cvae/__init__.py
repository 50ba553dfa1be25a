"""cvae: conditional variational autoencoders as pure functions, in JAX.

    model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
    params = model.init(jax.random.key(0))
    terms = cvae.elbo(model, params, key, x, {"label": label})

Names are imported on first use, so that a command's `--help` need not wait for JAX.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from cvae import arrays as arrays
    from cvae import attributes as attributes
    from cvae import charts as charts
    from cvae import checkpoints as checkpoints
    from cvae import checks as checks
    from cvae import classification as classification
    from cvae import conditions as conditions
    from cvae import config as config
    from cvae import convolutions as convolutions
    from cvae import data as data
    from cvae import distributions as distributions
    from cvae import download as download
    from cvae import evaluation as evaluation
    from cvae import fidelity as fidelity
    from cvae import generation as generation
    from cvae import likelihoods as likelihoods
    from cvae import masks as masks
    from cvae import model as model
    from cvae import networks as networks
    from cvae import objectives as objectives
    from cvae import plotting as plotting
    from cvae import preparation as preparation
    from cvae import runs as runs
    from cvae import sweeps as sweeps
    from cvae import training as training
    from cvae.conditions import Continuous as Continuous
    from cvae.conditions import Image as Image
    from cvae.conditions import Label as Label
    from cvae.conditions import Mixed as Mixed
    from cvae.conditions import Nothing as Nothing
    from cvae.config import Architecture as Architecture
    from cvae.config import Sweep as Sweep
    from cvae.config import Training as Training
    from cvae.distributions import Bernoulli as Bernoulli
    from cvae.distributions import ContinuousBernoulli as ContinuousBernoulli
    from cvae.distributions import Normal as Normal
    from cvae.distributions import kl_divergence as kl_divergence
    from cvae.evaluation import evaluate as evaluate
    from cvae.evaluation import log_likelihood as log_likelihood
    from cvae.generation import reconstruct as reconstruct
    from cvae.generation import sample as sample
    from cvae.model import CVAE as CVAE
    from cvae.model import make as make
    from cvae.model import masked as masked
    from cvae.objectives import Elbo as Elbo
    from cvae.objectives import elbo as elbo
    from cvae.objectives import iwae as iwae
    from cvae.objectives import log_weights as log_weights
    from cvae.preparation import prepare as prepare
    from cvae.runs import load as load
    from cvae.training import fit as fit

_ROOMS = (
    "arrays",
    "attributes",
    "charts",
    "checkpoints",
    "checks",
    "classification",
    "conditions",
    "config",
    "convolutions",
    "data",
    "distributions",
    "download",
    "evaluation",
    "fidelity",
    "generation",
    "likelihoods",
    "masks",
    "model",
    "networks",
    "objectives",
    "plotting",
    "preparation",
    "runs",
    "silence",
    "sweeps",
    "training",
)
_HOME = {
    "Architecture": "config",
    "Bernoulli": "distributions",
    "CVAE": "model",
    "Continuous": "conditions",
    "ContinuousBernoulli": "distributions",
    "Elbo": "objectives",
    "Image": "conditions",
    "Label": "conditions",
    "Mixed": "conditions",
    "Normal": "distributions",
    "Nothing": "conditions",
    "Sweep": "config",
    "Training": "config",
    "elbo": "objectives",
    "evaluate": "evaluation",
    "fit": "training",
    "iwae": "objectives",
    "kl_divergence": "distributions",
    "load": "runs",
    "log_likelihood": "evaluation",
    "log_weights": "objectives",
    "make": "model",
    "masked": "model",
    "prepare": "preparation",
    "reconstruct": "generation",
    "sample": "generation",
}

__all__ = ["__version__", *_ROOMS, *_HOME]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"cvae.{name}")
    if name in _HOME:
        return getattr(importlib.import_module(f"cvae.{_HOME[name]}"), name)
    raise AttributeError(f"module 'cvae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
