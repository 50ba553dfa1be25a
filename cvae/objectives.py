"""Objectives: what is maximised, in nats per example, from the four functions of a model and nothing else."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.scipy.special import logsumexp

from cvae import checks
from cvae.conditions import Conditions
from cvae.distributions import Ladder, Latents, Normal, kl_terms
from cvae.model import CVAE, check_inputs
from cvae.networks import Params


class Elbo(NamedTuple):
    """Evidence lower bound, one value per example, in nats."""

    log_likelihood: Array  # [B]  E_q log p(x | z, c), a Monte Carlo estimate
    kl: Array  # [B]  KL(q(z | x, c) || p(z | c)), closed form layer by layer, not weighted
    penalty: Array  # [B]  what the KL costs: beta times it, or its free bits

    @property
    def value(self) -> Array:
        """log_likelihood - penalty, [B]; up is good. Where the penalty is the KL, a lower bound of log p(x | c)."""
        return self.log_likelihood - self.penalty


def elbo(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int = 1,
    beta: Array | float = 1.0,
    free_bits: float = 0.0,
    proposal: str = "posterior",
) -> Elbo:
    """Evidence lower bound of log p(x | c).

        E_{q(z | x, c)} log p(x | z, c)  -  beta sum_d max(free_bits, KL_d(q(z | x, c) || p(z | c)))

    The expectation is the mean over `num_samples` reparameterised draws of z, so it can be differentiated. The KL is
    exact for one layer of latents; of a ladder, each layer's is exact given the draw of those above it. `beta` may be
    an array, a scalar or [B], so a sweep can `vmap` over it. The maximum is taken of the batch's mean KL of each
    latent, so with free bits, and only then, an example's penalty depends on its batch.

    With `proposal="prior"`, z is drawn from p(z | c) instead and there is no KL: E_{p(z | c)} log p(x | z, c), a lower
    bound too, and the objective of a Gaussian stochastic network (GSNN).

    Shapes: x [B, *event], c [B] or as its condition says -> Elbo of [B].
    Raises: ValueError from the model's own checks, for what is no key, if `num_samples` is not a whole number of at
        least 1, if `beta` is no number and no array of one or of B, if `free_bits` is not a number of at least 0, or
        if the proposal is unknown.
    Source: Sohn, Lee & Yan 2015, equations 4 and 6; beta from Higgins et al. 2017; free bits from Kingma et al. 2016.
    """
    checks.whole_number("num_samples", num_samples)
    checks.finite_number("free_bits", free_bits, least=0)
    checks.key("key", key)
    q, p = _proposal_and_prior(model, params, x, c, proposal)
    checks.scale("beta", beta, batch=x.shape[0])

    def one(key: Array) -> tuple[Array, Array]:
        z, at_z = q.draw(key)
        kl = jnp.zeros_like(at_z.mean) if q is p else kl_terms(at_z, p.given(z))
        return model.decode(params, z, c).log_prob(x), kl

    # One draw spends the key itself; more draws split it.
    if num_samples == 1:
        log_likelihood, kl = one(key)
    else:
        draws = jax.vmap(one)(jax.random.split(key, num_samples))
        log_likelihood, kl = (term.mean(axis=0) for term in draws)
    paid = kl if free_bits == 0 else jnp.where(kl.mean(axis=0) > free_bits, kl, free_bits)
    return Elbo(log_likelihood, kl.sum(axis=1), beta * paid.sum(axis=1))


def _proposal_and_prior(model: CVAE, params: Params, x: Array, c: Conditions, proposal: str) -> tuple[Latents, Latents]:
    checks.one_of("proposal", proposal, ("posterior", "prior"))
    if proposal == "posterior":
        q = model.encode(params, x, c)
        # Computed twice, the prior would be differentiated twice.
        return q, (isinstance(q, Ladder) and q.prior) or model.prior(params, c)
    if model.architecture is not None:  # `encode`, which would have looked at x, is not asked
        check_inputs(model.architecture, x, c)
    p = model.prior(params, c)
    if isinstance(p, Normal):  # without a condition the prior has one row, and every example wants its own draw
        shape = (x.shape[0], p.mean.shape[1])
        p = Normal(jnp.broadcast_to(p.mean, shape), jnp.broadcast_to(p.log_std, shape))
    return p, p


def hybrid(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    alpha: float = 1.0,
    num_samples: int = 1,
    beta: Array | float = 1.0,
    free_bits: float = 0.0,
) -> Elbo:
    """The CVAE's objective, with z from the posterior, mixed with the GSNN's, with z from the prior.

        alpha L_CVAE + (1 - alpha) L_GSNN

    Training draws z from the posterior and prediction from the prior; the second term trains for what is done.
    `alpha` 1 is `elbo`, and 0 is `elbo` with `proposal="prior"`; neither computes the other's term.

    Shapes: x [B, *event] -> Elbo of [B], of which `log_likelihood` is mixed and `kl` is the CVAE's.
    Raises: as `elbo`, or if `alpha` is not a number in [0, 1].
    Source: Sohn, Lee & Yan 2015, equation 7.
    """
    checks.share("alpha", alpha)
    checks.key("key", key)
    if alpha == 1:
        return elbo(model, params, key, x, c, num_samples=num_samples, beta=beta, free_bits=free_bits)
    if alpha == 0:
        return elbo(model, params, key, x, c, num_samples=num_samples, proposal="prior")
    cvae_key, gsnn_key = jax.random.split(key)
    cvae = elbo(model, params, cvae_key, x, c, num_samples=num_samples, beta=beta, free_bits=free_bits)
    gsnn = elbo(model, params, gsnn_key, x, c, num_samples=num_samples, proposal="prior")
    mixed = alpha * cvae.log_likelihood + (1 - alpha) * gsnn.log_likelihood
    return Elbo(mixed, cvae.kl, alpha * cvae.penalty)


class Weights(NamedTuple):
    """Importance weights of draws of z, in nats: their mean in plain numbers is an unbiased estimate of p(x | c)."""

    log_likelihood: Array  # [K, B]  log p(x | z, c)
    log_ratio: Array  # [K, B]  log q(z | x, c) / p(z | c), whose mean over q is the KL

    @property
    def value(self) -> Array:
        """Log w = log p(x | z, c) + log p(z | c) - log q(z | x, c), [K, B]."""
        return self.log_likelihood - self.log_ratio

    @property
    def bound(self) -> Array:
        """Log of the weights' mean, log 1/K sum_k w_k, [B]: see `iwae`."""
        return logsumexp(self.value, axis=0) - math.log(len(self.value))


