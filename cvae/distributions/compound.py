"""Densities composed of others: in other units, of the columns of a table, of some of the elements."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae import checks
from cvae.checks import SMALLEST, Spec
from cvae.distributions.base import Distribution, distribution
from cvae.distributions.gaussian import Normal


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

    @property
    def locations(self) -> Array:
        """The location as an array, [C] or [1]."""
        return jnp.asarray(np.array(self.location), self.dtype)

    @property
    def scales(self) -> Array:
        """The scale as an array, [C] or [1]."""
        return jnp.asarray(np.array(self.scale), self.dtype)

    @property
    def mean(self) -> Array:
        """Expected value in the units of x, [B, *event]."""
        return self.locations + self.scales * self.base.mean

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
        return self.locations + self.scales * self.base.sample(key)


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
    Missing values, NaN, are left out.

    Shapes: [N, D] -> [D], [D].
    """
    present = np.isfinite(values)
    values = np.where(present.any(axis=0), values, 0.0)
    first = np.take_along_axis(values, present.argmax(axis=0)[None], axis=0)[0]
    mean = first + np.nanmean(values - first, axis=0)  # a mean of equal floats is that float
    spread = np.nanstd(values - mean, axis=0)
    largest = np.nanmax(np.abs(values), axis=0)
    return mean, np.where(spread > 8 * np.finfo(np.float64).eps * largest, spread, 0.0)


@distribution
class LogNormal(Distribution):
    """Independent positive elements whose logarithm is Gaussian.

    log p(x) = log N(log x; location + scale m, scale s) - log x

    An element of scale 0 is constant, and counts 0 nats.
    """

    base: Standardized  # of log x, with a Normal inside
    support: ClassVar[tuple[float, float]] = (SMALLEST, math.inf)

    @property
    def mean(self) -> Array:
        """Expected value, exp(mean + variance / 2) of log x, [B, *event]."""
        assert isinstance(self.base.base, Normal)
        std = self.base.scales * self.base.base.std
        return _bounded_exp(self.base.mean + 0.5 * std**2)

    def cast(self, x: Any) -> Array:
        """Log x, standardised: in float64 for NumPy arrays."""
        log = np.log(x.astype(np.float64)) if isinstance(x, np.ndarray) else jnp.log(jnp.asarray(x, self.dtype))
        return self.base.cast(log)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element in the units of x; here x is log x standardised already, by `cast`."""
        log = self.base.locations + self.base.scales * x
        return self.base.log_terms(x) - jnp.where(self.base.scales > 0, log, 0)

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        return _bounded_exp(self.base.sample(key))


def _bounded_exp(log: Array) -> Array:
    """The exponential, finite in float32."""
    return jnp.exp(jnp.minimum(log, 80.0))


@distribution
class Columns(Distribution):
    """Rows of a table: each column has a density of its own, and they are independent.

        log p(x) = sum_k log p_k(x_k)

    Columns of the same family are one part, over the columns whose numbers are given.
    """

    parts: tuple[Distribution, ...]  # each over [B, number of its columns]
    columns: tuple[tuple[int, ...], ...] = field(metadata={"static": True})  # of every part

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, D)."""
        return (max(part.shape[0] for part in self.parts), sum(map(len, self.columns)))

    @property
    def mean(self) -> Array:
        """Expected values, [B, D]; of categories the most probable."""
        return self._join([part.mean for part in self.parts])

    def mixture_mean(self, weights: Array) -> Array:
        """Of every column, that of its density.  Shapes: [B] -> [D]."""
        return self._join([part.mixture_mean(weights)[None] for part in self.parts])[0]

    @property
    def spec(self) -> Spec:
        """Those of the columns."""
        return Spec.of_columns([part.spec for part in self.parts], self.columns)

    def cast(self, x: Any) -> Array:
        """Every column as its density takes it."""
        return self._join([part.cast(values) for part, values in self._split(x)])

    def log_terms(self, x: Array) -> Array:
        """Log density of every cell, [B, D] -> [B, D]."""
        return self._join([part.log_terms(values) for part, values in self._split(x)])

    def sample(self, key: Array) -> Array:
        """Rows, [B, D]."""
        keys = jax.random.split(key, len(self.parts))
        return self._join([part.sample(key) for part, key in zip(self.parts, keys, strict=True)])

    def with_exposure(self, exposure: Array) -> Columns:
        """Counts with their means times an exposure; other columns as they are.  Shapes: [B]."""
        return Columns(tuple(part.with_exposure(exposure) for part in self.parts), self.columns)

    def _split(self, x: Any) -> list[tuple[Distribution, Any]]:
        return [(part, x[:, np.array(columns)]) for part, columns in zip(self.parts, self.columns, strict=True)]

    def _join(self, values: list[Array]) -> Array:
        order = np.argsort(np.concatenate(self.columns))
        rows = max(len(value) for value in values)
        joined = jnp.concatenate([jnp.broadcast_to(value, (rows, *value.shape[1:])) for value in values], axis=1)
        return joined[:, order]


