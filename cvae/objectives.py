"""Objectives: what is maximised, in nats per example, from the four functions of a model and nothing else."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from cvae import checks
from cvae.conditions import Conditions
from cvae.distributions import Ladder, Latents, Normal, kl_terms
from cvae.model import CVAE, as_floats
from cvae.networks import Params

PROPOSALS = ("posterior", "prior", "mixture")
PARALLEL = 50  # samples that are decoded at a time


class Elbo(NamedTuple):
    """Evidence lower bound, one value per example, in nats."""

    log_likelihood: Array  # [B]  E_q log p(x | z, c), a Monte Carlo estimate
    kl: Array  # [B]  KL(q(z | x, c) || p(z | c)), closed form layer by layer, not weighted
    penalty: Array  # [B]  the KL as it enters the objective: times beta, or at least free bits

    @property
    def value(self) -> Array:
        """log_likelihood - penalty, [B]; up is good. A lower bound of log p(x | c) where the penalty is the KL."""
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
    exact for one layer of latents; in a ladder, each layer's is exact given the draw of those above it. `beta` may be
    an array, a scalar or [B]. The maximum is taken of the batch's mean KL of each latent, so with free bits, and only
    then, an example's penalty depends on its batch.

    With `proposal="prior"`, z is drawn from p(z | c) and there is no KL: E_{p(z | c)} log p(x | z, c), a lower bound
    too, and the objective of a Gaussian stochastic network (GSNN).

    Shapes: x [B, *event], c as its condition says -> Elbo of [B].
    Raises: ValueError if an argument does not suit the model, or is out of its range.
    References: Sohn, Lee and Yan 2015, equations 4 and 6; beta from Higgins et al. 2017; free bits from Kingma et al.
        2016.
    """
    checks.integer("num_samples", num_samples)
    checks.number("free_bits", free_bits, least=0)
    checks.one_of("proposal", proposal, PROPOSALS[:2])
    checks.key("key", key)
    x, c = as_floats(model.architecture, x, c)
    checks.scalar("beta", beta, batch=x.shape[0])
    q, p = _posterior_and_prior(model, params, x, c, proposal)

    def one(key: Array) -> tuple[Array, Array]:
        z, q_z = q.sample_with_conditional(key)
        kl = jnp.zeros_like(q_z.mean) if q is p else kl_terms(q_z, p.conditional(z))
        return model.decode(params, z, c).log_prob(x), kl

    # One draw spends the key itself; more draws split it.
    if num_samples == 1:
        log_likelihood, kl = one(key)
    else:
        draws = jax.vmap(one)(jax.random.split(key, num_samples))
        log_likelihood, kl = (term.mean(axis=0) for term in draws)
    paid = kl if free_bits == 0 else jnp.where(kl.mean(axis=0) > free_bits, kl, free_bits)
    return Elbo(log_likelihood, kl.sum(axis=1), jnp.asarray(beta, kl.dtype) * paid.sum(axis=1))


def _posterior_and_prior(
    model: CVAE, params: Params, x: Array, c: Conditions, proposal: str
) -> tuple[Latents, Latents]:
    """q(z | x, c) and p(z | c), one row per example; with the proposal "prior", p in the place of both."""
    if proposal != "prior":
        q = model.encode(params, x, c)
        if isinstance(q, Ladder) and q.prior is not None:  # computed twice, it would be differentiated twice
            return q, q.prior
        return q, model.prior(params, c)
    p = model.prior(params, c)
    if isinstance(p, Normal):  # without a condition the prior has one row, and every example needs its own draw
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
    weight: float = 1.0,
    num_samples: int = 1,
    beta: Array | float = 1.0,
    free_bits: float = 0.0,
) -> Elbo:
    """The CVAE's objective, with z from the posterior, mixed with the GSNN's, with z from the prior.

        weight L_CVAE + (1 - weight) L_GSNN

    Training draws z from the posterior and prediction from the prior; the second term trains for prediction. A weight
    of 1 is `elbo`, and 0 is `elbo` with `proposal="prior"`; neither computes the other's term.

    Shapes: x [B, *event] -> Elbo of [B], of which `log_likelihood` is mixed and `kl` is the CVAE's.
    Raises: ValueError as `elbo`, or if the weight is not in [0, 1].
    References: Sohn, Lee and Yan 2015, equation 7.
    """
    checks.number("weight", weight, 0, 1)
    checks.key("key", key)
    if weight == 1:
        return elbo(model, params, key, x, c, num_samples=num_samples, beta=beta, free_bits=free_bits)
    if weight == 0:
        return elbo(model, params, key, x, c, num_samples=num_samples, proposal="prior")
    cvae_key, gsnn_key = jax.random.split(key)
    cvae = elbo(model, params, cvae_key, x, c, num_samples=num_samples, beta=beta, free_bits=free_bits)
    gsnn = elbo(model, params, gsnn_key, x, c, num_samples=num_samples, proposal="prior")
    mixed = weight * cvae.log_likelihood + (1 - weight) * gsnn.log_likelihood
    return Elbo(mixed, cvae.kl, weight * cvae.penalty)


