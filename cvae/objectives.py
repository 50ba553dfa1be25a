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
from cvae.distributions import kl_terms
from cvae.model import CVAE
from cvae.networks import Params


class Elbo(NamedTuple):
    """Evidence lower bound, one value per example, in nats."""

    log_likelihood: Array  # [B]  E_q log p(x | z, c), a Monte Carlo estimate
    kl: Array  # [B]  KL(q(z | x, c) || p(z | c)), closed form, not weighted
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
) -> Elbo:
    """Evidence lower bound of log p(x | c).

        E_{q(z | x, c)} log p(x | z, c)  -  beta sum_d max(free_bits, KL_d(q(z | x, c) || p(z | c)))

    The expectation is the mean over `num_samples` reparameterised draws of z, so it can be differentiated; the KL is
    exact. `beta` may be an array, a scalar or [B], so a sweep can `vmap` over it. The maximum is taken of the batch's
    mean KL of each latent, so with free bits, and only then, an example's penalty depends on its batch.

    Shapes: x [B, *event], c [B] or as its condition says -> Elbo of [B].
    Raises: ValueError from the model's own checks, if `num_samples` is not a whole number of at least 1, or if
        `free_bits` is not a number of at least 0.
    Source: Sohn, Lee & Yan 2015, equation 4; beta from Higgins et al. 2017; free bits from Kingma et al. 2016.
    """
    checks.whole_number("num_samples", num_samples)
    checks.finite_number("free_bits", free_bits, least=0)
    q = model.encode(params, x, c)
    kl = kl_terms(q, model.prior(params, c))

    def log_likelihood(key: Array) -> Array:
        return model.decode(params, q.sample(key), c).log_prob(x)

    # One draw spends the key itself; more draws split it.
    if num_samples == 1:
        expected = log_likelihood(key)
    else:
        expected = jax.vmap(log_likelihood)(jax.random.split(key, num_samples)).mean(axis=0)
    paid = kl if free_bits == 0 else jnp.where(kl.mean(axis=0) > free_bits, kl, free_bits)
    return Elbo(expected, kl.sum(axis=1), beta * paid.sum(axis=1))


class Weights(NamedTuple):
    """Importance weights of draws of z, in nats: their mean in plain numbers is an unbiased estimate of p(x | c)."""

    log_likelihood: Array  # [K, B]  log p(x | z, c)
    log_ratio: Array  # [K, B]  log q(z | x, c) / p(z | c), whose mean over q is the KL

    @property
    def value(self) -> Array:
        """Log w = log p(x | z, c) + log p(z | c) - log q(z | x, c), [K, B]."""
        return self.log_likelihood - self.log_ratio


def log_weights(model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_samples: int = 1) -> Weights:
    """Log importance weights of draws z ~ q(z | x, c).

        log w_k  =  log p(x | z_k, c) + log p(z_k | c) - log q(z_k | x, c)

    Shapes: x [B, *event] -> Weights of [num_samples, B].
    Raises: ValueError from the model's own checks, or if `num_samples` is not a whole number of at least 1.
    Source: Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    checks.whole_number("num_samples", num_samples)
    q, p = model.encode(params, x, c), model.prior(params, c)

    def one(key: Array) -> Weights:
        z = q.sample(key)
        return Weights(model.decode(params, z, c).log_prob(x), q.log_prob(z) - p.log_prob(z))

    return jax.vmap(one)(jax.random.split(key, num_samples))


def iwae(model: CVAE, params: Params, key: Array, x: Array, c: Conditions, *, num_samples: int = 1) -> Array:
    """Importance-weighted bound of log p(x | c): the ELBO with one sample, and tighter with more.

        log 1/K sum_k w_k

    Shapes: x [B, *event] -> [B].
    Raises: as `log_weights`.
    Source: Burda, Grosse & Salakhutdinov 2016, equation 8.
    """
    weights = log_weights(model, params, key, x, c, num_samples=num_samples).value
    return logsumexp(weights, axis=0) - math.log(num_samples)
