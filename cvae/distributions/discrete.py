"""Discrete densities: counts, categories, and 8-bit pixels."""

from __future__ import annotations

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.special import gammaln

from cvae.checks import Spec
from cvae.distributions.base import Distribution, distribution

LEVELS = 256  # of an 8-bit pixel
_STIRLING = 10.0  # from here on, three terms of Stirling's series are exact in float32


@distribution
class Poisson(Distribution):
    """Independent counts, log p(x) = x log r - r - log x!, parametrised by the log rate."""

    log_rate: Array  # [B, *event]

    @property
    def spec(self) -> Spec:
        """Whole numbers from 0 on."""
        return Spec(self.shape[1:], "whole", 0)

    @property
    def mean(self) -> Array:
        """The rate, [B, *event]."""
        return jnp.exp(self.log_rate)

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every element.

        With Stirling's formula for x!, large terms cancel before they are rounded (Loader 2000):

            log p(x) = -x h(log(r / x)) - log(2 pi x) / 2 - d(x),   h(u) = exp(u) - 1 - u;   -r for x = 0
        """
        some = jnp.where(x == 0, 1, x)
        terms = -_deviance(some, self.log_rate - jnp.log(some)) - 0.5 * jnp.log(2 * math.pi * some)
        return jnp.where(x == 0, -self.mean, terms - _stirling_error(some))

    def sample(self, key: Array) -> Array:
        """Counts as floats, [B, *event]; NaN where the rate is NaN."""
        drawn = jax.random.poisson(_threefry(key), jnp.nan_to_num(self.mean), self.shape).astype(self.dtype)
        return jnp.where(jnp.isnan(self.log_rate), self.log_rate, drawn)

    def with_exposure(self, exposure: Array) -> Poisson:
        """The rate times an exposure, such as a duration or a size.  Shapes: [B]."""
        return Poisson(self.log_rate + _log_exposure(exposure, self.log_rate))


@distribution
class NegativeBinomial(Distribution):
    """Independent counts whose variance exceeds their mean, m + m^2 / r: a Poisson with a rate from a Gamma.

    log p(x) = log G(x + r) - log G(r) - log x! + r log(r / (r + m)) + x log(m / (r + m))

    Parametrised by the logarithms of the mean m and of r, called size or inverse dispersion.
    """

    log_mean: Array  # [B, *event]
    log_size: Array  # [B, *event]

    @property
    def spec(self) -> Spec:
        """Whole numbers from 0 on."""
        return Spec(self.shape[1:], "whole", 0)

    @property
    def mean(self) -> Array:
        """The mean m, [B, *event]."""
        return jnp.exp(self.log_mean)

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every element, as Loader's binomial: r / n times that of r in n = x + r trials.

        log p(x) = log(r / n) + log(n / (2 pi r x)) / 2 + d(n) - d(r) - d(x) - r h(log(n p / r)) - x h(log(n q / x))

        where p = r / (r + m), q = m / (r + m), and h and d are those of `Poisson`;  -r log(1 + m / r) for x = 0.
        """
        size, log_both = jnp.exp(self.log_size), jnp.logaddexp(self.log_size, self.log_mean)
        some = jnp.where(x == 0, 1, x)
        log_some, log_trials = jnp.log(some), jnp.log(some + size)
        square_root = 0.5 * (log_trials - math.log(2 * math.pi) - self.log_size - log_some)
        errors = _stirling_error(some + size) - _stirling_error(size) - _stirling_error(some)
        of_size = _deviance(size, log_trials - log_both)
        of_count = _deviance(some, log_trials + self.log_mean - log_both - log_some)
        terms = self.log_size - log_trials + square_root + errors - of_size - of_count
        return jnp.where(x == 0, -size * jax.nn.softplus(self.log_mean - self.log_size), terms)

    def sample(self, key: Array) -> Array:
        """Counts as floats, [B, *event]; NaN where a parameter is NaN."""
        rate_key, count_key = jax.random.split(key)
        size = jnp.nan_to_num(jnp.exp(self.log_size), nan=1.0)
        rate = jax.random.gamma(rate_key, size, self.shape, self.dtype) * jnp.exp(self.log_mean - self.log_size)
        drawn = jax.random.poisson(_threefry(count_key), jnp.nan_to_num(rate), self.shape).astype(self.dtype)
        return jnp.where(jnp.isnan(self.log_mean + self.log_size), self.log_mean, drawn)

    def with_exposure(self, exposure: Array) -> NegativeBinomial:
        """The mean times an exposure.  Shapes: [B]."""
        return NegativeBinomial(self.log_mean + _log_exposure(exposure, self.log_mean), self.log_size)


def _deviance(x: Array, u: Array) -> Array:
    """X h(u), h(u) = exp(u) - 1 - u: half the deviance of a count x from a mean x exp(u)."""
    return x * (jnp.expm1(u) - u)


def _stirling_error(x: Array) -> Array:
    """d(x) = log G(x + 1) - (x + 1/2) log x + x - log(2 pi) / 2, for x > 0.

    References: Loader 2000, Fast and accurate computation of binomial probabilities.
    """
    is_small = x < _STIRLING
    small, large = jnp.where(is_small, x, 1), jnp.where(is_small, _STIRLING, x)
    direct = gammaln(small + 1) - (small + 0.5) * jnp.log(small) + small - 0.5 * math.log(2 * math.pi)
    return jnp.where(is_small, direct, (1 / 12 - (1 / 360 - 1 / (1260 * large**2)) / large**2) / large)


def _log_exposure(exposure: Array, like: Array) -> Array:
    return jnp.log(jnp.asarray(exposure, like.dtype)).reshape(-1, *[1] * (like.ndim - 1))


