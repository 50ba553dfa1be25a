"""Distributions as trees of arrays: log_prob, sample, mean, and the KL between two Gaussians.

One convention holds for all: the first axis is the batch, every other axis is the event, and a density is summed
over the event and never over the batch; `log_terms` is the density before that sum, for `Partial`, which counts some
elements only. More batch axes come from `vmap`. The module knows nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from cvae import checks


class Distribution(Protocol):
    """What `decode` returns: a likelihood p(x | z, c)."""

    @property
    def mean(self) -> Array:
        """Expected value, [B, *event]."""
        ...

    def log_terms(self, x: Array) -> Array:
        """Log p of every element in nats, [B, *event] -> [B, *event]."""
        ...

    def log_prob(self, x: Array) -> Array:
        """Log p(x) in nats, [B, *event] -> [B]."""
        ...

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        ...


def _numbers(name: str, x: Any, rows: int | None = None, event: tuple[int, ...] | None = None) -> Any:
    """Refuse what is no array of real numbers, or no [B, *event] where B may broadcast; the numbers as floats."""
    shape = checks.shape_of(name, x)
    is_real = checks.is_float(x.dtype) or checks.is_integer(x.dtype) or x.dtype == bool
    checks.require(is_real, name, "be an array of real numbers", f"{x.dtype} values")
    checks.require(len(shape) > 0 and shape[0] > 0, name, "have shape [B, *event], B > 0", shape)
    if event is not None:
        fits = shape[1:] == event and (shape[0] == rows or 1 in (shape[0], rows))
        checks.require(fits, name, f"have shape {(rows, *event)}", shape)
    # Halves would be added up as halves, and of NumPy's integers of 64 bits JAX would take the last 32.
    return x if str(x.dtype) in ("float32", "float64") else jnp.asarray(x, jnp.float32)


def _rows_and_event(*parameters: Array) -> tuple[int, tuple[int, ...]]:
    """B and the shape of an example of what has these parameters."""
    rows, *event = jnp.broadcast_shapes(*(parameter.shape for parameter in parameters))
    return rows, tuple(event)


def _shares(x: Any, logits: Array) -> Any:
    """Refuse as `_numbers`, and elements outside [0, 1]."""
    x = _numbers("x", x, logits.shape[0], logits.shape[1:])
    checks.unit_interval("x", x)
    return x


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

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, -((x - mean) / std)^2 / 2 - log std - log(2 pi) / 2.

        Shapes: [B, *event] -> [B, *event].
        """
        standard = (x - self.mean) * jnp.exp(-self.log_std)
        return -0.5 * standard**2 - self.log_std - 0.5 * math.log(2 * math.pi)

    def log_prob(self, x: Array) -> Array:
        """Log density in nats, the sum of `log_terms`.

        Shapes: [B, *event] -> [B].  Raises: ValueError for another shape, or no numbers.
        """
        x = _numbers("x", x, *_rows_and_event(self.mean, self.log_std))
        return _sum_event(self.log_terms(x))

    def sample(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """A reparameterised draw, mean + temperature * std * noise: gradients pass through it.

        Shapes: -> [B, *event].
        """
        shape = jnp.broadcast_shapes(self.mean.shape, self.log_std.shape)
        return self.mean + temperature * self.std * jax.random.normal(key, shape, self.mean.dtype)

    def draw(self, key: Array) -> tuple[Array, Normal]:
        """A draw, and `given` it; what `Ladder` has too."""
        return self.sample(key), self

    def given(self, z: Array) -> Normal:
        """Itself: no element depends on another."""
        return self


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Ladder:
    """Layers of latents, top down: a Gaussian each, whose mean and scale depend on the layers above.

        p(z) = prod_l N(z_l; m_l(z_1, ..., z_{l-1}), s_l(z_1, ..., z_{l-1}))

    All layers lie side by side in one z, [B, Z], and are of equal size.  Sonderby et al. 2016.
    """

    state: Any  # whatever `layer` reads: parameters, features
    layer: Callable[[Any, int, Array], Normal] = field(metadata={"static": True})  # (state, l, z above [B, l Z/L])
    layers: int = field(metadata={"static": True})  # L
    prior: Ladder | None = None  # of a posterior: the prior that it departs from, computed already

    def _descend(self, key: Array, temperature: Array | float) -> tuple[Array, Normal]:
        z: list[Array] = []
        conditionals: list[Normal] = []
        for number in range(self.layers):
            # The first layer sees nothing above it; its batch is told by its own mean.
            above = jnp.concatenate(z, axis=-1) if z else jnp.zeros((1, 0))
            conditionals.append(self.layer(self.state, number, above))
            z.append(conditionals[-1].sample(jax.random.fold_in(key, number), temperature))
        return jnp.concatenate(z, axis=-1), _beside(conditionals)

    def sample(self, key: Array, temperature: Array | float = 1.0) -> Array:
        """A reparameterised draw, layer after layer, `temperature` scaling every standard deviation.

        Shapes: -> [B, Z].
        """
        return self._descend(key, temperature)[0]

    def draw(self, key: Array) -> tuple[Array, Normal]:
        """A draw, and `given` it, which has been computed on the way."""
        return self._descend(key, 1.0)

    def given(self, z: Array) -> Normal:
        """Every layer's conditional, where the layers above are those of z.  Shapes: [B, Z] -> over [B, Z]."""
        size = z.shape[-1] // self.layers
        return _beside([self.layer(self.state, number, z[:, : number * size]) for number in range(self.layers)])

    def log_prob(self, z: Array) -> Array:
        """Log density in nats, sum_l log p(z_l | z_<l).  Shapes: [B, Z] -> [B]."""
        return self.given(z).log_prob(z)


def _beside(conditionals: list[Normal]) -> Normal:
    """Gaussians of one batch side by side; a batch axis of 1 broadcasts."""
    rows = max(conditional.mean.shape[0] for conditional in conditionals)

    def join(parts: list[Array]) -> Array:
        return jnp.concatenate([jnp.broadcast_to(part, (rows, part.shape[-1])) for part in parts], axis=-1)

    return Normal(join([c.mean for c in conditionals]), join([c.log_std for c in conditionals]))


# What `encode` and `prior` return: they sample z, say its density, and, given a z, every element's own Gaussian.
Latents = Normal | Ladder


def kl_terms(q: Normal, p: Normal) -> Array:
    """KL(q || p) of two diagonal Gaussians, dimension by dimension, in nats.

        log(s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2

    Shapes: [B, D], [B, D] -> [B, D]; a batch axis of 1 broadcasts.  Kingma & Welling 2014, appendix B.
    """
    log_ratio = q.log_std - p.log_std
    shift = (q.mean - p.mean) * jnp.exp(-p.log_std)
    return -log_ratio + 0.5 * (jnp.exp(2 * log_ratio) + shift**2 - 1)


def kl_divergence(q: Normal, p: Normal) -> Array:
    """KL(q || p) of two diagonal Gaussians in nats, the sum of `kl_terms`.

    Shapes: [B, D], [B, D] -> [B]; a batch axis of 1 broadcasts.
    Raises: ValueError if one is no `Normal` of numbers, or their shapes differ.
    """
    parameters: list[Any] = []
    for name, normal in (("q", q), ("p", p)):
        checks.require(isinstance(normal, Normal), name, "be a Normal", f"a {type(normal).__name__}")
        for parameter, values in normal._asdict().items():
            alike = _rows_and_event(*parameters) if parameters else ()
            parameters.append(_numbers(f"{name}.{parameter}", values, *alike))
    return _sum_event(kl_terms(Normal(*parameters[:2]), Normal(*parameters[2:])))


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

    def log_terms(self, x: Array) -> Array:
        """Log-probability of every element, finite for any finite logit.

            x log p + (1 - x) log(1 - p)  =  x l - softplus(l),   p = sigmoid(l)

        Shapes: [B, *event] -> [B, *event].
        """
        return x * self.logits - _softplus(self.logits)

    def log_prob(self, x: Array) -> Array:
        """Log-probability in nats, the sum of `log_terms`.

        Shapes: [B, *event] -> [B].  Raises: ValueError for another shape, or no numbers in [0, 1].
        """
        x = _shares(x, self.logits)
        return _sum_event(self.log_terms(x))

    def sample(self, key: Array) -> Array:
        """Draws of 0. and 1.  Shapes: -> [B, *event]."""
        return jax.random.bernoulli(key, self.mean).astype(self.logits.dtype)


# Below this |logit| the closed forms of the continuous Bernoulli divide two small numbers; their series do not.
_SERIES = 0.2


class ContinuousBernoulli(NamedTuple):
    """Independent grey pixels on [0, 1], with density C(l) exp(x l): the normalised cousin of `Bernoulli`.

    Held by the logit l of the parameter lambda = sigmoid(l).  Loaiza-Ganem & Cunningham 2019.
    """

    logits: Array  # [B, *event]

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

        Shapes: [B, *event] -> [B, *event].
        """
        small, safe = self._away_from_zero()
        series = math.log(2) + self.logits**2 / 12 - 7 * self.logits**4 / 1440
        log_c = jnp.where(small, series, jnp.log(safe / jnp.tanh(safe / 2)))
        return x * self.logits - _softplus(self.logits) + log_c

    def log_prob(self, x: Array) -> Array:
        """Log density in nats, the sum of `log_terms`.

        Shapes: [B, *event] -> [B].  Raises: ValueError for another shape, or no numbers in [0, 1].
        """
        x = _shares(x, self.logits)
        return _sum_event(self.log_terms(x))

    def sample(self, key: Array) -> Array:
        """Draws by the inverse of the distribution function, log(1 + u (exp(l) - 1)) / l.  Shapes: -> [B, *event]."""
        u = jax.random.uniform(key, self.logits.shape, self.logits.dtype)
        # For l > 0 the mirror image, so that the exponential cannot overflow; nearer to 0 only 0 / 0 would change.
        fall = -jnp.maximum(jnp.abs(self.logits), 1e-6)
        drawn = jnp.clip(jnp.log1p(u * jnp.expm1(fall)) / fall, 0, 1)
        return jnp.where(self.logits > 0, 1 - drawn, drawn)


class Partial(NamedTuple):
    """A likelihood of which some elements are given already: only the hidden ones are random, and counted."""

    likelihood: Distribution
    hidden: Array  # bool [B, *event], True where x is not given
    given: Array  # [B, *event], the values where it is; whatever stands at hidden places is never read

    @property
    def mean(self) -> Array:
        """Expected value, the given elements as they are, [B, *event]."""
        return jnp.where(self.hidden, self.likelihood.mean, self.given)

    def log_terms(self, x: Array) -> Array:
        """Log density of the hidden elements, 0 for the given ones.  Shapes: [B, *event] -> [B, *event]."""
        return jnp.where(self.hidden, self.likelihood.log_terms(x), 0.0)

    def log_prob(self, x: Array) -> Array:
        """Log density of the hidden elements in nats.

        Shapes: [B, *event] -> [B].  Raises: ValueError for another shape, or no numbers.
        """
        x = _numbers("x", x, *_rows_and_event(self.hidden))
        return _sum_event(self.log_terms(x))

    def sample(self, key: Array) -> Array:
        """Draws of the hidden elements, the given ones as they are.  Shapes: -> [B, *event]."""
        return jnp.where(self.hidden, self.likelihood.sample(key), self.given)
