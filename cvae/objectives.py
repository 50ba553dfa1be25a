"""Objectives: what is maximised, in nats per example, from the four functions of a model and nothing else."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cvae import checks
from cvae.conditions import Conditions
from cvae.distributions import kl_divergence
from cvae.model import CVAE
from cvae.networks import Params


class Elbo(NamedTuple):
    """Evidence lower bound, one value per example, in nats."""

    log_likelihood: Array  # [B]  E_q log p(x | z, c), a Monte Carlo estimate
    kl: Array  # [B]  KL(q(z | x, c) || p(z | c)), closed form, not weighted
    beta: Array  # [B]  weight of the KL

    @property
    def value(self) -> Array:
        """log_likelihood - beta * kl, [B]; up is good. With beta = 1 a lower bound of log p(x | c)."""
        return self.log_likelihood - self.beta * self.kl


def elbo(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int = 1,
    beta: Array | float = 1.0,
) -> Elbo:
    """Evidence lower bound of log p(x | c).

        E_{q(z | x, c)} log p(x | z, c)  -  beta KL(q(z | x, c) || p(z | c))

    The expectation is the mean over `num_samples` reparameterised draws of z, so it can be differentiated; the KL
    is exact. `beta` may be an array, a scalar or [B], so a sweep can `vmap` over it.

    Shapes: x [B, *event], c [B] or as its condition says -> Elbo of [B].
    Raises: ValueError from the model's own checks, or if `num_samples` is not a whole number of at least 1.
    Source: Sohn, Lee & Yan 2015, equation 4; beta from Higgins et al. 2017.
    """
    checks.whole_number("num_samples", num_samples)
    q = model.encode(params, x, c)
    kl = kl_divergence(q, model.prior(params, c))

    def log_likelihood(key: Array) -> Array:
        return model.decode(params, q.sample(key), c).log_prob(x)

    # One draw spends the key itself; more draws split it.
    if num_samples == 1:
        expected = log_likelihood(key)
    else:
        expected = jax.vmap(log_likelihood)(jax.random.split(key, num_samples)).mean(axis=0)
    return Elbo(expected, kl, jnp.broadcast_to(beta, kl.shape))
