"""Densities of elements in [0, 1], parametrised by logits."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array

from cvae.distributions.base import Distribution, distribution


@jax.custom_jvp
def _softplus(x: Array) -> Array:
    """log(1 + exp(x)), with an absolute error of a float32 rounding.

    `jax.nn.softplus` is exact relative to the value too, which a sum of nats has no use for, and costs a tenth of a
    training step on a CPU, most of it in a `log1p` that does not vectorise.
    """
    return jnp.maximum(x, 0) + jnp.log(1 + jnp.exp(-jnp.abs(x)))


# The exact derivative: that of the expression would be 0 at x = 0, where |x| has none.
_softplus.defjvps(lambda tangent, _, x: tangent * jax.nn.sigmoid(x))


@distribution
class Bernoulli(Distribution):
    """Independent binary elements, parametrised by logits: the sigmoid is taken only for means and draws.

    A grey x in (0, 1) is scored by the same cross-entropy, as the article and most VAE code do; that is the
    expected log-probability of pixels drawn 1 with probability x, not a normalised density of x.
    """

    logits: Array  # [B, *event], log odds of a 1
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def mean(self) -> Array:
        """Probability of a 1, [B, *event]."""
        return jax.nn.sigmoid(self.logits)

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every element, finite for any finite logit.

        x log p + (1 - x) log(1 - p)  =  x l - softplus(l),   p = sigmoid(l)
        """
        return x * self.logits - _softplus(self.logits)

    def sample(self, key: Array) -> Array:
        """Draws of 0. and 1., [B, *event]; NaN where the logit is NaN, which a draw would hide."""
        drawn = jax.random.bernoulli(key, self.mean).astype(self.dtype)
        return jnp.where(jnp.isnan(self.logits), self.logits, drawn)


_SERIES = 0.2  # below this |logit| the closed forms of the continuous Bernoulli divide two small numbers


@distribution
class ContinuousBernoulli(Distribution):
    """Independent grey elements on [0, 1] with density C(l) exp(x l), the normalised relative of `Bernoulli`.

    Parametrised by the logit l of lambda = sigmoid(l).

    References: Loaiza-Ganem and Cunningham 2019, The continuous Bernoulli.
    """

    logits: Array  # [B, *event]
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def _away_from_zero(self) -> tuple[Array, Array]:
        """Whether |l| is small, and l with its small values replaced: both branches of a `where` stay finite."""
        small = jnp.abs(self.logits) < _SERIES
        return small, jnp.where(small, 1.0, self.logits)

    @property
    def mean(self) -> Array:
        """Expected grey level, 1 / (1 - exp(-l)) - 1 / l, [B, *event]; 1/2 at l = 0, and not sigmoid(l)."""
        small, safe = self._away_from_zero()
        series = 0.5 + self.logits / 12 - self.logits**3 / 720
        # 1 / (1 - exp(-l)) = (1 + 1 / tanh(l / 2)) / 2, whose derivative cannot overflow.
        return jnp.where(small, series, 0.5 + 0.5 / jnp.tanh(safe / 2) - 1 / safe)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element.

        x l - softplus(l) + log C,   C = l / tanh(l / 2)  (2 at l = 0)
        """
        small, safe = self._away_from_zero()
        series = math.log(2) + self.logits**2 / 12 - 7 * self.logits**4 / 1440
        return x * self.logits - _softplus(self.logits) + jnp.where(small, series, jnp.log(safe / jnp.tanh(safe / 2)))

    def sample(self, key: Array) -> Array:
        """Draws by the inverse distribution function, log(1 + u (exp(l) - 1)) / l, [B, *event]."""
        u = jax.random.uniform(key, self.shape, self.dtype)
        # For l > 0 the mirror image, so that the exponential cannot overflow; nearer to 0 only 0 / 0 would change.
        decay = -jnp.maximum(jnp.abs(self.logits), 1e-6)
        drawn = jnp.clip(jnp.log1p(u * jnp.expm1(decay)) / decay, 0, 1)
        return jnp.where(self.logits > 0, 1 - drawn, drawn)
