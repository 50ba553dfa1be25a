"""Likelihoods of counts and of categories."""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, distributions
from cvae.checks import SMALLEST, Spec
from cvae.distributions import Distribution, center_and_spread, standardize
from cvae.likelihoods.base import Likelihood, check_channels
from cvae.settings import Finite, NonNegative, setting


@setting
class Poisson(Likelihood):
    """Counts with mean exp(location + output); with an exposure among the conditions, times that.

        log p(x | z, c) = x log r - r - log x!,   log r = location + output + log exposure

    The output is bounded to +-10, smoothly.
    """

    location: tuple[Finite, ...] = (0.0,)
    """logarithm of the mean per channel (the last axis), or one for all"""
    scale: tuple[NonNegative, ...] = (1.0,)
    """standard deviation of log(1 + x), by which features are divided"""

    def __post_init__(self) -> None:
        same = len(self.location) == len(self.scale) > 0
        checks.require(same, "scale", f"have one number per location, {len(self.location)}", len(self.scale))

    @classmethod
    def fitted(cls, x: Any, exposure: Any = 1.0) -> Poisson:
        """The likelihood whose mean is that of training examples per unit of exposure; NaN is left out.

        Shapes: x [N, *event], exposure [N] or a number.
        Raises: ValueError if x is not whole numbers from 0 on, of at least one axis besides N.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], "whole", 0, missing=True).check("x", x)
        checks.require(len(shape) > 1 and 0 not in shape, "x", "have shape [N, *event]", shape)
        checks.scalar("exposure", exposure, shape[0], SMALLEST)
        values = np.asarray(x, np.float64).reshape(-1, shape[-1])
        per_row = np.asarray(exposure, np.float64).reshape(-1, *[1] * (len(shape) - 1))
        exposed = np.where(np.isnan(values), 0, np.broadcast_to(per_row, shape).reshape(values.shape)).sum(axis=0)
        # Half a count where there is none, so that the logarithm is finite; 1 where nothing is known.
        total = np.where(exposed > 0, np.maximum(np.nansum(values, axis=0), 0.5), 1)
        mean = total / np.where(exposed > 0, exposed, 1)
        spread = center_and_spread(np.log1p(values))[1]
        return cls(tuple(np.log(mean).tolist()), tuple(spread.tolist()))

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean per element."""
        check_channels("location", self.location, event_shape)
        return math.prod(event_shape)

    def features(self, x: Any) -> Array:
        """log((1 + x) / (1 + mean)), in units of its standard deviation."""
        centre = tuple(np.logaddexp(0, self.location).tolist())
        log = np.log1p(x) if isinstance(x, np.ndarray) else jnp.log1p(x)
        return jnp.asarray(standardize(log, centre, self.scale))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.Poisson(self._log_mean(outputs.reshape(-1, *event_shape)))

    def _log_mean(self, outputs: Array) -> Array:
        return jnp.asarray(np.array(self.location), outputs.dtype) + 10 * jnp.tanh(outputs / 10)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Whole numbers from 0 on."""
        return Spec(event_shape, "whole", 0)


@setting
class NegativeBinomial(Poisson):
    """Counts whose variance exceeds their mean, m + m^2 / r: m as the mean of `Poisson`, and r from the decoder."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean and a size per element."""
        return 2 * super().num_outputs(event_shape)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, 2 D] -> over [B, *event]."""
        outputs = outputs.reshape(outputs.shape[0], *event_shape, 2)
        return distributions.NegativeBinomial(self._log_mean(outputs[..., 0]), 6 * jnp.tanh(outputs[..., 1] / 6))


@setting
class Categorical(Likelihood):
    """Categories, held as whole numbers from 0 to num_classes - 1."""

    num_classes: Annotated[int, Field(ge=2, lt=2**20)]
    """number of categories"""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A logit per category and element."""
        return math.prod(event_shape) * self.num_classes

    def features(self, x: Any) -> Array:
        """One-hot, [B, *event] -> [B, *event[:-1], event[-1] * num_classes]; 0 throughout for a missing element."""
        x = jnp.asarray(x)
        one_hot: Array = x[..., None] == jnp.arange(self.num_classes, dtype=x.dtype)
        return one_hot.reshape(*x.shape[:-1], -1).astype(jnp.float32)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D num_classes] -> over [B, *event]."""
        return distributions.Categorical(outputs.reshape(-1, *event_shape, self.num_classes))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Whole numbers below num_classes."""
        return Spec(event_shape, "whole", 0, self.num_classes)
