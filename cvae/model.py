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
from cvae.distributions import Distribution, Latents, Normal, Partial
from cvae.networks import Params
from cvae.preparation import Prepare, preparation


class CVAE(NamedTuple):
    """A conditional VAE as pure functions; it holds shapes and no parameters.

    Any four functions of these signatures make a model: everything above this room asks for no more. A model
    made by hand leaves `architecture` out, and is then trusted to check its own inputs.
    """

    init: Callable[[Array], Params]  # (key) -> params
    encode: Callable[[Params, Array, Conditions], Latents]  # (params, x, c) -> q(z | x, c)
    prior: Callable[[Params, Conditions], Latents]  # (params, c) -> p(z | c); one row if c has no batch
    decode: Callable[[Params, Array, Conditions], Distribution]  # (params, z, c) -> p(x | z, c)
    architecture: Architecture | None = None


def make(architecture: Architecture) -> CVAE:
    """Build the four functions of an architecture.

    The same architecture gives the same functions, so what was compiled for one model serves its next fit.

    Shapes: x [B, *event_shape] floats in the likelihood's support, z [B, Z], c as the condition says.

    Raises:
        ValueError: what is given is no `Architecture`; from the functions, when an input has the wrong name, shape,
            dtype or range.
    """
    given = checks.shown(architecture)
    checks.require(isinstance(architecture, Architecture), "architecture", "be an Architecture", given)
    return _make(architecture)


@cache
def _make(architecture: Architecture) -> CVAE:
    event_shape, condition, likelihood = architecture.event_shape, architecture.condition, architecture.likelihood
    parts = {"decoder": networks.decoder(architecture)}
    if architecture.latent_size > 0:
        parts = {"encoder": networks.encoder(architecture)} | parts
    if architecture.prior == "learned":
        parts["prior"] = networks.prior(architecture)
    if architecture.guess:
        parts["guess"] = networks.guess(architecture)

    def init(key: Array) -> Params:
        keys = jax.random.split(key, len(parts))
        return {name: network.init(key) for (name, network), key in zip(parts.items(), keys, strict=True)}

    def standard(batch: int) -> Normal:
        zeros = jnp.zeros((batch, architecture.latent_size))
        return Normal(zeros, zeros)

    def encode(params: Params, x: Array, c: Conditions) -> Latents:
        check_inputs(architecture, x, c)
        if "encoder" not in parts:  # a deterministic network: nothing to infer
            return standard(x.shape[0])
        features = condition.encode(c)
        p = prior(params, c) if architecture.latent_layers > 1 else None
        q: Latents = parts["encoder"].apply(params["encoder"], x.reshape(x.shape[0], -1), features, p)
        return q

    def prior(params: Params, c: Conditions) -> Latents:
        condition.check(c)
        features = condition.encode(c)
        if "prior" not in parts:
            return standard(features.shape[0])
        p: Latents = parts["prior"].apply(params["prior"], guessed(params, c, features), features)
        return p

    def guessed(params: Params, c: Conditions, features: Array) -> Array:
        """The mean of the deterministic network, [B, D], what c reveals of x as it is; without one, [B, 0]."""
        if "guess" not in parts:
            return features[:, :0]
        outputs = parts["guess"].apply(params["guess"], features[:, :0], features)
        return likely(outputs, c).mean.reshape(features.shape[0], -1)

    def likely(outputs: Array, c: Conditions) -> Distribution:
        """What a decoder's outputs say of x, of which c may reveal a part."""
        distribution = likelihood.distribution(outputs.reshape(-1, *event_shape, likelihood.outputs))
        revealed = condition.reveals(c)
        return distribution if revealed is None else Partial(distribution, ~revealed[0], revealed[1])

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        checks.event("z", z, (architecture.latent_size,))
        checks.real_line("z", z, hint="")
        condition.check(c, batch=z.shape[0])
        return likely(parts["decoder"].apply(params["decoder"], z, condition.encode(c)), c)

    return CVAE(init, encode, prior, decode, architecture)


@cache
def masked(model: CVAE) -> CVAE:
    """The model with a mask over its latents among its parameters: `{"mask": [Z] of 0 and 1, "model": params}`.

    A masked latent carries nothing: its posterior and its prior are N(0, 1), so its KL is 0, and the decoder is given 0
    in its place. What is left has exactly the ELBO and the gradients of the smaller model with the same weights. The
    mask is an array, so models of many latent sizes share one compiled program; no gradient reaches it. Only free bits
    are paid for a masked latent too: a constant.

    Raises:
        ValueError: the model was made by hand, so its latent size is not known, or has several layers of latents.
    """
    checks.require(model.architecture is not None, "model", "be one of `make`", "a model without an architecture")
    assert model.architecture is not None
    latent_size, layers = model.architecture.latent_size, model.architecture.latent_layers
    checks.require(layers == 1, "latent_layers", "be 1 for a mask over the latents", layers)

    def init(key: Array) -> Params:
        params = model.init(key)
        return {"mask": jnp.ones(latent_size), "model": params}

    def hide(params: Params, q: Latents) -> Normal:
        assert isinstance(q, Normal)
        kept = lax.stop_gradient(params["mask"]) > 0
        return Normal(jnp.where(kept, q.mean, 0), jnp.where(kept, q.log_std, 0))

    def encode(params: Params, x: Array, c: Conditions) -> Normal:
        return hide(params, model.encode(params["model"], x, c))

    def prior(params: Params, c: Conditions) -> Normal:
        return hide(params, model.prior(params["model"], c))

    def decode(params: Params, z: Array, c: Conditions) -> Distribution:
        return model.decode(params["model"], jnp.where(lax.stop_gradient(params["mask"]) > 0, z, 0), c)

    return CVAE(init, encode, prior, decode, model.architecture)


def check_inputs(architecture: Architecture, x: Any, c: Any) -> None:
    """Refuse prepared examples that do not suit an architecture: the door of `encode`, and of what scores x without it.

    Raises:
        ValueError: x is empty, not [B, *event_shape], or outside the likelihood's support; c is not what the
            condition says, one entry an example.
    """
    checks.event("x", x, architecture.event_shape)
    architecture.likelihood.check("x", x)
    architecture.condition.check(c, batch=x.shape[0])


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


def default_preparation(model: CVAE, targets: str = "grey", **noise: Any) -> Prepare:
    """The preparation that a model's condition asks for; a hand-made model gets grey levels.

    `noise` is that of training: see `preparation`.
    """
    return preparation(model.architecture.condition if model.architecture else Nothing(), targets, **noise)
