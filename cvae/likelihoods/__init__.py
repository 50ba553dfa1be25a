"""Likelihoods: families of p(x | z, c), each one class of settings.

A likelihood says how many numbers the decoder has to give (`num_outputs`), what the encoder sees of x (`features`),
which distribution the decoder's outputs parametrise (`distribution`), and which x it can score (`spec`). A subclass
with these four, defined anywhere, can be passed to `Architecture(likelihood=...)`. Densities are `distributions`'.
"""

# In the order in which an error message offers them.
# isort: off
from cvae.likelihoods.base import Likelihood
from cvae.likelihoods.pixels import Bernoulli, CategoricalPixels, ContinuousBernoulli, DiscretizedLogistic
from cvae.likelihoods.real import LogNormal, Normal
from cvae.likelihoods.discrete import Categorical, NegativeBinomial, Poisson
from cvae.likelihoods.compound import Columns, Missing, PointMass
# isort: on

__all__ = [
    "Bernoulli", "Categorical", "CategoricalPixels", "Columns", "ContinuousBernoulli", "DiscretizedLogistic",
    "Likelihood", "LogNormal", "Missing", "NegativeBinomial", "Normal", "PointMass", "Poisson",
]  # fmt: skip
