"""Distributions as tuples of arrays: log_prob, sample, mean, and the KL between two Gaussians.

One convention holds for all: the first axis is the batch, every other axis is the event, and a density is summed
over the event and never over the batch. More batch axes come from `vmap`. The module knows nothing of models.
"""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax


class Distribution(Protocol):
    """What `decode` returns: a likelihood p(x | z, c)."""

    @property
    def mean(self) -> Array:
        """Expected value, [B, *event]."""
        ...

    def log_prob(self, x: Array) -> Array:
        """Log p(x) in nats, [B, *event] -> [B]."""
        ...

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        ...


def _sum_event(terms: Array) -> Array:
    """Sum over every axis but the first, [B, *event] -> [B].

    As a product with ones: XLA would compute `terms` inside the loop of a plain sum, one element at a time, which on
    a CPU makes the score of a picture twenty times slower. Full precision, because a GPU would round to TF32.
    """
    rows = terms.reshape(terms.shape[0], -1)
    return jnp.dot(rows, jnp.ones(rows.shape[1], rows.dtype), precision=lax.Precision.HIGHEST)


class Normal(NamedTuple):
    """Diagonal Gaussian; held by its log standard deviation, so a scale cannot be negative."""

    mean: Array  # [B, *event]
    log_std: Array  # [B, *event], the logarithm of the standard deviation, not of the variance

    @property
    def std(self) -> Array:
        """Standard deviation, [B, *event]."""
        return jnp.exp(self.log_std)

    def log_prob(self, x: Array) -> Array:
        """Log density in nats.

            sum_d  -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2

        Shapes: [B, *event] -> [B].
        """
        standard = (x - self.mean) * jnp.exp(-self.log_std)
        return _sum_event(-0.5 * standard**2 - self.log_std - 0.5 * math.log(2 * math.pi))

    def sample(self, key: Array) -> Array:
        """A reparameterised draw, mean + std * noise: gradients pass through it.  Shapes: -> [B, *event]."""
        shape = jnp.broadcast_shapes(self.mean.shape, self.log_std.shape)
        return self.mean + self.std * jax.random.normal(key, shape, self.mean.dtype)


def kl_divergence(q: Normal, p: Normal) -> Array:
    """KL(q || p) of two diagonal Gaussians, in nats.

        sum_d  log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2

    Shapes: [B, D], [B, D] -> [B]; a batch axis of 1 broadcasts.  Kingma & Welling 2014, appendix B.
    """
    log_ratio = q.log_std - p.log_std
    shift = (q.mean - p.mean) * jnp.exp(-p.log_std)
    return _sum_event(-log_ratio + 0.5 * (jnp.exp(2 * log_ratio) + shift**2 - 1))


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), with an absolute error of a float32 rounding.

    `jax.nn.softplus` is exact relative to the value too, which a sum of nats has no use for, and costs a tenth of a
    training step on a CPU, most of it in a `log1p` that does not vectorise.
    """
    return jnp.maximum(x, 0) + jnp.log(1 + jnp.exp(-jnp.abs(x)))


# The exact derivative: that of the expression would be 0 at x = 0, where |x| has none.
_softplus.defjvps(lambda tangent, _, x: tangent * jax.nn.sigmoid(x))


class Bernoulli(NamedTuple):
    """Independent binary pixels, held as logits: the sigmoid is taken only to sample and to draw.

    A grey x in (0, 1) is scored by the same cross-entropy, as the article and most VAE code do; that is the
    expected log-probability of pixels drawn black with probability x, not a normalised density of x.
    """

    logits: Array  # [B, *event], log odds of a 1

    @property
    def mean(self) -> Array:
        """Probability of a 1, [B, *event]."""
        return jax.nn.sigmoid(self.logits)

    def log_prob(self, x: Array) -> Array:
        """Log-probability in nats, finite for any finite logit.

            sum_d  x log p + (1 - x) log(1 - p)  =  sum_d  x l - softplus(l),   p = sigmoid(l)

        Shapes: [B, *event] -> [B].
        """
        return _sum_event(x * self.logits - _softplus(self.logits))

    def sample(self, key: Array) -> Array:
        """Draws of 0. and 1.  Shapes: -> [B, *event]."""
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)
