"""Distributions as trees of arrays: log_prob, sample and mean, and the KL of two Gaussians. Knows no models.

One convention holds for all: the first axis is the batch, every other axis is the event, and a density is summed
over the event and never over the batch. `log_terms` is the density before that sum, for `Masked`, which counts some
elements only. More batch axes come from `vmap`. Arithmetic is done in the dtype of the parameters.
"""

from cvae.distributions.base import Distribution, distribution, sum_event
from cvae.distributions.binary import Bernoulli, ContinuousBernoulli
from cvae.distributions.compound import (
    Columns,
    LogNormal,
    Masked,
    Missing,
    PointMass,
    Standardized,
    center_and_spread,
    is_value,
    standardize,
    without_gradient,
)
from cvae.distributions.discrete import (
    LEVELS,
    Categorical,
    CategoricalPixels,
    DiscretizedLogistic,
    NegativeBinomial,
    Poisson,
)
from cvae.distributions.gaussian import Ladder, Latents, Normal, kl_divergence, kl_terms

__all__ = [
    "LEVELS", "Bernoulli", "Categorical", "CategoricalPixels", "Columns", "ContinuousBernoulli",
    "DiscretizedLogistic", "Distribution", "Ladder", "Latents", "LogNormal", "Masked", "Missing", "NegativeBinomial",
    "Normal", "PointMass", "Poisson", "Standardized", "center_and_spread", "distribution", "is_value",
    "kl_divergence", "kl_terms", "standardize", "sum_event", "without_gradient",
]  # fmt: skip
