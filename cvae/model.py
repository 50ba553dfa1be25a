"""A conditional VAE is four pure functions; `make` builds them from an architecture.

This is the public door of the networks: shapes and names are checked here on every call, and values too where
an array holds some (outside `jit`). What is done with the four functions lives above: objectives, generation,
training, evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cvae import checks, networks
from cvae.conditions import Conditions
from cvae.config import Architecture
from cvae.distributions import Bernoulli, Distribution, Normal
from cvae.networks import Params


class CVAE(NamedTuple):
    """A conditional VAE as pure functions; it holds shapes and no parameters.

    Any four functions of these signatures make a model: everything above this room asks for no more. A model
    made by hand leaves `architecture` out, and is then trusted to check its own inputs.
    """

    init: Callable[[Array], Params]  # (key) -> params
    encode: Callable[[Params, Array, Conditions], Normal]  # (params, x, c) -> q(z | x, c)
    prior: Callable[[Params, Conditions], Normal]  # (params, c) -> p(z | c); one row if c has no batch
    decode: Callable[[Params, Array, Conditions], Distribution]  # (params, z, c) -> p(x | z, c)
    architecture: Architecture | None = None


@cache
def make(architecture: Architecture) -> CVAE:
    """Build the four functions of an architecture.

    The same architecture gives the same functions, so what was compiled for one model serves its next fit.

    Shapes: x [B, *event_shape] floats in [0, 1], z [B, Z], c as the condition says.

    Raises:
        ValueError: from the functions, when an input has the wrong name, shape, dtype or range.
    """
    event_shape, condition = architecture.event_shape, architecture.condition
    encoder, decoder = networks.encoder(architecture), networks.decoder(architecture)

    def init(key: Array) -> Params:
        encoder_key, decoder_key = jax.random.split(key)
        return {"encoder": encoder.init(encoder_key), "decoder": decoder.init(decoder_key)}

    def encode(params: Params, x: Array, c: Conditions) -> Normal:
        checks.event("x", x, event_shape)
        checks.unit_interval("x", x)
        condition.check(c, batch=x.shape[0])
        mean, log_std = encoder.apply(params["encoder"], x.reshape(x.shape[0], -1), condition.encode(c))
        return Normal(mean, log_std)

    def prior(params: Params, c: Conditions) -> Normal:
        del params  # N(0, I) for every c; a learned prior would read them.
        condition.check(c)
        zeros = jnp.zeros((condition.encode(c).shape[0], architecture.latent_size))
        return Normal(zeros, zeros)

    def decode(params: Params, z: Array, c: Conditions) -> Bernoulli:
        checks.event("z", z, (architecture.latent_size,))
        condition.check(c, batch=z.shape[0])
        logits = decoder.apply(params["decoder"], z, condition.encode(c))
        return Bernoulli(logits.reshape(-1, *event_shape))

    return CVAE(init, encode, prior, decode, architecture)


def check_examples(model: CVAE, x: Any, c: Any) -> None:
    """Refuse raw examples, as stored, that do not suit a model: the door of fitting and evaluating.

    Raises:
        ValueError: x is empty, not [N, *event_shape], or neither uint8 nor floats in [0, 1]; c is not what the
            model's condition says, one entry an example.
    """
    if model.architecture is None:
        return
    checks.event("x", x, model.architecture.event_shape)
    checks.pixels("x", x)
    model.architecture.condition.check(c, batch=x.shape[0])