def log_weights(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int = 1,
    proposal: str = "posterior",
) -> Weights:
    """Log importance weights of draws z ~ q(z | x, c).

        log w_k  =  log p(x | z_k, c) + log p(z_k | c) - log q(z_k | x, c)

    With `proposal="prior"`, z is drawn from p(z | c), which takes the place of q: plain Monte Carlo.

    Shapes: x [B, *event] -> Weights of [num_samples, B].
    Raises: ValueError from the model's own checks, for what is no key, if `num_samples` is not a whole number of at
        least 1, or if the proposal is unknown.
    Source: Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    checks.whole_number("num_samples", num_samples)
    checks.key("key", key)
    q, p = _proposal_and_prior(model, params, x, c, proposal)

    def one(key: Array) -> Weights:
        z, at_z = q.draw(key)
        log_likelihood = model.decode(params, z, c).log_prob(x)
        if q is p:
            return Weights(log_likelihood, jnp.zeros_like(log_likelihood))
        return Weights(log_likelihood, at_z.log_prob(z) - p.given(z).log_prob(z))

    return jax.vmap(one)(jax.random.split(key, num_samples))


def iwae(model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_samples: int = 1) -> Array:
    """Importance-weighted bound of log p(x | c): the ELBO with one sample, and tighter with more.

        log 1/K sum_k w_k

    Shapes: x [B, *event] -> [B].
    Raises: as `log_weights`.
    Source: Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    return log_weights(model, params, key, x, c, num_samples=num_samples).bound
