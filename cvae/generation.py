"""Generation: draws of p(x | c), reconstructions, and counterfactuals. Pure functions of the model's four."""

from __future__ import annotations

from typing import Any

import jax
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
    """What examples would be under another condition: z ~ q(z | x, c), then x' ~ p(x' | z, c').

    With `mean=True` x' is the mean of p(x' | z, c') instead; with c' = c that is `reconstruct`. It answers "what if" as
    far as z and c are independent causes of x: the model learns associations, and what depends on c in z itself (as it
    may under a learned prior) is carried over.

    Shapes: x [N, *event], c and new_c of length N -> [N, *event], on the host.
    Raises: ValueError as `over_examples`.
    References: abduction, action, prediction in Pearl 2009, section 7.1.
    """
    checks.key("key", key)
    title = ("encode", "decode") if progress else (None, None)
    z = over_examples(_encode_draw, model, params, key, x, c, batch_size=batch_size, progress=title[0])
    moved, new_c = conditions_at_origin(model, new_c)
    sizes = {len(z), *(len(values) for values in new_c.values())}
    checks.require(len(sizes) == 1, "new_c", f"hold one entry per example of x, {len(z)}", sorted(sizes))
    decode_key = jax.random.fold_in(threefry(key), 1)
    decoded = over_examples(
        _decode, moved._replace(architecture=None), params, decode_key, z, new_c,
        batch_size=batch_size, progress=title[1], mean=mean,
    )  # fmt: skip
    return restored(model, decoded)


def _encode_draw(model: CVAE, params: Params, key: Array, x: Array, c: Conditions) -> Array:
    return model.encode(params, x, c).sample(key)


def _decode(model: CVAE, params: Params, key: Array, z: Array, c: Conditions, *, mean: bool) -> Array:
    px = model.decode(params, z, c)
    return px.mean if mean else px.sample(key)
