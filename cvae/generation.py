"""Generation: pictures from a condition, and from a picture. Pure functions of the model's four."""

from __future__ import annotations

from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.model import CVAE
from cvae.networks import Params


def sample(model: CVAE, params: Params, key: Array, c: Conditions, *, temperature: Array | float = 1.0) -> Array:
    """Draw one picture a condition: z ~ p(z | c), then the mean of p(x | z, c).

    The mean is what the article shows: probabilities of ink, not a binary draw; `model.decode(...).sample(key)`
    gives one. `temperature` scales the prior's standard deviation: 0 draws the most typical picture. `vmap` over
    keys draws many.

    Shapes: c of batch B -> [B, *event], in [0, 1] unless the likelihood is a Normal; an empty c draws one, [1, *event].
    Raises: ValueError from the model's own checks, for what is no key, or if `temperature` is not a number of at
        least 0.
    """
    checks.key("key", key)
    checks.scale("temperature", temperature, least=0)
    z = model.prior(params, c).sample(key, temperature)
    return model.decode(params, z, c).mean


def reconstruct(model: CVAE, params: Params, key: Array, x: Array, c: Conditions) -> Array:
    """Encode pictures and decode one draw: z ~ q(z | x, c), then the mean of p(x | z, c).

    Shapes: x [B, *event] -> [B, *event], in [0, 1] unless the likelihood is a Normal.
    Raises: ValueError from the model's own checks, or for what is no key.
    """
    checks.key("key", key)
    return model.decode(params, model.encode(params, x, c).sample(key), c).mean
