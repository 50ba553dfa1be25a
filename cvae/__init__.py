"""Conditional variational autoencoders as pure functions, in JAX.

model = cvae.make(cvae.Architecture(condition=cvae.Label(10)))
params = model.init(jax.random.key(0))
params, history, _ = cvae.fit(model, params, jax.random.key(1), x, {"label": label})
terms = cvae.elbo(model, params, jax.random.key(2), x, {"label": label})  # nats, one value per example
"""

from cvae import data, distributions, evaluation, networks, schema, sweeps, use
from cvae.conditions import (
    Condition,
    Continuous,
    Exposure,
    Features,
    Image,
    Label,
    Mixed,
    Optional,
    Unconditional,
)  # fmt: skip
from cvae.config import Architecture, Sweep, Training
from cvae.devices import make_mesh
from cvae.distributions import kl_divergence
from cvae.evaluation import active_units, evaluate, log_likelihood, over_examples
from cvae.fitting import epochs, fit
from cvae.generation import counterfactual, reconstruct, sample
from cvae.imputation import contributions, impute
from cvae.likelihoods import (
    Bernoulli,
    Categorical,
    CategoricalPixels,
    Columns,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Likelihood,
    LogNormal,
    Missing,
    NegativeBinomial,
    Normal,
    PointMass,
    Poisson,
)  # fmt: skip
from cvae.model import CVAE, make, masked
from cvae.objectives import Elbo, elbo, iwae, log_weights
from cvae.runs import load, save
from cvae.settings import replace, setting

__version__ = "0.2.0"

__all__ = [
    "CVAE", "Architecture", "Bernoulli", "Categorical", "CategoricalPixels", "Columns", "Condition", "Continuous",
    "ContinuousBernoulli", "DiscretizedLogistic", "Elbo", "Exposure", "Features", "Image", "Label", "Likelihood",
    "LogNormal", "Missing", "Mixed", "NegativeBinomial", "Normal", "Optional", "PointMass", "Poisson", "Sweep",
    "Training", "Unconditional", "active_units", "contributions", "counterfactual", "data", "distributions", "elbo",
    "epochs", "evaluate", "evaluation", "fit", "impute", "iwae", "kl_divergence", "load", "log_likelihood",
    "log_weights", "make", "make_mesh", "masked", "networks", "over_examples", "reconstruct", "replace", "sample",
    "save", "schema", "setting", "sweeps", "use",
]  # fmt: skip


def __dir__() -> list[str]:
    """The names above; submodules are not listed beside them."""
    return [*__all__, "__version__"]
