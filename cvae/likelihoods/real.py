"""Likelihoods of real numbers, in their own units."""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, distributions
from cvae.checks import SMALLEST, Spec
from cvae.distributions import Distribution, Standardized, center_and_spread, standardize
from cvae.likelihoods.base import Likelihood, check_channels
from cvae.settings import Finite, NonNegative, replace, setting

# The standard deviation of standardised x: beyond this range squares of gradients leave float32.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]
LEAST_LOG_SCALE = 1e-4  # standard deviation of a logarithm; x in float32 is exact to 6e-8 of its size


@setting
class Normal(Likelihood):
    """Real elements x = location + scale y, with y Gaussian given z and c; `Normal.fitted(x)` takes both from data.

        log p(x | z, c) = log N((x - location) / scale; m(z, c), s(z, c)) - log scale,   per element
        log s = log low + (log high - log low) sigmoid(output + b),   (low, high) = bounds;   or s = std

    So networks see numbers of the order of 1, and nats are in the units of x. The constant b makes s = 1 where the
    output is 0: with small initial outputs, training starts at the Gaussian of the data. Without a lower bound, an
    element that the decoder can predict exactly would be worth infinitely many nats.
    """

    std: Scale | None = None
    """fixed standard deviation in units of scale; None has the decoder learn it"""
    bounds: tuple[Scale, Scale] = (0.01, 10.0)
    """range of a learned standard deviation, in units of scale"""
    location: tuple[Finite, ...] = (0.0,)
    """mean of x per channel (the last axis), or one for all"""
    scale: tuple[NonNegative, ...] = (1.0,)
    """standard deviation of x per channel, or one for all; 0 marks a constant, which has no density"""

    def __post_init__(self) -> None:
        checks.require(self.bounds[0] < self.bounds[1], "bounds", "be two numbers, the lower first", self.bounds)
        same = len(self.location) == len(self.scale) > 0
        checks.require(same, "scale", f"have one number per location, {len(self.location)}", len(self.scale))

    @classmethod
    def fitted(cls, x: Any, **fields: Any) -> Normal:
        """The likelihood with location and scale of training examples, per channel (the last axis).

        A channel that never varies gets scale 0: it has no density, counts 0 nats, and is drawn as its constant.
        Missing elements, NaN, are left out.

        Shapes: [N, *event].
        Raises: ValueError if x is not real numbers of at least one axis besides N, or nothing in it varies.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], "pixels" if x.dtype == np.uint8 else "real", missing=True).check("x", x)
        checks.require(len(shape) > 1 and 0 not in shape, "x", "have shape [N, *event]", shape)
        values = np.asarray(Spec(shape[1:], "pixels").cast(x), np.float64).reshape(-1, shape[-1])
        location, scale = center_and_spread(values)
        checks.require(bool((scale > 0).any()), "x", "vary", f"{values.flat[0]:.9g} throughout")
        least, rule = scale[scale > 0].min(), f"vary by {SMALLEST:g} at least, or not at all"
        checks.require(least >= SMALLEST, "x", rule, f"{least:.3g}")
        return cls(location=tuple(location.tolist()), scale=tuple(scale.tolist()), **fields)

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean per element of x, and its scale if that is learned."""
        check_channels("scale", self.scale, event_shape)
        return math.prod(event_shape) * (1 if self.std is not None else 2)

    def features(self, x: Any) -> Array:
        """(x - location) / scale."""
        return jnp.asarray(standardize(x, self.location, self.scale))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D or 2 D] -> over [B, *event]."""
        # A step of Adam moves a sum over hundreds of units by as many times its size: unscaled, it keeps predictions of
        # structureless data trembling, and their draws come out a fifth too wide.
        outputs = 0.1 * outputs.reshape(outputs.shape[0], *event_shape, -1)
        mean = outputs[..., 0]
        if self.std is not None:
            log_std = jnp.full(mean.shape, math.log(self.std), mean.dtype)
        else:
            low, high = (math.log(bound) for bound in self.bounds)
            place = min(max(-low / (high - low), 0.05), 0.95)  # of log s = 0 between the bounds
            log_std = low + (high - low) * jax.nn.sigmoid(outputs[..., 1] + math.log(place / (1 - place)))
        return Standardized(distributions.Normal(mean, log_std), self.location, self.scale)

    @property
    def origin(self) -> tuple[float, ...] | None:
        """The location, where there is one."""
        return self.location if any(self.location) else None

    def at_origin(self) -> Normal:
        """The same with location 0."""
        return replace(self, location=(0.0,) * len(self.location))


@setting
class LogNormal(Normal):
    """Positive elements: the logarithm of x is scored as by `Normal`, in the units of x.

        log p(x | z, c) = log N(log x; ...) - log x,   per element

    Location and scale are those of log x.
    """

    @classmethod
    def fitted(cls, x: Any, **fields: Any) -> LogNormal:
        """The likelihood with location and scale of the logarithm of training examples; NaN is left out.

        Shapes: [N, *event].
        Raises: ValueError as `Normal.fitted`, or if a value is not above 0, or the logarithm varies less than float32
            can hold on a device.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], low=SMALLEST, missing=True).check("x", x)
        found = super().fitted(np.log(np.asarray(x, np.float64)), **fields)
        assert isinstance(found, LogNormal)
        narrow = [scale for scale in found.scale if 0 < scale < LEAST_LOG_SCALE]
        rule = f"vary by {LEAST_LOG_SCALE:g} of its size at least (or be scored by a Normal)"
        checks.require(not narrow, "x", rule, f"{min(narrow, default=0):.3g}")
        return found

    def features(self, x: Any) -> Array:
        """(log x - location) / scale."""
        return super().features(np.log(x) if isinstance(x, np.ndarray) else jnp.log(x))

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D or 2 D] -> over [B, *event]."""
        base = super().distribution(outputs, event_shape)
        assert isinstance(base, Standardized)
        return distributions.LogNormal(base)

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Positive numbers."""
        return Spec(event_shape, low=SMALLEST)

    @property
    def origin(self) -> None:
        """None: `fitted` has seen to it that the logarithm has digits enough."""
        return None

    def at_origin(self) -> LogNormal:
        """The same."""
        return self
