"""Gaussians: diagonal ones, hierarchies of latents, and the KL of two."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cvae import checks
from cvae.checks import Spec
from cvae.distributions.base import Distribution, distribution, sum_event


@distribution
class Normal(Distribution):
    """Diagonal Gaussian, parametrised by its log standard deviation, so a scale cannot be negative."""

    mean: Array  # [B, *event]
    log_std: Array  # [B, *event], the logarithm of the standard deviation, not of the variance

    @property
    def std(self) -> Array:
        """Standard deviation, [B, *event]."""
        return jnp.exp(self.log_std)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2."""
        standardized = (x - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * standardized**2 - self.log_std - 0.5 * math.log(2 * math.pi)

    def sample(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """A reparameterised draw, mean + temperature * std * noise: gradients pass through it."""
        noise = jax.random.normal(key, self.shape, self.dtype)
        return self.mean + jnp.asarray(temperature, self.dtype) * self.std * noise

    def sample_with_conditional(self, key: Array) -> tuple[Array, Normal]:
        """A draw z, and `conditional(z)`."""
        return self.sample(key), self

    def conditional(self, z: Array) -> Normal:
        """Every element's Gaussian given the other elements of z: itself, as they are independent."""
        return self


@distribution
class Ladder:
    """A hierarchy of Gaussian latents, top down; the mean and scale of a layer depend on the layers above it.

        p(z) = prod_l N(z_l; m_l(z_1, ..., z_{l-1}), s_l(z_1, ..., z_{l-1}))

    All layers lie side by side in one z, [B, Z], and are of equal size.

    References: Sonderby et al. 2016, Ladder Variational Autoencoders.
    """

    state: Any  # what `layer` reads: parameters and features
    layer: Callable[[Any, int, Array], Normal] = field(metadata={"static": True})  # (state, l, z above [B, l Z/L])
    layers: int = field(metadata={"static": True})  # L
    prior: Ladder | None = None  # of a posterior that is parametrised relative to its prior: that prior

    def _descend(self, key: Array, temperature: Array | float) -> tuple[Array, Normal]:
        z: list[Array] = []
        conditionals: list[Normal] = []
        for number in range(self.layers):
            # Nothing is above the first layer; its batch size is that of its own mean.
            above = jnp.concatenate(z, axis=-1) if z else jnp.zeros((1, 0))
            conditionals.append(self.layer(self.state, number, above))
            z.append(conditionals[-1].sample(jax.random.fold_in(key, number), temperature))
        return jnp.concatenate(z, axis=-1), _concatenate(conditionals)

    def sample(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """A reparameterised draw, layer after layer; `temperature` scales every standard deviation.  -> [B, Z]."""
        return self._descend(key, temperature)[0]

    def sample_with_conditional(self, key: Array) -> tuple[Array, Normal]:
        """A draw z, and `conditional(z)`, which is computed on the way."""
        return self._descend(key, 1.0)

    def conditional(self, z: Array) -> Normal:
        """Every element's Gaussian, given the layers of z above its own.  Shapes: [B, Z] -> over [B, Z]."""
        size = z.shape[-1] // self.layers
        return _concatenate([self.layer(self.state, number, z[:, : number * size]) for number in range(self.layers)])

    def log_prob(self, z: Array) -> Array:
        """Log density in nats, sum_l log p(z_l | z_<l).  Shapes: [B, Z] -> [B]."""
        return self.conditional(z).log_prob(z)


def _concatenate(conditionals: list[Normal]) -> Normal:
    """Gaussians of one batch side by side; a batch axis of 1 broadcasts."""
    rows = max(conditional.mean.shape[0] for conditional in conditionals)

    def join(parts: list[Array]) -> Array:
        return jnp.concatenate([jnp.broadcast_to(part, (rows, part.shape[-1])) for part in parts], axis=-1)

    return Normal(join([c.mean for c in conditionals]), join([c.log_std for c in conditionals]))


# What `encode` and `prior` return: they sample z, give its density, and every element's own Gaussian given a z.
Latents = Normal | Ladder


def kl_terms(q: Normal, p: Normal) -> Array:
    """KL(q || p) of two diagonal Gaussians, per dimension, in nats.

        log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2

    Shapes: [B, D], [B, D] -> [B, D]; a batch axis of 1 broadcasts.

    References: Kingma and Welling 2014, appendix B.
    """
    log_ratio = q.log_std - p.log_std
    shift = (q.mean - p.mean) * jnp.exp(-p.log_std)
    return -log_ratio + 0.5 * (jnp.exp(2 * log_ratio) + shift**2 - 1)


def kl_divergence(q: Normal, p: Normal) -> Array:
    """KL(q || p) of two diagonal Gaussians in nats, the sum of `kl_terms`.

    Shapes: [B, D], [B, D] -> [B]; a batch axis of 1 broadcasts.
    Raises: ValueError if one is not a `distributions.Normal`, or their events differ.
    """
    for name, normal in (("q", q), ("p", p)):
        checks.instance(name, normal, Normal, "a cvae.distributions.Normal")
    event = checks.shape_of("q.mean", q.mean)[1:]
    for name, normal in (("q", q), ("p", p)):
        batches = [Spec(event).check(f"{name}.{part}", getattr(normal, part)) for part in ("mean", "log_std")]
        rule = f"have the batch size of the mean, {batches[0]}, or 1"
        checks.require(len({*batches} - {1}) < 2, f"{name}.log_std", rule, batches[1])
    sizes = {q.shape[0], p.shape[0]} - {1}
    checks.require(len(sizes) < 2, "p", f"have the batch size of q, {q.shape[0]}, or 1", p.shape[0])
    return sum_event(kl_terms(q, p))
