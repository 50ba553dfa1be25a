"""Generation: draws of p(x | c), reconstructions, and counterfactuals. Pure functions of the model's four."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.evaluation import over_examples
from cvae.keys import threefry
from cvae.model import CVAE, as_floats
from cvae.networks import Params
from cvae.origin import conditions_at_origin, restored


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


def sample_each(
    model: CVAE,
    params: Params,
    key: Array,
    c: Conditions,
    *,
    count: int,
    mean: bool = False,
    temperature: float = 1.0,
    batch_size: int = 500,
    progress: bool = False,
) -> np.ndarray:
    """`sample` for a whole data set of conditions: in bounded memory, and in float64 where x is far from 0.

    Shapes: c of length `count` -> [count, *event], on the host.
    Raises: ValueError as `sample`.
    """
    checks.integer("count", count)
    checks.number("temperature", temperature, least=0)
    moved, c = conditions_at_origin(model, c)
    title, nothing = "generate" if progress else None, np.zeros((count, 0), np.float32)
    # Without an architecture, as there is no x to be checked.
    drawn = over_examples(
        _sample_each, moved._replace(architecture=None), params, key, nothing, c,
        batch_size=batch_size, progress=title, mean=mean, temperature=float(temperature),
    )  # fmt: skip
    return restored(model, drawn)


def _sample_each(
    model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, mean: bool, temperature: float
) -> Array:
    return sample(model, params, key, c, mean=mean, temperature=temperature)


def counterfactual(
    model: CVAE,
    params: Params,
    key: Array,
    x: Any,
    c: Any,
    new_c: Conditions,
    *,
    mean: bool = False,
    batch_size: int = 500,
    progress: bool = False,
) -> np.ndarray:
    """What examples would be under another condition: z ~ q(z | x, c), then x' ~ p(x' | z', c').

        z' = m(c') + s(c') (z - m(c)) / s(c),   p(z | c) = N(m(c), s(c)^2)

    So z' is as usual under c' as z is under c, layer by layer in a hierarchy; under the prior N(0, I) it is z itself.
    With `mean=True` x' is the mean of p(x' | z', c') instead; with c' = c that is `reconstruct`. It answers "what if"
    as far as what remains of x without c is independent of c: the model learns associations.

    Shapes: x [N, *event], c and new_c of length N -> [N, *event], on the host.
    Raises: ValueError as `over_examples`.
    References: abduction, action, prediction in Pearl 2009, section 7.1.
    """
    checks.key("key", key)
    title = ("encode", "decode") if progress else (None, None)
    noise = over_examples(_encode_noise, model, params, key, x, c, batch_size=batch_size, progress=title[0])
    moved, new_c = conditions_at_origin(model, new_c)
    sizes = {len(noise), *(len(values) for values in new_c.values())}
    checks.require(len(sizes) == 1, "new_c", f"hold one entry per example of x, {len(noise)}", sorted(sizes))
    decode_key = jax.random.fold_in(threefry(key), 1)
    decoded = over_examples(
        _decode, moved._replace(architecture=None), params, decode_key, noise, new_c,
        batch_size=batch_size, progress=title[1], mean=mean,
    )  # fmt: skip
    return restored(model, decoded)


def _encode_noise(model: CVAE, params: Params, key: Array, x: Array, c: Conditions) -> Array:
    """A draw of the posterior in units of the prior, (z - m) / s."""
    z = model.encode(params, x, c).sample(key)
    prior = model.prior(params, c).conditional(z)
    return (z - prior.mean) / prior.std


def _decode(model: CVAE, params: Params, key: Array, noise: Array, c: Conditions, *, mean: bool) -> Array:
    prior = model.prior(params, c)
    z = jnp.zeros_like(noise)
    for _ in range(getattr(prior, "layers", 1)):  # each turn completes the layer below those that are right already
        normal = prior.conditional(z)
        z = normal.mean + normal.std * noise
    px = model.decode(params, z, c)
    return px.mean if mean else px.sample(key)