def without_gradient(x: Any, where: Array) -> Any:
    """X, with a gradient of 0 at these elements: that of a logarithm is NaN at NaN, even of what is not taken."""
    return x if isinstance(x, np.ndarray) else jnp.where(where, lax.stop_gradient(x), x)


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
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return tuple(np.broadcast_shapes(self.base.shape, self.observed.shape))

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
        return jnp.where(self.observed, 0, self.base.cast(without_gradient(x, self.observed)))

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, 0 where it is observed."""
        return jnp.where(self.observed, 0, self.base.log_terms(x))

    def sample(self, key: Array) -> Array:
        """Draws of the elements that are not observed, the others as they are, [B, *event]."""
        return jnp.where(self.observed, jnp.asarray(self.values, self.dtype), self.base.sample(key))


@distribution
class PointMass(Distribution):
    """Elements that equal one value with a probability of their own, and have the density `base` elsewhere.

        p(x) = w  if x = value,   else (1 - w) p_base(x),   per element

    A density with respect to length, and to counting at the value: the two add up to 1.
    """

    base: Distribution
    logit: Array  # [B, *event], log w / (1 - w)
    value: tuple[float, ...] = field(metadata={"static": True})  # per channel, the last axis of x, or one for all

    @property
    def mean(self) -> Array:
        """Expected value, [B, *event]."""
        weight = jax.nn.sigmoid(self.logit)
        return weight * self._values + (1 - weight) * self.base.mean

    @property
    def _values(self) -> Array:
        return jnp.asarray(np.array(self.value), self.dtype)

    @property
    def spec(self) -> Spec:
        """That of the base, or the value."""
        spec = self.base.spec
        return spec._replace(low=min(spec.low, *self.value))

    def cast(self, x: Any) -> Array:
        """X as the base takes it, and infinite where it is the value."""
        at_value = is_value(x, self.value)
        where = np.where if isinstance(x, np.ndarray) else jnp.where
        cast = self.base.cast(where(at_value, np.ones((), x.dtype), x))  # 1 has a density in every family
        return jnp.where(at_value, jnp.inf, cast)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element; here x is as `cast` gives it."""
        at_value = jnp.isinf(x)
        elsewhere = self.base.log_terms(jnp.where(at_value, 0, x)) + jax.nn.log_sigmoid(-self.logit)
        return jnp.where(at_value, jax.nn.log_sigmoid(self.logit), elsewhere)

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        value_key, base_key = jax.random.split(key)
        at_value = jax.random.bernoulli(value_key, jax.nn.sigmoid(self.logit))
        return jnp.where(at_value, self._values, self.base.sample(base_key))


def is_value(x: Any, value: tuple[float, ...]) -> Any:
    """Where x equals a value per channel, both in the precision of x.  Shapes: [..., C] -> bool [..., C]."""
    values = np.array(value)
    return x == (values.astype(x.dtype) if checks.is_float(x.dtype) else values)


@distribution
class Missing(Distribution):
    """A density of which only the elements that are there count: NaN in x marks one that is missing."""

    base: Distribution

    @property
    def shape(self) -> tuple[int, ...]:
        """(B, *event)."""
        return self.base.shape

    @property
    def dtype(self) -> Any:
        """That of the base."""
        return self.base.dtype

    @property
    def mean(self) -> Array:
        """Expected value, also of elements that are missing in some x, [B, *event]."""
        return self.base.mean

    def mixture_mean(self, weights: Array) -> Array:
        """That of the base.  Shapes: [B] -> [*event]."""
        return self.base.mixture_mean(weights)

    @property
    def spec(self) -> Spec:
        """That of the base, or NaN."""
        return self.base.spec.with_missing()

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, 0 where it is missing."""
        missing = jnp.isnan(x)
        # NaN would spoil the gradient, even of what is not taken; 0 has a density in every family, as it is cast.
        return jnp.where(missing, 0, self.base.log_terms(jnp.where(missing, 0, x)))

    def cast(self, x: Any) -> Array:
        """X as the base takes it, NaN where it is missing."""
        return self.base.cast(without_gradient(x, jnp.isnan(x)))

    def sample(self, key: Array) -> Array:
        """One draw of all elements, [B, *event]."""
        return self.base.sample(key)

    def with_exposure(self, exposure: Array) -> Missing:
        """The base with an exposure."""
        return Missing(self.base.with_exposure(exposure))
