"""Densities composed of others: of exponentials, of the columns of a table, of what is not missing."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from cvae import checks
from cvae.distributions import Distribution, Normal, Standardized, distribution


@distribution
class LogNormal(Distribution):
    """Independent positive elements whose logarithm is Gaussian.

    log p(x) = log N(log x; location + scale m, scale s) - log x
    """

    base: Standardized  # of log x
    support: ClassVar[tuple[float, float]] = (0.0, math.inf)

    @property
    def mean(self) -> Array:
        """Expected value, exp(mean + variance / 2) of log x, [B, *event]."""
        assert isinstance(self.base.base, Normal)
        spread = jnp.asarray(np.array(self.base.scale), self.dtype) * self.base.base.std
        return jnp.exp(jnp.minimum(self.base.mean + 0.5 * spread**2, 80.0))  # finite in float32

    def cast(self, x: Any) -> Array:
        """Log x, in the dtype of the parameters."""
        x = x.astype(np.float64) if isinstance(x, np.ndarray) else jnp.asarray(x, self.dtype)
        return jnp.asarray(np.log(x) if isinstance(x, np.ndarray) else jnp.log(x), self.dtype)

    def log_terms(self, x: Array) -> Array:
        """Log density of every element in the units of x; here x is log x already, by `cast`."""
        return self.base.log_terms(self.base.cast(x)) - x

    def sample(self, key: Array) -> Array:
        """One draw, [B, *event]."""
        return jnp.exp(jnp.minimum(self.base.sample(key), 80.0))


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

    def check(self, x: Any) -> None:
        """Refuse rows of another number of columns, or outside a column's support."""
        rows, event = self.shape
        checks.Spec((event,), "real").check("x", x, None if rows == 1 or len(x) == 1 else rows)
        for part, columns in zip(self.parts, self.columns, strict=True):
            part.check(x[:, np.array(columns)])

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

    def check(self, x: Any) -> None:
        """Refuse events that the base refuses, whatever their missing elements were."""
        array = checks.values(x)
        if array is not None and array.dtype.kind == "f":
            x = np.where(np.isnan(array), np.asarray(self._legal, array.dtype), array)
        self.base.check(x)

    @property
    def _legal(self) -> Array:
        """Values inside the support, to compute with where there is none: NaN would spoil the gradient."""
        return lax.stop_gradient(jnp.nan_to_num(self.base.mean))

    def log_terms(self, x: Array) -> Array:
        """Log density of every element, 0 where it is missing."""
        missing = jnp.isnan(x)
        legal = self.base.cast(self._legal)
        return jnp.where(missing, 0, self.base.log_terms(jnp.where(missing, legal, x)))

    def cast(self, x: Any) -> Array:
        """X as the base takes it, NaN where it is missing."""
        return self.base.cast(x)

    def sample(self, key: Array) -> Array:
        """One draw of all elements, [B, *event]."""
        return self.base.sample(key)

    def with_exposure(self, exposure: Array) -> Missing:
        """The base with an exposure."""
        return Missing(self.base.with_exposure(exposure))
