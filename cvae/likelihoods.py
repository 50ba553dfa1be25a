"""Likelihoods: families of p(x | z, c), each one class of settings.

A likelihood says how many numbers the decoder has to give (`num_outputs`), what the encoder sees of x (`features`),
which distribution the decoder's outputs parametrise (`distribution`), and which x it can score (`spec`). A subclass
with these four, defined anywhere, can be passed to `Architecture(likelihood=...)`. Densities are `distributions`'.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from pydantic import Field

from cvae import checks, distributions
from cvae.checks import Spec
from cvae.distributions import Distribution, Standardized, center_and_spread, standardize
from cvae.settings import Finite, NonNegative, replace, setting

# The standard deviation of standardised x: beyond this range squares of gradients leave float32.
Scale = Annotated[float, Field(ge=1e-6, le=1e6)]


@setting
class Likelihood:
    """A family of densities p(x | z, c) over events of any shape."""

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """How many numbers per example the decoder gives; a multiple of the number of pixels for images."""
        return math.prod(event_shape)

    def features(self, x: Any) -> Array:
        """What the encoder sees of x, [B, *event] -> [B, *event], in the order of 1 in size."""
        return jnp.asarray(x)

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """p(x | z, c) from the decoder's outputs, [B, num_outputs] -> over [B, *event]."""
        raise NotImplementedError

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Which x it can score."""
        return Spec(event_shape, "pixels")

    @property
    def origin(self) -> tuple[float, ...] | None:
        """Where x is centred, per channel or for all, if far from 0; see `at_origin`."""
        return None

    def at_origin(self) -> Likelihood:
        """The same family for x - origin.

        Arrays are float32 on a device, which holds no digits of what varies around a large mean; so the mean of a
        data set is subtracted in float64 on the host, and the densities stay the same.
        """
        return self


@setting
class Bernoulli(Likelihood):
    """Binary elements with p(1) = sigmoid(output); grey ones in (0, 1) are scored by the same cross-entropy."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.Bernoulli(outputs.reshape(-1, *event_shape))

    def spec(self, event_shape: tuple[int, ...]) -> Spec:
        """Values in [0, 1], uint8 as 255ths."""
        return Spec(event_shape, "pixels", 0, 1)


@setting
class ContinuousBernoulli(Bernoulli):
    """Grey elements in [0, 1], by a normalised density."""

    def distribution(self, outputs: Array, event_shape: tuple[int, ...]) -> Distribution:
        """Shapes: [B, D] -> over [B, *event]."""
        return distributions.ContinuousBernoulli(outputs.reshape(-1, *event_shape))


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

        Shapes: [N, *event].
        Raises: ValueError if x is not real numbers of at least one axis besides N, or nothing in it varies.
        """
        shape = checks.shape_of("x", x)
        Spec(shape[1:], "pixels" if x.dtype == np.uint8 else "real").check("x", x)
        checks.require(len(shape) > 1 and 0 not in shape, "x", "have shape [N, *event]", shape)
        values = np.asarray(Spec(shape[1:], "pixels").cast(x), np.float64).reshape(-1, shape[-1])
        location, scale = center_and_spread(values)
        checks.require(bool((scale > 0).any()), "x", "vary", f"{values.flat[0]:.9g} throughout")
        return cls(location=tuple(location.tolist()), scale=tuple(scale.tolist()), **fields)

    def num_outputs(self, event_shape: tuple[int, ...]) -> int:
        """A mean per element of x, and its scale if that is learned."""
        channels = {1, event_shape[-1]}
        checks.require(len(self.scale) in channels, "scale", f"have 1 or {event_shape[-1]} numbers", len(self.scale))
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
