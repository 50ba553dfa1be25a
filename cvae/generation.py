"""Generation: draws of p(x | c), and reconstructions. Pure functions of the model's four."""

from __future__ import annotations

import jax
from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.model import CVAE, as_floats
from cvae.networks import Params


def sample(
    model: CVAE,
    params: Params,
    key: Array,
    c: Conditions,
    *,
    mean: bool = False,
    temperature: Array | float = 1.0,
    num_samples: int | None = None,
) -> Array:
    """Draw from p(x | c): z ~ p(z | c), then x ~ p(x | z, c).

    With `mean=True` x is the mean of p(x | z, c) instead: for images the probability of every pixel, which is what most
    articles show, without the noise of p(x | z, c). `temperature` scales the prior's standard deviation; 0 decodes its
    mean.

    Shapes: c of batch B -> [B, *event], an empty c gives [1, *event]; with `num_samples` [num_samples, B, *event].
    Raises: ValueError if an argument does not suit the model, or is out of its range.
    """
    checks.key("key", key)
    checks.scalar("temperature", temperature, least=0)

    def one(key: Array) -> Array:
        latent_key, x_key = jax.random.split(key)
        z = model.prior(params, c).sample(latent_key, temperature)
        px = model.decode(params, z, c)
        return px.mean if mean else px.sample(x_key)

    if num_samples is None:
        return one(key)
    return jax.vmap(one)(jax.random.split(key, checks.integer("num_samples", num_samples)))


def reconstruct(model: CVAE, params: Params, key: Array, x: Array, c: Conditions) -> Array:
    """Encode examples and decode one draw: z ~ q(z | x, c), then the mean of p(x | z, c).

    Shapes: x [B, *event] -> [B, *event].
    Raises: ValueError if an argument does not suit the model.
    """
    checks.key("key", key)
    x, c = as_floats(model.architecture, x, c)
    return model.decode(params, model.encode(params, x, c).sample(key), c).mean
