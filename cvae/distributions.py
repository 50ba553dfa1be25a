"""Distributions as trees of arrays: log_prob, sample and mean, and the KL of two Gaussians. Knows no models.

One convention holds for all: the first axis is the batch, every other axis is the event, and a density is summed
over the event and never over the batch. `log_terms` is the density before that sum, for `Masked`, which counts some
elements only. More batch axes come from `vmap`. Arithmetic is done in the dtype of the parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae import checks
from cvae.checks import Spec

T = TypeVar("T")


@dataclass_transform(frozen_default=True)
def distribution(cls: type[T]) -> type[T]:
    """Make a class of array fields a frozen dataclass that passes through `jit` and `vmap`."""
    return jax.tree_util.register_dataclass(dataclass(frozen=True)(cls))


class Distribution:
    """A density over events [*event], one per example; subclasses give `mean`, `log_terms` and `sample`."""

    support: ClassVar[tuple[float, float]] = (-math.inf, math.inf)  # range of the elements of x

    if TYPE_CHECKING:  # a field of some subclasses and a property of others, so there is none to inherit

        @property
        def mean(self) -> Array:
            """Expected value, [B, *event]."""

    def log_terms(self, x: Array) -> Array:
        """Log density of every element in nats, [B, *event] -> [B, *event]."""
        raise NotImplementedError

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        raise NotImplementedError

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return tuple(np.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(self))))

    @property
    def dtype(self) -> Any:
        """The dtype of the parameters."""
        return jax.tree.leaves(self)[0].dtype

    def log_prob(self, x: Any) -> Array:
        """Log density in nats, the sum of `log_terms` over the event.

        Shapes: [B, *event] -> [B]; a batch axis of 1 broadcasts.
        Raises: ValueError for another shape, or values outside the support.
        """
        self.check(x)
        return sum_event(self.log_terms(self.cast(x)))

    def check(self, x: Any) -> None:
        """Refuse events of another shape, or outside the support."""
        rows, *event = self.shape
        batch = None if rows == 1 or getattr(x, "shape", (0,))[:1] == (1,) else rows
        Spec(tuple(event), "real", *self.support).check("x", x, batch)

    def cast(self, x: Any) -> Array:
        """X in the dtype of the parameters."""
        return jnp.asarray(x, self.dtype)


def sum_event(terms: Array) -> Array:
    """Sum over every axis but the first, [B, *event] -> [B].

    As a product with ones: XLA would compute `terms` inside the loop of a plain sum, one element at a time, which on
    a CPU makes the score of an image twenty times slower. Full precision, because a GPU would round to TF32.
    """
    rows = terms.reshape(terms.shape[0], -1)
    return jnp.dot(rows, jnp.ones(rows.shape[1], rows.dtype), precision=lax.Precision.HIGHEST)


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

    def sample(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """A reparameterised draw, layer after layer; `temperature` scales every standard deviation.  -> [B, Z]."""
        return self.sample_with_conditional(key, temperature)[0]

    def sample_with_conditional(self, key: Array, temperature: Array | float = 1.0) -> tuple[Array, Normal]:
        """A draw z, and `conditional(z)`, which is computed on the way."""
        z: list[Array] = []
        conditionals: list[Normal] = []
        for number in range(self.layers):
            # Nothing is above the first layer; its batch size is that of its own mean.
            above = jnp.concatenate(z, axis=-1) if z else jnp.zeros((1, 0))
            conditionals.append(self.layer(self.state, number, above))
            z.append(conditionals[-1].sample(jax.random.fold_in(key, number), temperature))
        return jnp.concatenate(z, axis=-1), _concatenate(conditionals)

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


@distribution
class Standardized(Distribution):
    """A density of x = location + scale y, where y has the density `base`; x is in its own units.

        log p(x) = log p_y((x - location) / scale) - log scale,   per element

    An element of scale 0 is constant: it has no density, counts 0 nats, and is drawn as its location. Location and
    scale are numbers per channel, the last axis of x, or one for all; (x - location) is computed in float64 for NumPy
    arrays, because a large location would cost the digits that vary.
    """

    base: Distribution
    location: tuple[float, ...] = field(metadata={"static": True})
    scale: tuple[float, ...] = field(metadata={"static": True})

    def _in_units(self, y: Array) -> Array:
        location, scale = (jnp.asarray(np.array(values), self.dtype) for values in (self.location, self.scale))
        return location + scale * y

    @property
    def mean(self) -> Array:
        """Expected value in the units of x, [B, *event]."""
        return self._in_units(self.base.mean)

    def cast(self, x: Any) -> Array:
        """X standardised, in the dtype of the parameters."""
        return jnp.asarray(standardize(x, self.location, self.scale), self.dtype)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element in the units of x; here x is standardised already, by `cast`."""
        scale = np.array(self.scale)
        log_scale = jnp.asarray(np.log(np.where(scale > 0, scale, 1)), self.dtype)
        return jnp.where(scale > 0, self.base.log_terms(x) - log_scale, 0)

    def sample(self, key: Array) -> Array:
        """One draw in the units of x, [B, *event]."""
        return self._in_units(self.base.sample(key))


def standardize(x: Any, location: tuple[float, ...], scale: tuple[float, ...]) -> Any:
    """(x - location) / scale, where a scale of 0 is left out, in float64 for NumPy arrays, else in float32 at least.

    Shapes: [..., C], C or 1 numbers each -> [..., C].
    """
    is_double = isinstance(x, np.ndarray) or x.dtype == np.float64
    dtype = np.float64 if is_double else np.float32
    shift, factor = np.array(location, dtype), np.array([s or 1.0 for s in scale], dtype)
    return (x.astype(dtype) - shift) / factor


def center_and_spread(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column, float64; the spread of a column is 0 if it does not vary.

    A column varies if it differs by more than the rounding of float64 at its size, so Unix times minutes apart do.

    Shapes: [N, D] -> [D], [D].
    """
    first = values[0]
    mean = first + (values - first).mean(axis=0)  # a mean of equal floats is that float
    spread = (values - mean).std(axis=0)
    return mean, np.where(spread > 8 * np.finfo(np.float64).eps * np.abs(values).max(axis=0), spread, 0.0)


@distribution
class Masked(Distribution):
    """A density of which some elements are observed: only the others are random, and counted."""

    base: Distribution
    observed: Array  # bool [B, *event], True where x is observed
    values: Array  # [B, *event], the observed values; not read elsewhere

    @property
    def mean(self) -> Array:
        """Expected value, the observed elements as they are, [B, *event]."""
        return jnp.where(self.observed, jnp.asarray(self.values, self.dtype), self.base.mean)

    @property
    def dtype(self) -> Any:
        """That of the base."""
        return self.base.dtype

    def check(self, x: Any) -> None:
        """Refuse events that the base refuses; x may be anything where it is observed."""
        array, observed = checks.values(x), checks.values(self.observed)
        if array is not None and observed is not None and array.shape[1:] == observed.shape[1:]:
            rows = {len(array), len(observed)}
            x = np.where(observed, np.zeros((), array.dtype), array) if len(rows | {1}) <= 2 else x
        self.base.check(x)

    def cast(self, x: Any) -> Array:
        """X as the base takes it, and 0 where it is observed, so that NaN there reaches no gradient."""
        return jnp.where(self.observed, 0, self.base.cast(x))

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, 0 where it is observed."""
        return jnp.where(self.observed, 0, self.base.log_terms(x))

    def sample(self, key: Array) -> Array:
        """Draws of the elements that are not observed, the others as they are, [B, *event]."""
        return jnp.where(self.observed, jnp.asarray(self.values, self.dtype), self.base.sample(key))