class Weights(NamedTuple):
    """Importance weights of draws of z, in nats: the mean of exp(value) is an unbiased estimate of p(x | c)."""

    log_likelihood: Array  # [K, B]  log p(x | z, c)
    log_ratio: Array  # [K, B]  log of the proposal's density over p(z | c); its mean under the posterior is the KL

    @property
    def value(self) -> Array:
        """Log w = log p(x | z, c) - log_ratio, [K, B]."""
        return self.log_likelihood - self.log_ratio


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
    """Log importance weights of draws z_k from a proposal r(z).

        log w_k  =  log p(x | z_k, c) + log p(z_k | c) - log r(z_k)

    The proposal r is the posterior q(z | x, c); the prior p(z | c), which is plain Monte Carlo; or their "mixture",
    r = (q + p) / 2, half of the draws from each: its weights are bounded, where a posterior that is too narrow misses
    rare but heavy ones.

    Shapes: x [B, *event] -> Weights of [num_samples, B].
    Raises: ValueError if an argument does not suit the model, or is out of its range.
    References: Burda, Grosse and Salakhutdinov 2016, equation 8; mixture from Owen and Zhou 2000.
    """
    checks.integer("num_samples", num_samples)
    checks.one_of("proposal", proposal, PROPOSALS)
    checks.key("key", key)
    x, c = as_floats(model.architecture, x, c)
    q, p = _posterior_and_prior(model, params, x, c, proposal)

    # Which of the two a mixture's draws alternate from is random, or an odd number of them would be biased.
    first = jax.random.bits(jax.random.fold_in(key, num_samples), dtype=jnp.uint32) % 2

    def one(key: Array, number: Array) -> Weights:
        z, q_z = q.sample_with_conditional(key)
        if proposal == "mixture":
            from_prior = jnp.broadcast_to(p.sample(jax.random.fold_in(key, 0)), z.shape)
            z = jnp.where((number + first) % 2 == 0, z, from_prior)
            log_q, log_p = q.log_prob(z), p.log_prob(z)
            log_ratio = jnp.logaddexp(log_q - log_p, 0) - math.log(2)
        elif q is p:
            log_ratio = jnp.zeros(x.shape[0], z.dtype)
        else:
            log_ratio = q_z.log_prob(z) - p.conditional(z).log_prob(z)
        return Weights(model.decode(params, z, c).log_prob(x), log_ratio)

    return jax.vmap(one)(jax.random.split(key, num_samples), jnp.arange(num_samples, dtype=first.dtype))


class ImportanceEstimate(NamedTuple):
    """Importance-sampled log p(x | c), one value per example."""

    value: Array  # [B]  log 1/K sum_k w_k, in nats: below log p(x | c) in expectation, and rising to it with K
    effective_samples: Array  # [B]  (sum w)^2 / sum w^2, between 1 and K


def importance_estimate(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int = 1,
    proposal: str = "posterior",
) -> ImportanceEstimate:
    """Importance-sampled log p(x | c) with its effective sample size; memory does not grow with `num_samples`.

        log 1/K sum_k w_k,   (sum_k w_k)^2 / sum_k w_k^2

    Weights are summed relative to their running maximum, which cancels no digits whatever their number.

    Shapes: x [B, *event] -> ImportanceEstimate of [B].
    Raises: ValueError as `log_weights`.
    References: Burda, Grosse and Salakhutdinov 2016; effective sample size from Kong 1992.
    """
    checks.integer("num_samples", num_samples)
    parallel = min(num_samples, PARALLEL)
    chunks = -(-num_samples // parallel)

    def chunk(carry: tuple[Array, Array, Array], number: Array) -> tuple[tuple[Array, Array, Array], None]:
        log_max, sum_w, sum_w2 = carry
        chunk_key = jax.random.fold_in(key, number) if chunks > 1 else key
        drawn = log_weights(model, params, chunk_key, x, c, num_samples=parallel, proposal=proposal).value
        counted = number * parallel + jnp.arange(parallel) < num_samples  # the last chunk may be a part
        drawn = jnp.where(counted[:, None], drawn, -jnp.inf)
        new_max = lax.stop_gradient(jnp.maximum(log_max, drawn.max(axis=0)))
        rescale, weights = jnp.exp(log_max - new_max), jnp.exp(drawn - new_max)
        sum_w, sum_w2 = sum_w * rescale + weights.sum(axis=0), sum_w2 * rescale**2 + (weights**2).sum(axis=0)
        return (new_max, sum_w, sum_w2), None

    shapes = jax.eval_shape(lambda: log_weights(model, params, key, x, c, proposal=proposal).value[0])
    zeros = jnp.zeros(shapes.shape, shapes.dtype)
    carry = (jnp.full_like(zeros, -jnp.inf), zeros, zeros)
    if chunks == 1:
        (log_max, sum_w, sum_w2), _ = chunk(carry, jnp.zeros((), jnp.int32))
    else:  # recomputed in the backward pass, so that gradients need no more memory either
        (log_max, sum_w, sum_w2), _ = lax.scan(jax.checkpoint(chunk), carry, jnp.arange(chunks))
    effective = jnp.clip(sum_w**2 / sum_w2, 1, num_samples)
    return ImportanceEstimate(log_max + jnp.log(sum_w) - math.log(num_samples), effective)


def iwae(
    model: CVAE,
    params: Params,
    key: Array,
    x: Array,
    c: Conditions,
    *,
    num_samples: int = 1,
    proposal: str = "posterior",
) -> Array:
    """Importance-weighted bound of log p(x | c): the ELBO with one sample, and tighter with more.

        log 1/K sum_k w_k

    Shapes: x [B, *event] -> [B].
    Raises: ValueError as `log_weights`.
    References: Burda, Grosse and Salakhutdinov 2016, equation 8.
    """
    return importance_estimate(model, params, key, x, c, num_samples=num_samples, proposal=proposal).value
