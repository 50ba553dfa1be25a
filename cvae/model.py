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
from jax import Array, lax

from cvae import checks, networks
from cvae.conditions import Conditions, Nothing
from cvae.config import Architecture
from cvae.distributions import Distribution, Normal, Partial
from cvae.networks import Params
from cvae.preparation import Prepare, preparation


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

    Shapes: x [B, *event_shape] floats in the likelihood's support, z [B, Z], c as the condition says.

    Raises:
        ValueError: from the functions, when an input has the wrong name, shape, dtype or range.
    """
    event_shape, condition, likelihood = architecture.event_shape, architecture.condition, architecture.likelihood
    parts = {"encoder": networks.encoder(architecture), "decoder": networks.decoder(architecture)}
    if architecture.prior == "learned":
        parts["prior"] = networks.prior(architecture)

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(parts))
        return {name: network.init(key) for (name, network), key in zip(parts.items(), keys, strict=True)}

    def encode(params: Params, x: Array, c: Conditions) -> Normal:
        checks.event("x", x, event_shape)
        likelihood.check("x", x)
        condition.check(c, batch=x.shape[0])
        mean, log_std = parts["encoder"].apply(params["encoder"], x.reshape(x.shape[0], -1), condition.encode(c))
        return Normal(mean, log_std)

    def prior(params: Params, c: Conditions) -> Normal:
        condition.check(c)
        features = condition.encode(c)
        if "prior" in parts:
            return Normal(*parts["prior"].apply(params["prior"], features))
        zeros = jnp.zeros((features.shape[0], architecture.latent_size))
        return Normal(zeros, zeros)

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        checks.event("z", z, (architecture.latent_size,))
        condition.check(c, batch=z.shape[0])
        outputs = parts["decoder"].apply(params["decoder"], z, condition.encode(c))
        distribution = likelihood.distribution(outputs.reshape(-1, *event_shape, likelihood.outputs))
        revealed = condition.reveals(c)
        return distribution if revealed is None else Partial(distribution, ~revealed[0], revealed[1])

    return CVAE(init, encode, prior, decode, architecture)


@cache
def masked(model: CVAE) -> CVAE:
    """The model with a mask over its latents among its parameters: `{"mask": [Z] of 0 and 1, "model": params}`.

    A masked latent carries nothing: its posterior and its prior are N(0, 1), so its KL is 0, and the decoder is given 0
    in its place. What is left has exactly the ELBO and the gradients of the smaller model with the same weights. The
    mask is an array, so models of many latent sizes share one compiled program; no gradient reaches it.

    Raises:
        ValueError: the model was made by hand, so its latent size is not known.
    """
    checks.require(model.architecture is not None, "model", "be one of `make`", "a model without an architecture")
    assert model.architecture is not None
    latent_size = model.architecture.latent_size

    def init(key: Array) -> Params:
        params = model.init(key)
        return {"mask": jnp.ones(latent_size), "model": params}

    def hide(params: Params, q: Normal) -> Normal:
        kept = lax.stop_gradient(params["mask"]) > 0
        return Normal(jnp.where(kept, q.mean, 0), jnp.where(kept, q.log_std, 0))

    def encode(params: Params, x: Array, c: Conditions) -> Normal:
        return hide(params, model.encode(params["model"], x, c))

    def prior(params: Params, c: Conditions) -> Normal:
        return hide(params, model.prior(params["model"], c))

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        return model.decode(params["model"], jnp.where(lax.stop_gradient(params["mask"]) > 0, z, 0), c)

    return CVAE(init, encode, prior, decode, model.architecture)


def check_examples(model: CVAE, x: Any, c: Any) -> None:
    """Refuse raw examples, as stored, that do not suit a model: the door of fitting and evaluating.

    Raises:
        ValueError: x is empty, not [N, *event_shape], or outside the likelihood's support; c is not what the model's
            condition says, one entry an example.
    """
    if model.architecture is None:
        return
    checks.event("x", x, model.architecture.event_shape)
    model.architecture.likelihood.check_stored("x", x)
    model.architecture.condition.check_stored(c, batch=x.shape[0])


def default_preparation(model: CVAE, targets: str = "grey") -> Prepare:
    """The preparation that a model's condition asks for; a hand-made model gets grey levels."""
    return preparation(model.architecture.condition if model.architecture else Nothing(), targets)