def _threefry(key: Array) -> Array:
    """The key as JAX's Poisson sampler takes it, which is written for threefry alone."""
    words = jax.random.bits(key, (2,), jnp.uint32)
    wrapped: Array = jax.random.wrap_key_data(words, impl="threefry2x32")
    return wrapped


@distribution
class Categorical(Distribution):
    """Independent categories, held as whole numbers 0 to K - 1, parametrised by logits."""

    logits: Array  # [B, *event, K]

    @property
    def spec(self) -> Spec:
        """Whole numbers below K."""
        return Spec(self.shape[1:], "whole", 0, self.logits.shape[-1])

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return tuple(self.logits.shape[:-1])

    @property
    def mean(self) -> Array:
        """The most probable category, [B, *event]: categories have no mean."""
        mode = self.logits.argmax(axis=-1).astype(self.dtype)
        return jnp.where(jnp.isnan(self.logits).any(axis=-1), jnp.nan, mode)

    @property
    def probabilities(self) -> Array:
        """Of every category, [B, *event, K]."""
        return jax.nn.softmax(self.logits)

    def mixture_mean(self, weights: Array) -> Array:
        """The category that is most probable under the mixture.  Shapes: [B] -> [*event]."""
        mixed = jnp.tensordot(weights, self.probabilities, axes=1, precision=lax.Precision.HIGHEST)
        return jnp.where(jnp.isnan(mixed).any(axis=-1), jnp.nan, mixed.argmax(axis=-1).astype(self.dtype))

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every element, its logit less their log-sum-exp; NaN where x is no category."""
        is_chosen = x[..., None] == jnp.arange(self.logits.shape[-1], dtype=self.dtype)
        chosen = jnp.where(is_chosen, self.logits, 0).sum(axis=-1)
        return jnp.where(is_chosen.any(axis=-1), chosen - jax.nn.logsumexp(self.logits, axis=-1), jnp.nan)

    def sample(self, key: Array) -> Array:
        """Categories as floats, [B, *event]; NaN where a logit is NaN."""
        drawn = jax.random.categorical(key, self.logits).astype(self.dtype)
        return jnp.where(jnp.isnan(self.logits).any(axis=-1), jnp.nan, drawn)


@distribution
class CategoricalPixels(Distribution):
    """Independent 8-bit pixels, held in 255ths, with a probability of their own for each of the 256 levels.

    A grey level between two 255ths is scored as the nearest.
    """

    logits: Array  # [B, *event, 256]
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return tuple(self.logits.shape[:-1])

    @property
    def mean(self) -> Array:
        """The expected grey level, [B, *event]."""
        return jax.nn.softmax(self.logits) @ jnp.linspace(0, 1, LEVELS, dtype=self.dtype)

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every pixel's level; NaN where x is none."""
        level = jnp.rint(x * (LEVELS - 1))
        is_level = (level >= 0) & (level < LEVELS)
        index = jnp.where(is_level, level, 0).astype(jnp.int32)[..., None]
        chosen = jnp.take_along_axis(self.logits, index, axis=-1)[..., 0]
        return jnp.where(is_level, chosen - jax.nn.logsumexp(self.logits, axis=-1), jnp.nan)

    def sample(self, key: Array) -> Array:
        """Grey levels in 255ths, [B, *event]."""
        drawn = jax.random.categorical(key, self.logits).astype(self.dtype) / (LEVELS - 1)
        return jnp.where(jnp.isnan(self.logits).any(axis=-1), jnp.nan, drawn)


@distribution
class DiscretizedLogistic(Distribution):
    """Independent 8-bit pixels, held in 255ths: a logistic density integrated over each level.

        p(x) = S((x + 1/510 - m) / s) - S((x - 1/510 - m) / s),   S the sigmoid

    The darkest and the brightest level take the tails, so the 256 probabilities sum to 1. A grey level between two
    255ths is scored as the nearest.

    References: Kingma et al. 2016, Improved variational inference with inverse autoregressive flow.
    """

    location: Array  # [B, *event], m
    log_scale: Array  # [B, *event]
    support: ClassVar[tuple[float, float]] = (0.0, 1.0)

    @property
    def mean(self) -> Array:
        """The expected grey level, [B, *event]: the sum of P(x > level) over levels, in 255ths."""
        edges = (jnp.arange(LEVELS - 1, dtype=self.dtype) + 0.5) / (LEVELS - 1)
        above = (self.location[..., None] - edges) * jnp.exp(-self.log_scale)[..., None]
        return jax.nn.sigmoid(above).sum(axis=-1) / (LEVELS - 1)

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every pixel's level.

        The difference of two sigmoids, S(b) - S(a), is S(b) S(-a) (1 - exp(a - b)), which cancels no digits.
        """
        half, precision = 0.5 / (LEVELS - 1), jnp.exp(-self.log_scale)
        level = jnp.rint(x * (LEVELS - 1)) / (LEVELS - 1)
        low, high = ((level + by - self.location) * precision for by in (-half, half))
        width = 2 * half * precision
        inside = jax.nn.log_sigmoid(high) + jax.nn.log_sigmoid(-low) + jnp.log(-jnp.expm1(-width))
        first, last = level < half, level > 1 - half
        return jnp.where(first, jax.nn.log_sigmoid(high), jnp.where(last, jax.nn.log_sigmoid(-low), inside))

    def sample(self, key: Array) -> Array:
        """Grey levels in 255ths, [B, *event]: a logistic draw, rounded and clipped."""
        noise = jax.random.logistic(key, self.shape, self.dtype)
        drawn = self.location + jnp.exp(self.log_scale) * noise
        return jnp.rint(jnp.clip(drawn, 0, 1) * (LEVELS - 1)) / (LEVELS - 1)
